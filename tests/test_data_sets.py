"""Image sets: read as they were written, cached once, and one clear line for whatever is wrong."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from tfds_sets import noise, write_set

from plq.data.digits import load_digits
from plq.data.images import resize
from plq.data.sets import default_splits, describe, load_split
from plq.errors import UserError


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = write_set(
        tmp_path_factory.mktemp("tfds"), {"train": noise(30), "test": noise(7, seed=1), "void": noise(1)}
    )
    info = next(folder.glob("*/*/dataset_info.json"))
    content = json.loads(info.read_text())
    next(split for split in content["splits"] if split["name"] == "void")["shardLengths"] = ["0"]
    info.write_text(json.dumps(content))
    return str(folder)


def load(split, data_dir, tmp_path, size=0):
    return load_split("tiny_set", split, size, data_dir, str(tmp_path / "cache"))


def test_images_and_labels_come_back_as_written(data_dir, tmp_path):
    split = load("train", data_dir, tmp_path)
    written = {image.tobytes(): index % 3 for index, image in enumerate(noise(30))}
    assert split.images.dtype == np.uint8 and split.labels.dtype == np.int32
    assert {image.tobytes(): int(label) for image, label in zip(split.images, split.labels, strict=True)} == written
    info = describe("tiny_set", data_dir)
    assert info.class_names == ("ant", "bee", "cow") and info.splits == {"train": 30, "test": 7, "void": 0}


def test_the_second_read_is_from_the_cache_and_the_same(data_dir, tmp_path):
    first, again = (load("train", data_dir, tmp_path, 12) for _ in range(2))
    assert isinstance(again.images, np.memmap)
    np.testing.assert_array_equal(first.images, again.images)
    assert first.images.shape == (30, 12, 12, 3)


def test_a_torn_cache_file_is_made_again(data_dir, tmp_path):
    expected = np.array(load("train", data_dir, tmp_path).images)
    for path in (tmp_path / "cache").iterdir():
        os.truncate(path, path.stat().st_size // 2)
    np.testing.assert_array_equal(load("train", data_dir, tmp_path).images, expected)


def test_a_set_that_was_written_again_is_read_again(tmp_path):
    folder = write_set(tmp_path / "a", {"train": noise(5)})
    before = np.array(load("train", str(folder), tmp_path).images)
    again = write_set(tmp_path / "b", {"train": noise(5, seed=9)})
    (folder / "tiny_set").rename(folder / "old")
    (again / "tiny_set").rename(folder / "tiny_set")
    assert not np.array_equal(load("train", str(folder), tmp_path).images, before)


def test_no_cache_where_nothing_can_be_written(data_dir, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file is in the way")
    assert len(load("train", data_dir, tmp_path).images) == 30
    assert "no cache in" in caplog.text


def test_tfds_split_syntax(data_dir, tmp_path):
    parts = [load(split, data_dir, tmp_path).images for split in ("train[:40%]", "train[40%:]", "train+test")]
    assert [len(part) for part in parts] == [12, 18, 37]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("trian", r"split 'trian' of tiny_set: Unknown split .*train \(30\), test \(7\)"),
        ("void", "split 'void' of tiny_set: is empty"),
        ("train[", "split 'train\\[' of tiny_set"),
        ("train[50%:50%]", "is empty"),
    ],
)
def test_wrong_splits_are_named(split, message, data_dir, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        load(split, data_dir, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_set_says_where_and_how(data_dir, tmp_path):
    with pytest.raises(UserError, match=r"data.name=tiny_sett: not found in .*did you mean tiny_set.*tfds build"):
        load_split("tiny_sett", "train", data_dir=data_dir)
    with pytest.raises(UserError, match=r"data.name=cifar10: not found in .*TFDS_DATA_DIR"):
        load_split("cifar10", "train", data_dir=str(tmp_path))


@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_a_damaged_record_file_is_named(damage, tmp_path):
    folder = write_set(tmp_path, {"train": noise(40, (64, 64, 3))})
    file = next((folder / "tiny_set").glob("*/*train.array_record*"))
    file.unlink() if damage == "remove" else os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(UserError, match="split train cannot be read") as caught:
        load("train", str(folder), tmp_path)
    assert "\n" not in str(caught.value)


def test_other_formats_and_features_are_refused(tmp_path):
    write_set(tmp_path, {"train": noise(3)}, name="scalar_set", label=np.int64)
    with pytest.raises(UserError, match="label is .*allowed ClassLabel"):
        describe("scalar_set", str(tmp_path))
    info = next((tmp_path / "scalar_set").glob("*/dataset_info.json"))
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match="prepared as tfrecord, allowed array_record"):
        describe("scalar_set", str(tmp_path))
    info.write_text("{")
    with pytest.raises(UserError, match="not a readable data set"):
        describe("scalar_set", str(tmp_path))


def test_images_of_unequal_size_need_an_image_size(tmp_path):
    write_set(tmp_path, {"train": noise(2) + noise(2, (11, 7, 3))}, shape=(None, None, 3))
    with pytest.raises(UserError, match="set data.image_size"):
        load("train", str(tmp_path), tmp_path)
    assert load("train", str(tmp_path), tmp_path, 8).images.shape == (4, 8, 8, 3)


def test_digits_are_split_once_and_for_all():
    train, test = load_split("digits", "train"), load_split("digits", "test", 16)
    assert train.images.shape == (1437, 8, 8, 1) and test.images.shape == (360, 16, 16, 1)
    assert train.images.max() == 255 and np.bincount(test.labels).min() > 20
    np.testing.assert_array_equal(test.images[0], resize(load_digits()[0][1437], (16, 16)))
    with pytest.raises(UserError, match="split 'tset' of digits: unknown; did you mean test"):
        load_split("digits", "tset")


def test_default_splits():
    assert default_splits("svhn_cropped") == ("train+extra", "test")
    assert default_splits("anything") == ("train", "test")


def test_reading_needs_no_tensorflow(data_dir, tmp_path):
    code = (
        "import sys; from plq.data.sets import load_split; "
        f"load_split('tiny_set', 'train', 0, {data_dir!r}, {str(tmp_path)!r}); "
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.skipif(not os.environ.get("TFDS_DATA_DIR"), reason="TFDS_DATA_DIR is not set")
@pytest.mark.parametrize(("name", "shape"), [("fashion_mnist", (28, 28, 1)), ("svhn_cropped", (32, 32, 3))])
def test_real_sets(name, shape):
    if name not in os.listdir(os.environ["TFDS_DATA_DIR"]):
        pytest.skip(f"{name} is not prepared")
    split = load_split(name, "test[:100]")
    assert split.images.shape == (100, *shape) and set(split.labels) <= set(range(10))
