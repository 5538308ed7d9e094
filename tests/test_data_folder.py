"""Folders of pictures: which are found, what they are, how they are read, and one line for whatever is wrong."""

import os
import re
import warnings

import numpy as np
import pytest
from folders import encoded, names, opened, orientation, save, write_classes, write_splits
from PIL import Image

from plq.data import arrays
from plq.data.crops import CROPS
from plq.data.folder import GREY
from plq.data.folder_layout import position
from plq.data.folder_opening import open_folder
from plq.data.images import SIDEWAYS, resize
from plq.data.picture_files import extensions
from plq.data.records import center_crops, train_batches
from plq.errors import UserError
from plq.runtime.loading import read_image


@pytest.mark.parametrize("test", ["test", "val", "validation"])
def test_folders_of_splits_and_classes(tmp_path, test):
    folder = opened(write_splits(tmp_path / "x", test))
    assert folder.info.splits == {"train": 6, "test": 6} and folder.class_names == ("ant", "bee")
    assert names(folder, "train") == {f"train/{name}/{index}.png" for name in ("ant", "bee") for index in range(3)}
    assert {one.label for one in folder.chosen("train") if "/bee/" in one.name} == {1}
    assert names(folder, test) == names(folder, "test") == {n.replace("train", test) for n in names(folder, "train")}


def test_validation_beside_test_is_a_split_of_its_own(tmp_path):
    root = write_splits(tmp_path / "x")
    write_classes(root / "val", count=1, first=50)
    folder = opened(root)
    assert folder.info.splits == {"train": 6, "test": 6, "validation": 2}
    assert names(folder, "val") == names(folder, "validation") == {"val/ant/0.png", "val/bee/0.png"}
    assert len(folder.chosen("train[:50%]+val+test[2:4]")) == 3 + 2 + 2


@pytest.mark.parametrize("below", ["", "train"])
def test_classes_alone_are_held_back_by_name(tmp_path, below):
    root = write_classes(tmp_path / "x" / below, count=40)
    before = opened(tmp_path / "x", holdout=0.3)
    assert len({position(one.name) for one in before.chosen("train+test")}) == 80
    assert 15 <= len(before.chosen("test")) <= 33
    assert all((position(one.name) < 0.3) == (one in before.splits["test"]) for one in before.chosen("train+test"))
    for index in range(30):
        save(root / "ant" / "more" / f"{index}.png", 500 + index)
    after = opened(tmp_path / "x", holdout=0.3)
    assert len(after.chosen("train+test")) == 110
    for split in ("train", "test"):
        assert names(before, split) <= names(after, split)


def test_a_part_of_a_split_has_all_classes(tmp_path):
    folder = opened(write_splits(tmp_path / "x", count=20))
    assert {one.label for one in folder.chosen("train[:25%]")} == {0, 1}


def test_a_number_beyond_the_end_of_a_split_is_its_end(tmp_path):
    folder = opened(write_splits(tmp_path / "x"))
    assert folder.chosen("train[:256]") == folder.chosen("train") == folder.chosen("train[-99:100%]")
    assert folder.chosen("train[4:10]+val[:64]") == [*folder.splits["train"][4:], *folder.splits["test"]]


def test_a_class_may_be_called_train(tmp_path):
    assert opened(write_classes(tmp_path / "x", ("bus", "train"), 20)).class_names == ("bus", "train")


def test_nested_folders_links_and_names_of_any_kind(tmp_path):
    root = write_splits(tmp_path / "x")
    save(root / "train/ant/a/b/deep.png", 20)
    elsewhere = write_classes(tmp_path / "elsewhere", ("more",), 2, first=30)
    (root / "train/ant/linked").symlink_to(elsewhere / "more")
    (root / "train/bee/link.png").symlink_to(save(elsewhere / "single.png", 40))
    strange = os.fsdecode(b"caf\xe9 \xf0\x9f\x90\x9d.png")
    for name in ("日本 語.PNG", "new\nline.png", strange):
        (root / "train/bee" / name).write_bytes(encoded(len(name)))
    found = names(opened(root), "train")
    assert {"train/ant/a/b/deep.png", "train/ant/linked/1.png", "train/bee/link.png"} <= found
    assert {f"train/bee/{name}" for name in ("日本 語.PNG", "new\nline.png", strange)} <= found and len(found) == 13
    assert len(opened(root).load("train", None).images) == 13


