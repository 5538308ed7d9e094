"""Data that cannot be what was meant: labels that are no classes, deep pixels, splits and folders that miss."""

import dataclasses
import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tfds_sets import noise, png, write_set

from plq.config.schema import Data
from plq.data.images import open_image, pixels
from plq.data.jpeg import decode_rgb
from plq.data.labels import require_labels
from plq.data.sets import describe, load_split
from plq.data.source import RecordSource
from plq.errors import UserError
from plq.storage.address import place
from plq.trainer.evaluation import evaluation
from plq.trainer.image_comparison import open_labelled


def write(folder, splits, name="mine", label=None, dtype=np.uint8, shape=(None, None, 3)):
    """A set of (encoded image, label) by split; the labels are those of ant, bee, cow."""
    features = {"image": tfds.features.Image(shape=shape, dtype=dtype)}
    features["label"] = label or tfds.features.ClassLabel(names=["ant", "bee", "cow"])

    class Written(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split):
            for index, (data, given) in enumerate(splits[split]):
                yield index, {"image": io.BytesIO(data), "label": given}

    Written.name = name
    Written(data_dir=str(folder), file_format="array_record").download_and_prepare()
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of 20 training images those from 15 on have no label; none of the test images has one."""
    files = [png(image) for image in noise(20)]
    train = [(data, -1 if index >= 15 else index % 3) for index, data in enumerate(files)]
    labelled = [(data, index % 3) for index, data in enumerate(files)]
    splits = {"train": train, "test": [(data, -1) for data in files[:6]], "good": labelled}
    return write(tmp_path_factory.mktemp("sets"), splits)


READERS = [lambda split, folder, cache: load_split("mine", split, 0, folder, str(cache)),
           lambda split, folder, cache: RecordSource("mine", split, folder)]  # fmt: skip
both = pytest.mark.parametrize("read", READERS, ids=["memory", "records"])


@both
@pytest.mark.parametrize(("split", "found"), [
    ("train", "5 of 20 labels are outside 0..2, the first is -1"), ("test", "6 of 6 labels are outside 0..2"),
    ("good+test", "6 of 26 labels"),
])  # fmt: skip
def test_labels_that_are_no_classes_are_refused_before_training(read, split, found, folder, tmp_path):
    for _ in range(2):  # the second time from what the first one may have kept
        with pytest.raises(UserError, match=found) as caught:
            read(split, folder, tmp_path)
        assert split in str(caught.value) and "mine" in str(caught.value) and "\n" not in str(caught.value)


def test_a_label_that_was_not_looked_at_is_refused_at_its_record(folder, monkeypatch):
    monkeypatch.setattr("plq.data.source.LOOKED_AT", 1)
    source = RecordSource("mine", "good+test", folder)
    assert [source[index][1] in (0, 1, 2) for index in range(20)] == [True] * 20
    with pytest.raises(UserError, match=r"^mine good\+test record 20: its label is -1, allowed 0..2$"):
        _ = source[20]


def test_labels_are_integers_in_the_range_of_the_logits():
    logits = np.zeros((4, 3), np.float32)
    assert evaluation(logits, np.array([0, 0, 1, 2]))["accuracy"] == 0.5
    for labels, found in (
        ([0, 3, 1, 5], "2 of 4 labels are outside 0..2, the first is 3"),
        ([0.0, 1.0, 2.0, 0.0], "labels are float64"),
        ([True, False, True, True], "labels are bool"),
        ([[0, 1], [1, 0]], r"labels are int64 \[2, 2\]"),
    ):
        with pytest.raises(UserError, match=found):
            evaluation(logits, np.array(labels))
    require_labels(np.array([2, 0]), 3, "x")


@pytest.mark.parametrize(("label", "value", "found"), [
    (np.float32, 0.5, "label is (Scalar|Tensor), allowed ClassLabel"), (np.bool_, True, "label is (Scalar|Tensor)"),
    (tfds.features.Sequence(tfds.features.ClassLabel(num_classes=3)), [0, 1], "label is Sequence"),
])  # fmt: skip
def test_other_kinds_of_labels_are_refused(label, value, found, tmp_path):
    where = write(tmp_path, {"train": [(png(noise(1)[0]), value)]}, label=label)
    for read in READERS:
        with pytest.raises(UserError, match=found):
            read("train", where, tmp_path)


def test_classes_of_another_set_than_the_models(folder):
    @dataclasses.dataclass
    class Model:
        class_names: tuple[str, ...]

    data = Data(name="mine", data_dir=folder)
    assert len(open_labelled(Model(("ant", "bee", "cow")), data, "good")) == 20
    with pytest.raises(UserError, match="data.name=mine: found 3 classes, the model has 2"):
        open_labelled(Model(("ant", "bee")), data, "good")
    with pytest.raises(UserError, match="classes are in another order"):
        open_labelled(Model(("bee", "ant", "cow")), data, "good")


RAMP = np.linspace(0, 65535, 81).astype(np.uint16).reshape(9, 9)


def saved(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def deep_rgb() -> bytes:
    """A PNG of 16 bits and three channels, which Pillow does not write itself."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").repeat(3).tobytes() for row in RAMP)
    header = struct.pack(">IIBBBBB", 9, 9, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


DEEP = {
    "16 bits": (saved(Image.fromarray(RAMP)), "I;16"),
    "16 bits in colour": (deep_rgb(), "RGB, 16 bits per channel"),
    "32 bits": (saved(Image.fromarray(RAMP.astype(np.int32)), "TIFF"), "I"),
    "float": (saved(Image.fromarray(RAMP.astype(np.float32)), "TIFF"), "F"),
}


@pytest.mark.parametrize("kind", DEEP)
def test_more_than_eight_bits_are_refused_never_clipped(kind):
    data, mode = DEEP[kind]
    for read in (lambda: open_image(data, "x.png"), lambda: decode_rgb(data, "x.png")):
        with pytest.raises(UserError, match=f"^x.png: image mode {mode}, allowed 8 bits per channel$"):
            read()


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_a_set_of_deep_images_is_refused(dtype, tmp_path):
    where = write(tmp_path, {"train": [(png(RAMP), 0)] * 4}, dtype=np.uint16, shape=(None, None, 1))
    features = next(tmp_path.rglob("features.json"))
    features.write_text(features.read_text().replace('"uint16"', f'"{np.dtype(dtype)}"'))
    for read in READERS:
        with pytest.raises(UserError, match=f"data.name=mine: images are {np.dtype(dtype)}, allowed uint8"):
            read("train", where, tmp_path)


def test_deep_files_in_a_set_that_says_eight_bits_are_refused(tmp_path):
    where = write(tmp_path, {"train": [(DEEP["16 bits in colour"][0], 0)] * 4})
    with pytest.raises(UserError, match="mine train record 0: image mode RGB, 16 bits per channel"):
        load_split("mine", "train", 0, where, str(tmp_path))


@pytest.mark.parametrize(("mode", "channels", "said"), [
    ("RGBA", 3, True), ("CMYK", 3, True), ("LA", 1, True), ("RGB", 1, True),
    ("L", 3, False), ("1", 1, False), ("P", 3, False), ("RGB", 3, False),
])  # fmt: skip
def test_a_conversion_that_loses_something_is_said(mode, channels, said, recwarn):
    colours = Image.fromarray(noise(1)[0])
    image = colours.convert(mode)
    found = pixels(image, channels)
    assert found.shape == (9, 9, channels) and found.dtype == np.uint8
    messages = [str(warning.message) for warning in recwarn]
    assert messages == ([f"images of mode {mode} are converted to {'RGB' if channels == 3 else 'L'}"] if said else [])


@both
@pytest.mark.parametrize(("split", "found"), [
    ("good[90%:10%]", "runs backwards"), ("good[40:20]", "(backwards|incompatible|slice)"), ("good[12:8]", "backwards"),
    ("good[:0]", "is empty"), ("good[20:]", "is empty"), ("good[80%:20%]+good", "runs backwards"), ("good+", "good"),
])  # fmt: skip
def test_splits_without_an_example_are_one_line(read, split, found, folder, tmp_path):
    with pytest.raises(UserError, match=found) as caught:
        read(split, folder, tmp_path)
    assert "\n" not in str(caught.value) and split in str(caught.value)


def test_a_folder_that_is_too_deep_or_too_shallow_names_the_right_one(folder, monkeypatch):
    from pathlib import Path

    root = Path(folder)
    for wrong in (root / "mine", root / "mine" / "1.0.0", root.parent, f"{root}/mine/"):
        with pytest.raises(UserError, match=f"not found in .*, but in {root}; set data.data_dir") as caught:
            describe("mine", str(wrong))
        assert "\n" not in str(caught.value)
    file = root / "mine" / "1.0.0" / "features.json"
    with pytest.raises(UserError, match=f"data.data_dir={file}: is a file, allowed the folder that holds mine"):
        describe("mine", str(file))
    monkeypatch.setenv("HOME", str(root.parent))
    assert describe("mine", f"~/{root.name}/").class_names == ("ant", "bee", "cow")
    assert place(f"~/{root.name}") == root
    with pytest.raises(UserError, match="not found in ~nobody-of-that-name/x"):
        describe("mine", "~nobody-of-that-name/x")


def test_a_set_with_a_configuration_is_found_from_inside(tmp_path):
    write_set(tmp_path / "deep", {"train": noise(2)})
    (tmp_path / "name").mkdir()
    (tmp_path / "deep" / "tiny_set").rename(tmp_path / "name" / "config")
    with pytest.raises(UserError, match=f"but in {tmp_path}; set"):
        describe("name/config", str(tmp_path / "name" / "config" / "1.2.0"))
