"""A folder of pictures packed into array_record, once, so that training reads few large files and not many small ones.

The set gives the batches that the folder gives: the same images, labels, splits and order. JPEGs are copied byte for
byte; other formats become PNG, upright and with the set's number of channels.
"""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import registered

from plq.data.folder import FOLDER, FolderSource, ImageFolder
from plq.data.images import photograph
from plq.data.jpeg import JPEG
from plq.data.preparation import FAILURES, alone, remove_leftovers, report
from plq.data.prepared import EXIF, class_names, open_set
from plq.errors import UserError, first_line
from plq.storage.output import require_apart, require_room

VERSION = "1.0.0"
FILES = "files"  # in a set's metadata: the fingerprint of the folder that it was made from
NAME = re.compile(r"[a-z][a-z0-9_]*")
TAKEN = ("digits", FOLDER)  # mean something else as data.name


def prepare_folder(folder: ImageFolder, out: Path, name: str = "") -> str:
    """Write the set ``name`` (empty: the folder's own, in lower case) below ``out``, once. Returns its name.

    Raises UserError for a name that no set can have, if another set of this name is there, and if it cannot be written.
    """
    name = set_name(folder.root, name)
    require_apart(out, {"the folder": folder.root})
    _require_classes(folder.class_names)
    target = out / name / VERSION
    if target.exists():
        _require_same(folder, name, out, target)
        print("nothing to do, prepared before:")
    else:
        require_room(target)
        with alone(target.parent):
            remove_leftovers(target)
            _write(folder, name, out)
    report(name, target, out)
    return name


def set_name(root: Path, name: str) -> str:
    """``name``, or one made of the folder's. Raises UserError unless it is one that a TFDS set can have."""
    made = name or re.sub(r"[^a-z0-9]+", "_", root.resolve().name.lower()).strip("_")
    if not NAME.fullmatch(made) or made in TAKEN:
        allowed = f"allowed a-z, then a-z, 0-9 and _, but for {' and '.join(TAKEN)}"
        raise UserError(f"--name={made}: {allowed}" if name else f"{root}: its name gives none for a set; give --name")
    return made


def _require_classes(names: tuple[str, ...]) -> None:
    """TFDS keeps the names as lines of text."""
    wrong = next((name for name in names if name != name.strip()), None)
    if wrong is not None:
        raise UserError(f"class {wrong!r}: begins or ends with a space, which the file of a prepared set does not keep")


def _require_same(folder: ImageFolder, name: str, out: Path, target: Path) -> None:
    if not (target / "dataset_info.json").is_file():
        raise UserError(f"{target}: there, but without dataset_info.json; move it away")
    if (open_set(name, str(out)).info.metadata or {}).get(FILES) != folder.fingerprint:
        raise UserError(f"{target}: holds another set than {folder.root} is now; choose another --name or --out")


def _write(folder: ImageFolder, name: str, out: Path) -> None:
    try:
        nothing = tfds.download.DownloadConfig(try_download_gcs=False)
        _Builder(folder, name, out).download_and_prepare(download_config=nothing)
    except UserError:
        raise
    except FAILURES as error:
        raise UserError(f"{out / name}: could not be prepared ({first_line(error)})") from error
    if class_names(open_set(name, str(out))) != folder.class_names:
        raise UserError(f"{out / name}: its class names did not come back as they were; rename the class folders")


with registered.skip_registration():  # it is no set that has a name of its own

    class _Builder(tfds.core.GeneratorBasedBuilder):
        """Writes a folder's pictures in their order."""

        VERSION = tfds.core.Version(VERSION)

        def __init__(self, folder: ImageFolder, name: str, out: Path) -> None:
            self.folder, self.name = folder, name
            super().__init__(data_dir=str(out), file_format="array_record")

        def _info(self) -> tfds.core.DatasetInfo:
            height, width, channels = self.folder.image_shape
            features = {
                "image": tfds.features.Image(shape=(height or None, width or None, channels)),
                "label": tfds.features.ClassLabel(names=list(self.folder.class_names)),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                metadata=tfds.core.MetadataDict({EXIF: True, FILES: self.folder.fingerprint}),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {split: self._generate_examples(split) for split in self.folder.splits}

        def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
            source = FolderSource(self.folder, list(self.folder.splits[split]))
            for index in range(len(source)):
                data, label = source[index]
                yield (
                    index,
                    {"image": io.BytesIO(packed(data, source.where(index), self.folder.channels)), "label": label},
                )


def packed(data: bytes, source: str, channels: int) -> bytes:
    """A JPEG as it is, another image as PNG. Raises UserError, naming ``source``, if it cannot be read."""
    if data.startswith(JPEG):
        return data
    image = photograph(data, source, channels)
    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0] if channels == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()