def test_class_names_are_composed_and_can_be_shown(tmp_path):
    root = write_classes(tmp_path / "x" / "train", ("be\u0301e", os.fsdecode(b"\xe9"), "a\nt"))
    write_classes(tmp_path / "x" / "test", ("b\u00e9e", os.fsdecode(b"\xe9"), "a\nt"), first=90)
    folder = opened(root.parent)
    assert folder.class_names == ("\\udce9", "a\\nt", "b\u00e9e") and all(n.isprintable() for n in folder.class_names)


class Network:
    """Takes what `plq predict` gives to a model of this many channels."""

    def __init__(self, channels: int, size: tuple[int, int]):
        self.image_shape, self.size = (*size, channels), size

    def fitted(self, image):
        return resize(image, self.size)


FORMATS = [("1", "png"), ("L", "png"), ("LA", "png"), ("P", "png"), ("P", "gif"), ("RGB", "png"), ("RGBA", "png"),
           ("RGB", "jpg"), ("L", "jpeg"), ("CMYK", "jpg"), ("RGB", "bmp"), ("RGB", "tif"), ("CMYK", "tiff"),
           ("RGB", "webp"), ("RGBA", "webp"), ("RGB", "ppm"), ("L", "pgm"), ("RGB", "tga"), ("RGB", "jp2")]  # fmt: skip


@pytest.mark.filterwarnings("ignore:images of mode")
@pytest.mark.parametrize(("mode", "extension"), FORMATS)
def test_each_format_is_what_prediction_sees(tmp_path, mode, extension):
    root = write_splits(tmp_path / "x", count=1)
    path = save(root / "train" / "ant" / f"this.{extension}", 5, mode, (40, 30))
    _same_as_prediction(root, path, 3, (30, 40))


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("number", [*range(1, 9), 99])
def test_each_orientation_is_what_prediction_sees(tmp_path, number, extension):
    root = write_splits(tmp_path / "x", count=1)
    path = save(root / "train" / "ant" / f"this.{extension}", 5, size=(40, 30), exif=orientation(number))
    _same_as_prediction(root, path, 3, (40, 30) if number in SIDEWAYS else (30, 40))


def _same_as_prediction(root, path, channels, size):
    """In memory, and by the crop that is all of an image of this size."""
    folder = opened(root)
    index = next(i for i, one in enumerate(folder.chosen("train")) if one.name == str(path.relative_to(root)))
    seen = read_image(path, Network(channels, size), convert=True)
    assert folder.image_shape == (0, 0, channels)
    assert (folder.chosen("train")[index].facts.height, folder.chosen("train")[index].facts.width) == size
    np.testing.assert_array_equal(folder.load("train", size).images[index], seen)
    batches = center_crops(folder.source("train"), 3, size, 1)
    np.testing.assert_array_equal(next(batches)[0][index], seen)
    batches.close()
    small = read_image(path, Network(channels, (9, 11)), convert=True)
    np.testing.assert_array_equal(folder.load("train", (9, 11)).images[index], small)


@pytest.mark.parametrize("mode", GREY)
def test_a_grey_folder_has_one_channel(tmp_path, mode):
    for index, name in enumerate(("train/ant", "train/bee", "test/ant", "test/bee")):
        save(tmp_path / "x" / name / "0.png", index, mode)
    folder = opened(tmp_path / "x")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert folder.load("train", None).images.shape == (2, 7, 9, 1)
    with pytest.raises(UserError, match="data.name=folder: grey images, allowed 3 channels"):
        folder.source("train")


def test_what_is_no_picture_by_its_name_is_counted(tmp_path):
    root = write_splits(tmp_path / "x")
    for name in (".DS_Store", "Thumbs.db", "notes.txt", "README", "photo.HEIC", "._0.png", ".git/config"):
        file = root / "train/ant" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"x")
    save(root / "loose.png")
    save(root / "test" / "loose.png")
    folder = opened(root)
    assert folder.ignored == {"hidden": 3, ".db": 1, ".txt": 1, "no extension": 1, ".heic": 1,
                              "pictures in no class folder": 2}  # fmt: skip
    with pytest.warns(UserWarning, match=f"9 files in {root} are ignored: hidden 3, pictures in no class folder 2, "):
        folder.report(0)
    assert {".jpg", ".jpeg", ".png", ".tif", ".webp", ".gif", ".bmp"} <= extensions() - {".eps", ".mpg", ".pdf"}


