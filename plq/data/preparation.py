"""A TFDS data set, prepared once: its archives are read and it is written as array_record.

Training reads that without TensorFlow. Space, sizes and checksums are looked at first. After an interruption the set
is written again, but the archives are not checked a second time.
"""

import fcntl
import hashlib
import importlib.util
import json
import shutil
import sys
import tarfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tqdm import tqdm

from plq.data.prepared import data_directory, open_set, split_sizes
from plq.errors import UserError, first_line, nearest, printable
from plq.storage.output import write_text_atomic

CHUNK = 2**24
CHECKED = ".checked.json"
READ_IN_PLACE, UNPACKED = 1.1, 2.5  # space wanted, in bytes per byte of the archives
FAILURES = (OSError, ValueError, KeyError, RuntimeError, AssertionError, EOFError, tarfile.TarError)


def prepare(name: str, manual_dir: Path, data_dir: str = "") -> None:
    """Write a set as array_record from its archives in ``manual_dir``, and print its sizes; once.

    Raises UserError that says what is missing or wrong.
    """
    root = data_directory(data_dir)
    builder = find_builder(name, root)
    folder = Path(str(builder.data_path))
    if _is_finished(name, folder, root):
        return
    with alone(folder.parent):
        _require_tensorflow(builder)
        archives = find_archives(builder, manual_dir)
        remove_leftovers(folder)
        _require_space(builder, folder.parent, archives)
        check_archives(archives, folder.parent / CHECKED)
        _prepare(builder, manual_dir)
    report(name, folder, root)


def find_builder(name: str, root: Path) -> Any:
    """The TFDS builder that writes array_record. Raises UserError if TFDS has none of this name."""
    try:
        return tfds.builder(name, data_dir=str(root), file_format="array_record", try_gcs=False)
    except ImportError as error:
        raise _needs_tensorflow(name) from error
    except (ValueError, AssertionError, KeyError) as error:
        legal = nearest(name, tfds.list_builders(with_community_datasets=False)).split(" allowed:")[0]
        hint = legal if legal.startswith("did you mean") else "see `tfds.list_builders()`"
        raise UserError(f"{name}: not a set that TFDS can prepare ({first_line(error)}); {hint}") from error


def find_archives(builder: Any, manual_dir: Path) -> dict[Path, Any]:
    """The archives that TFDS has registered for the set, with size and checksum.

    Raises UserError that names those not there. A set with several configurations has archives for each: there, one
    is enough.
    """
    infos = {info.filename or url.rsplit("/", 1)[-1]: info for url, info in (builder.url_infos or {}).items()}
    missing = [name for name in infos if not (manual_dir / name).is_file()]
    if missing and (not builder.BUILDER_CONFIGS or len(missing) == len(infos)):
        what = f"{builder.info.full_name} needs {', '.join(missing)}"
        raise UserError(f"--manual_dir {manual_dir}: {what}, not there; see {builder.info.homepage or 'its page'}")
    return {manual_dir / name: info for name, info in infos.items() if name not in missing}


def check_archives(archives: dict[Path, Any], notes: Path) -> None:
    """`check_archive` for those not in ``notes``, the file of what was checked before and has not changed since."""
    done = _read_notes(notes)
    for path, info in archives.items():
        stat = path.stat()
        state = [stat.st_size, stat.st_mtime_ns, info.checksum]
        if done.get(str(path)) == state:
            print(f"{path.name}: checked before")
            continue
        check_archive(path, info)
        done[str(path)] = state
        write_text_atomic(notes, json.dumps(done))


def _read_notes(notes: Path) -> dict[str, Any]:
    try:
        found = json.loads(notes.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def check_archive(path: Path, info: Any) -> None:
    """Compare size and SHA-256, with a progress bar. Raises UserError if either differs."""
    found, wanted = path.stat().st_size, int(info.size)
    if found != wanted:
        raise UserError(f"{path}: {found:,} bytes, the original has {wanted:,}; copy or download it again")
    digest = hashlib.sha256()
    bar = tqdm(total=wanted, desc=f"checking {path.name}", unit="B", unit_scale=True)
    with path.open("rb") as file, bar:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    if digest.hexdigest() != info.checksum:
        sums = f"SHA-256 {digest.hexdigest()}, the original has {info.checksum}"
        raise UserError(f"{path}: {sums}; copy or download it again")


@contextmanager
def alone(folder: Path) -> Generator[None, None, None]:
    """Holds a lock, so that what looks unfinished is not another process's work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".prepare.lock").open("w", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"{folder}: another process is preparing it") from error
        yield


def _is_finished(name: str, folder: Path, root: Path) -> bool:
    if not folder.exists():
        return False
    if not (folder / "dataset_info.json").is_file():
        raise UserError(f"{folder}: there, but without dataset_info.json; move it away")
    print("nothing to do, prepared before:")
    report(name, folder, root)
    return True


def report(name: str, folder: Path, root: Path) -> None:
    sizes = split_sizes(open_set(name, str(root)))  # refuses another format
    print(f"{printable(folder)}: {', '.join(f'{split} {size:,}' for split, size in sizes.items())}")


def _require_space(builder: Any, folder: Path, archives: dict[Path, Any]) -> None:
    factor = READ_IN_PLACE if builder.MANUAL_DOWNLOAD_INSTRUCTIONS else UNPACKED
    needed = factor * sum(int(info.size) for info in archives.values())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(f"{folder}: {free / 2**30:.1f} GiB free, preparing takes about {needed / 2**30:.1f} GiB")


def _require_tensorflow(builder: Any) -> None:
    """Known before the archives are read: builders that use TensorFlow call it ``tf``."""
    uses = hasattr(sys.modules.get(type(builder).__module__), "tf")
    if uses and importlib.util.find_spec("tensorflow") is None:
        raise _needs_tensorflow(builder.name)


def _needs_tensorflow(name: str) -> UserError:
    return UserError(f"{name}: preparing it takes TensorFlow, which is not installed; pip install 'plq[prepare]'")


def remove_leftovers(folder: Path) -> None:
    for path in sorted(folder.parent.glob(f"incomplete.*_{folder.name}")):
        print(f"removing {printable(path)}, left by an unfinished run")
        shutil.rmtree(path)


def _prepare(builder: Any, manual_dir: Path) -> None:
    config = tfds.download.DownloadConfig(manual_dir=str(manual_dir), try_download_gcs=False)
    try:
        builder.download_and_prepare(download_config=config, file_format="array_record")
    except ImportError as error:
        raise _needs_tensorflow(builder.name) from error
    except FAILURES as error:
        raise UserError(f"{builder.info.full_name}: could not be prepared ({first_line(error)})") from error