BROKEN = {
    "truncated.png": lambda path: path.write_bytes(encoded()[:60]),
    "truncated.jpg": lambda path: path.write_bytes(encoded(0, "JPEG")[:400]),
    "empty.jpg": lambda path: path.write_bytes(b""),
    "text.gif": lambda path: path.write_text("not an image"),
    "nowhere.png": lambda path: path.symlink_to("gone.png"),
    "pipe.png": os.mkfifo,
    "deep.png": lambda path: Image.fromarray(np.full((7, 9), 300, np.uint16)).save(path),
    "deep.tif": lambda path: Image.fromarray(np.ones((7, 9), np.float32)).save(path),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    root = write_splits(tmp_path / "x")
    BROKEN[name](root / "train/bee" / name)
    folder = opened(root)
    found = f"1 of 13 pictures in {root} cannot be read"
    with pytest.raises(UserError, match=f"^{found}, the first: train/bee/{name}: .*data.corrupt_share") as caught:
        folder.report(0.001)
    assert "\n" not in str(caught.value)
    with pytest.warns(UserWarning, match=f"{found} and are left out: train/bee/{name}"):
        folder.report(0.1)
    assert folder.info.splits == {"train": 6, "test": 6}


def test_many_broken_files_are_counted_and_a_few_named(tmp_path):
    root = write_splits(tmp_path / "x")
    for index in range(5):
        (root / "train/bee" / f"b{index}.png").write_bytes(b"x")
    with pytest.warns(UserWarning, match="^5 of 17 pictures") as seen:
        opened(root).report(0.5)
    assert str(seen[0].message).count(".png:") == 3


def test_equal_files_in_two_splits_are_said(tmp_path):
    root = write_splits(tmp_path / "x")
    opened(root).report(0)
    (root / "test/bee/copy.png").write_bytes((root / "train/ant/1.png").read_bytes())
    (root / "test/bee/again.png").write_bytes((root / "train/ant/2.png").read_bytes())
    (root / "train/ant/here.png").write_bytes((root / "train/ant/1.png").read_bytes())
    with pytest.warns(UserWarning, match="2 files are in two splits, byte for byte, as train/ant/.*png and test/bee/"):
        opened(root).report(0)


def _loop(root):
    (root / "train/ant/up").symlink_to(root / "train")


def _replace(old, new):
    return lambda root: (root / old).rename(root / new)


REFUSED = {
    "no splits": (lambda root: _replace("train", "x")(root), "found splits (test) beside other folders (x)"),
    "other folder": (lambda root: write_classes(root / "raw"), "found splits (test, train) beside other folders (raw)"),
    "no train": (lambda root: _replace("train", "val")(root), "found test, val and no train"),
    "both": (
        lambda root: [write_classes(root / name) for name in ("val", "validation")],
        "found both val and",
    ),
    "missing class": (_replace("test/bee", "test/wasp"), "train has classes that test has not: bee; allowed the same"),
    "other class": (lambda root: save(root / "test/wasp/0.png"), "test has classes that train has not: wasp"),
    "empty class": (
        lambda root: [(root / s / "wasp").mkdir() for s in ("train", "test")],
        "to train on of wasp",
    ),
    "forms": (
        lambda root: write_classes(root / "train", ("\u00e9", "e\u0301")),
        "two folders of the class \u00e9, whose names differ in their Unicode form",
    ),
    "loop": (_loop, "is a symbolic link to a folder that it lies in"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_set_is_one_line(tmp_path, name):
    root = write_splits(tmp_path / "x")
    spoil, message = REFUSED[name]
    spoil(root)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        opened(root)
    assert str(root) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("make", "message"), [
    (lambda root: None, "not there, allowed a folder"),
    (lambda root: root.write_text(""), "is a file, allowed a folder"),
    (lambda root: root.mkdir(), "found no folders in it, allowed DIR/train/CLASS/..., DIR/CLASS/..., or data.labels"),
    (lambda root: save(root / "0.png"), "found no folders in it"),
    (lambda root: (root / "train").mkdir(parents=True), "train: found no folders in it, allowed one for each class"),
    (lambda root: write_classes(root, ("ant",), 20), "found 1 classes with images, allowed 2 or more"),
    (lambda root: write_classes(root, count=1), "data.holdout=0.1: holds back none of the 2 images"),
])  # fmt: skip
def test_what_is_no_folder_of_classes_is_one_line(tmp_path, make, message):
    make(tmp_path / "x")
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        opened(tmp_path / "x")
    assert str(tmp_path / "x") in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_must_be_named():
    with pytest.raises(UserError, match="data.data_dir is empty: data.name=folder needs the folder of the images"):
        open_folder("", "", 0.1)


def test_a_share_held_back_has_a_use(tmp_path):
    with pytest.raises(UserError, match="data.holdout=0.2: has no effect, there are images to test on in"):
        opened(write_splits(tmp_path / "x"), holdout=0.2)


@pytest.mark.parametrize(("split", "message"), [
    ("trian", "Unknown split 'trian'.*Splits there: train .6., test .6.; see data.train_split"),
    ("train[", "split 'train\\['"), ("train[:50%", "split 'train"), ("train[4:2]", "runs backwards"),
    ("train[3:3]", "is empty"), ("train[50:]", "is empty"), ("", "split ''"),
])  # fmt: skip
def test_a_wrong_split_is_one_line(tmp_path, split, message):
    with pytest.raises(UserError, match=message) as caught:
        opened(write_splits(tmp_path / "x")).chosen(split)
    assert "\n" not in str(caught.value)


def test_images_of_several_sizes_need_a_size(tmp_path):
    root = write_splits(tmp_path / "x")
    save(root / "train/ant/large.png", size=(20, 20))
    with pytest.raises(UserError, match="data.name=folder: images of .* set data.image_size"):
        opened(root).load("train", None)


def test_what_does_not_fit_in_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "MAX_BYTES", 100)
    with pytest.raises(UserError, match="GiB decoded, allowed 0 GiB in memory; data.crop reads images"):
        opened(write_splits(tmp_path / "x")).load("train", None)


def test_files_are_decoded_once(tmp_path, monkeypatch):
    root = write_splits(tmp_path / "x")
    first = opened(root).load("train", (8, 8))
    monkeypatch.setattr("plq.data.survey.facts_of", None)
    monkeypatch.setattr("plq.data.folder.photograph", None)
    again = opened(root).load("train", (8, 8))
    assert isinstance(again.images, np.memmap)
    np.testing.assert_array_equal(first.images, again.images)
    monkeypatch.undo()
    save(root / "train/ant/1.png", 77, size=(12, 7))
    assert opened(root).load("train", (8, 8)).images.tobytes() != first.images.tobytes()


def test_the_fingerprint_is_that_of_names_labels_and_bytes(tmp_path):
    root = write_splits(tmp_path / "x")
    seen = [opened(root).info.fingerprint]
    os.utime(root / "train/ant/0.png", (1, 1))
    moved = root.rename(tmp_path / "y")
    assert opened(moved).info.fingerprint == seen[0]
    data = (moved / "train/ant/0.png").read_bytes()
    for change in (
        lambda: (moved / "train/ant/0.png").write_bytes((moved / "test/bee/2.png").read_bytes()),
        lambda: (moved / "train/ant/0.png").write_bytes(data) and save(moved / "train/ant/new.png"),
        lambda: (moved / "train/ant/new.png").rename(moved / "train/bee/new.png"),
        lambda: (moved / "train/bee/new.png").rename(moved / "train/bee/newer.png"),
    ):
        change()
        seen.append(opened(moved).info.fingerprint)
    assert len(set(seen)) == 5


@pytest.mark.parametrize("crop", CROPS)
def test_crops_go_on_at_any_step_and_in_shards(tmp_path, crop):
    root = write_splits(tmp_path / "x", count=5)
    save(root / "train/ant/turned.jpg", 9, size=(40, 30), exif=orientation(6))
    source = opened(root).source("train")
    batches = lambda start, shard: list(train_batches(source, 4, (8, 8), 3, start, 6, CROPS[crop], shard=shard))
    whole = batches(0, (0, 1))
    for step, (images, labels) in enumerate(batches(2, (0, 1)), 2):
        np.testing.assert_array_equal(images, whole[step][0])
        np.testing.assert_array_equal(labels, whole[step][1])
    for parts, (images, _) in zip(zip(*(batches(0, (i, 2)) for i in range(2)), strict=True), whole, strict=True):
        np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), images)


def test_a_file_that_goes_away_is_named(tmp_path):
    root = write_splits(tmp_path / "x")
    source = opened(root).source("train")
    (root / source.where(0)).unlink()
    with pytest.raises(UserError, match=f"{source.where(0)}: cannot be read"):
        source[0]
