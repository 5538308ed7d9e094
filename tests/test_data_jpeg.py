"""Photographs: decoding, crops, the training stream, preparing a set."""

import io
import os
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tfds_sets
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from plq.cli import prepare
from plq.data import crops, jpeg, preparation
from plq.data.loader import RecordLoader
from plq.data.records import Plan, Tally, center_crops, train_batches
from plq.data.source import RecordSource
from plq.errors import UserError

SIZE = (32, 32)
real = pytest.mark.skipif(
    not (Path(os.environ.get("TFDS_DATA_DIR", "/nowhere")) / "imagenet2012").is_dir(), reason="no imagenet2012"
)
decoders = pytest.mark.parametrize("fast", [True, False], ids=["fast", "pillow"])


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colours, a different image for each seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def encoded(image: np.ndarray, kind: str = "JPEG", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).convert(mode).save(buffer, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return buffer.getvalue()


def without_extras(monkeypatch):
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    monkeypatch.setattr(jpeg, "cv2", None)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("min_side", [0, 40, 75, 101])
def test_both_ways_decode_the_same(monkeypatch, mode, min_side):
    data = encoded(photo(301, 403), mode=mode)
    image = jpeg.decode_rgb(data, "x", min_side)
    without_extras(monkeypatch)
    np.testing.assert_array_equal(jpeg.decode_rgb(data, "x", min_side), image)
    assert jpeg.image_size(data, "x") == (301, 403)


@pytest.mark.parametrize(
    ("min_side", "shape"), [(0, (301, 403, 3)), (151, (301, 403, 3)), (150, (151, 202, 3)), (75, (76, 101, 3))]
)
def test_a_large_jpeg_is_shrunk_but_not_below_what_is_needed(min_side, shape):
    assert jpeg.decode_rgb(encoded(photo(301, 403)), "x", min_side).shape == shape


@decoders
@pytest.mark.parametrize(("mode", "kind"), [("RGB", "PNG"), ("L", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("L", "JPEG")])
def test_other_files_become_rgb(monkeypatch, fast, mode, kind):
    if not fast:
        without_extras(monkeypatch)
    image = photo(40, 60)
    expected = np.asarray(Image.fromarray(image).convert(mode).convert("RGB"))
    found = jpeg.decode_rgb(encoded(image, kind, mode), "x", 10)
    if kind == "PNG":
        np.testing.assert_array_equal(found, expected)
    assert found.shape[2] == 3 and found.dtype == np.uint8


def test_cmyk_colours_are_those_of_the_image():
    image = photo(64, 64)
    difference = jpeg.decode_rgb(encoded(image, mode="CMYK"), "x").astype(int) - image
    assert np.abs(difference).mean() < 4


@decoders
@settings(max_examples=60, deadline=None)
@given(data=st.one_of(st.binary(max_size=40), st.tuples(st.integers(0, 600), st.binary(max_size=30))))
def test_unreadable_bytes_are_one_line(fast, data):
    whole = encoded(photo(30, 40))
    data = data if isinstance(data, bytes) else whole[: data[0]] + data[1]
    with pytest.MonkeyPatch.context() as patch:
        if not fast:
            without_extras(patch)
        for read in (jpeg.decode_rgb, jpeg.image_size):
            message = complaint(lambda read=read: read(data, "set record 7"))
            assert message is None or message.startswith("set record 7: not a readable image (")
            assert "\n" not in (message or "")


def complaint(function) -> str | None:
    try:
        function()
    except UserError as error:
        return str(error)


@pytest.mark.parametrize("size", [(20, 30), (45, 90), (80, 70), (200, 300)])
def test_both_ways_resize_alike(monkeypatch, size):
    image = photo(90, 120)
    fast = jpeg.resize_rgb(image, size).astype(int)
    without_extras(monkeypatch)
    slow = jpeg.resize_rgb(image, size)
    assert fast.shape == slow.shape == (*size, 3) and slow.dtype == np.uint8
    assert np.abs(fast - slow).mean() < 1 and np.abs(fast - slow).max() < 12


@given(
    height=st.integers(1, 3000), width=st.integers(1, 3000),
    size=st.tuples(st.integers(1, 400), st.integers(1, 400)), seed=st.integers(0, 2**32),
    name=st.sampled_from(sorted(crops.CROPS)),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_boxes_are_inside_the_image(height, width, size, seed, name):
    box = crops.CROPS[name](np.random.default_rng(seed), height, width, size)
    assert box.height >= 1 and box.width >= 1 and box.top >= 0 and box.left >= 0
    assert box.top + box.height <= height and box.left + box.width <= width


def boxes(name: str, height: int, width: int, count: int = 400) -> np.ndarray:
    rng = np.random.default_rng(3)
    return np.array([crops.CROPS[name](rng, height, width, (224, 224)) for _ in range(count)])


def test_random_resized_boxes_have_the_area_and_aspect_asked_for():
    _, _, height, width = boxes("resized", 375, 500).T
    area, aspect = height * width / (375 * 500), width / height
    assert 0.07 < area.min() < 0.12 and 0.9 < area.max() <= 1 and aspect.min() > 0.74 and aspect.max() < 1.35
    assert abs(np.log(aspect[area < 0.4]).mean()) < 0.05
    narrow = crops.random_resized_box(np.random.default_rng(0), 10, 1000, (8, 8), area=(0.9, 1.0))
    assert narrow == (0, 494, 10, 13)  # nothing fits: the middle, as near as the aspect allows


def test_the_authors_boxes_scale_by_at_most_what_they_say():
    top, left, height, width = boxes("authors", 375, 500).T
    assert height.max() <= 375 and height.min() >= 375 * 224 / (308 * 1.15) - 1
    assert (width / height).min() > 0.85 / 1.15 - 0.01 and (width / height).max() < 1.15 / 0.85 + 0.01
    assert top.max() > 60 and left.max() > 150 and (top + height).max() <= 375
    small = crops.authors_box(np.random.default_rng(0), 100, 150, (224, 224))
    assert small.height == 100  # enlarged to the size, and no further


def test_the_middle_is_what_resizing_and_cropping_gives():
    image = photo(375, 500)
    resized = jpeg.resize_rgb(image, (256, 341))[16:240, 58:282].astype(int)
    assert crops.center_box(375, 500, (224, 224)) == (24, 86, 328, 328)
    assert np.abs(crops.center_crop(image, (224, 224)) - resized).mean() < 1
    assert crops.center_box(224, 224, (224, 224)) == (0, 0, 224, 224)


@pytest.mark.parametrize("crop", [crops.random_resized_crop, crops.authors_crop])
@pytest.mark.parametrize("shape", [(375, 500), (20, 31), (1, 1), (900, 64)])
def test_crops_have_the_size_asked_for(crop, shape):
    image = crop(np.random.default_rng(0), photo(*shape), SIZE)
    assert image.shape == (*SIZE, 3) and image.dtype == np.uint8


def test_flip_mirrors_about_half():
    image, rng = photo(8, 9), np.random.default_rng(0)
    flipped = [crops.flip(rng, image) for _ in range(100)]
    mirrored = sum(np.array_equal(one, image[:, ::-1]) for one in flipped)
    assert 35 < mirrored < 65 and mirrored + sum(np.array_equal(one, image) for one in flipped) == 100


@pytest.mark.parametrize("box", [crops.Box(0, 0, 600, 800), crops.Box(101, 303, 287, 401), crops.Box(7, 9, 50, 60)])
def test_decoding_at_a_fraction_shows_the_same_place(box):
    data = encoded(photo(600, 800))
    whole = crops.cut(jpeg.decode_rgb(data, "x"), box, SIZE).astype(int)
    assert np.abs(crops.decode_crop(data, "x", SIZE, lambda *_: box) - whole).mean() < 2.5  # half a pixel at most


GOOD = [encoded(photo(48 + 2 * index, 64, seed=index)) for index in range(24)]


def write_photos(folder, files: list[bytes]):
    """A set of one split of these files, whatever they hold; the label of file i is i."""

    class Photos(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            label = tfds.features.ClassLabel(num_classes=len(files))
            features = {"image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"), "label": label}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for index, data in enumerate(files):
                yield index, {"image": io.BytesIO(data), "label": index}

    Photos.name = "photos"
    Photos(data_dir=str(folder), file_format="array_record").download_and_prepare()
    return RecordSource("photos", "train", str(folder))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"), GOOD)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """Records 0 to 23, of which those with label 3 and 17 cannot be read."""
    files = [data[:300] if index in (3, 17) else data for index, data in enumerate(GOOD)]
    return write_photos(tmp_path_factory.mktemp("damaged"), files)


def batches(source, start=0, stop=6, batch=8, **given):
    defaults = {"crop": crops.random_resized_box, "threads": 3, "seed": 5}
    return list(train_batches(source, batch, SIZE, start_step=start, stop_step=stop, **{**defaults, **given}))


def same(some, others) -> bool:
    pairs = zip(some, others, strict=True)
    return all(np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) for a, b in pairs)


def test_an_epoch_holds_every_record_in_the_order_of_the_seed(source):
    found = batches(source)
    assert all(images.shape == (8, *SIZE, 3) and images.dtype == np.uint8 for images, _ in found)
    assert all(labels.shape == (8,) and labels.dtype == np.int32 for _, labels in found)
    for epoch in (found[:3], found[3:]):
        assert sorted(np.concatenate([labels for _, labels in epoch])) == list(range(24))
    assert not np.array_equal(found[0][1], found[3][1])  # each epoch in an order of its own
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in found]), labels_in_order(source, 48))


def labels_in_order(source, places: int) -> list[int]:
    plan = Plan(source, 8, SIZE, 5, crops.random_resized_box, True, (0, 1))
    return [source[plan.records[place]][1] for place in range(places)]


def test_going_on_at_a_step_gives_the_same_bits(source):
    whole = batches(source)
    assert same(whole[4:], batches(source, 4, threads=1))
    assert not same(whole, batches(source, seed=6))
    assert not np.array_equal(whole[0][0], batches(source, crop=crops.authors_box)[0][0])
    assert batches(source, 6, 6) == []


@pytest.mark.parametrize("count", [1, 2, 4])
def test_shards_together_are_the_batch(source, count):
    shards = [batches(source, shard=(index, count)) for index in range(count)]
    joined = [tuple(np.concatenate(parts) for parts in zip(*step, strict=True)) for step in zip(*shards, strict=True)]
    assert same(joined, batches(source))


def test_an_unreadable_record_gives_way_to_the_next(source, damaged):
    with pytest.warns(UserWarning, match=r"photos train record \d+: not a readable image .*another takes its place"):
        found = batches(damaged, corrupt_share=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = batches(damaged, 2, corrupt_share=0.5)
    assert same(found[2:], again)
    stream = labels_in_order(damaged, 56)
    expected = [next(label for label in stream[at:] if label not in (3, 17)) for at in range(48)]
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in found]), expected)
    good = np.concatenate([labels for _, labels in batches(source)]) == expected
    images, others = (np.concatenate([images for images, _ in some]) for some in (found, batches(source)))
    np.testing.assert_array_equal(images[good], others[good])  # the others are as they would have been


@pytest.mark.filterwarnings("ignore:.*another takes its place")
def test_too_many_unreadable_records_end_the_run(damaged):
    with pytest.raises(UserError, match=r"of \d+ records are unreadable.*share of 0 \(data.corrupt_share\)"):
        batches(damaged, corrupt_share=0)
    assert len(batches(damaged, corrupt_share=0.004)) == 6  # 4 of 48, within 4 of the first 1,000
    metrics = Tally(0.01)
    metrics.count(5000, ["a"] * 50)
    with pytest.raises(UserError, match="51 of 5051"):
        metrics.count(0, ["photos: b"])


@pytest.mark.filterwarnings("ignore:.*another takes its place")
def test_a_set_of_nothing_readable_ends(tmp_path):
    source = write_photos(tmp_path, [b"nothing"] * 4)
    with pytest.raises(UserError, match="readable image"):
        batches(source, batch=2, corrupt_share=1)
    with pytest.raises(UserError, match="photos train record 0: not a readable image"):
        list(center_crops(source, 4, SIZE))


def assert_no_readers():
    """None is left once those that are at work on an image are done with it."""
    for thread in threading.enumerate():
        if thread.name.startswith("grain-prefetch"):
            thread.join(20)
            assert not thread.is_alive()


def test_closing_ends_the_threads(source):
    stream = train_batches(source, 8, SIZE, 0, 0, 10**9, crops.authors_box)
    next(stream)
    assert [thread for thread in threading.enumerate() if thread.name.startswith("grain-prefetch")]
    stream.close()
    assert_no_readers()


def test_errors_of_the_threads_arrive(source):
    def broken(rng, height, width, size):
        raise ZeroDivisionError("in a thread")

    with pytest.raises(ZeroDivisionError, match="in a thread"):
        batches(source, crop=broken)
    assert_no_readers()


@pytest.mark.parametrize(("given", "message"), [
    ({"batch": 25}, "data.batch_size=25: larger than the training set of 24"),
    ({"shard": (0, 3)}, "data.batch_size=8: shard 0 of 3"), ({"shard": (2, 2)}, "shard 2 of 2"),
    ({"threads": 0}, "data.threads=0"), ({"corrupt_share": 1.5}, "data.corrupt_share=1.5: allowed 0 to 1"),
])  # fmt: skip
def test_what_is_refused_before_anything_is_read(source, given, message):
    with pytest.raises(UserError, match=message):
        batches(source, **given)


def test_a_damaged_file_and_a_grey_set_are_user_errors(tmp_path):
    source = write_photos(tmp_path / "a", GOOD)
    file = next((tmp_path / "a").rglob("*.array_record*"))
    data = bytearray(file.read_bytes())
    data[len(data) // 4 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 4)
    file.write_bytes(bytes(data))
    with pytest.raises(UserError, match="photos train record .* cannot be read"):
        batches(RecordSource("photos", "train", str(tmp_path / "a")))
    assert len(source) == 24
    grey = tfds_sets.write_set(tmp_path / "b", {"train": tfds_sets.noise(4, (9, 9, 1))})
    with pytest.raises(UserError, match="data.name=tiny_set: grey images"):
        RecordSource("tiny_set", "train", str(grey))


def test_evaluation_takes_the_middle_of_each_record_in_order(source):
    found = list(center_crops(source, 10, SIZE, threads=2))
    assert [len(labels) for _, labels in found] == [10, 10, 4]
    images, labels = (np.concatenate(parts) for parts in zip(*found, strict=True))
    np.testing.assert_array_equal(labels, [source[index][1] for index in range(24)])
    whole = crops.center_crop(jpeg.decode_rgb(source[2][0], "x"), SIZE).astype(int)
    assert images.shape == (24, *SIZE, 3) and np.abs(images[2] - whole).mean() < 2
    feed = RecordLoader(source, 10, 0, SIZE, "resized", True, threads=2, corrupt_share=0)
    *_, (filled, others, mask) = feed.eval_batches()
    assert len(filled) == len(others) == len(mask) == 10 and mask.sum() == 4
    np.testing.assert_array_equal(filled[:4], images[20:])


@real
def test_real_photographs_train_and_evaluate(monkeypatch):
    train, validation = (RecordSource("imagenet2012", split) for split in ("train", "validation"))
    assert len(train.class_names) == 1000 and len(train) >= 64
    first = batches(train, 0, 1, 32, corrupt_share=0)
    images, labels = next(center_crops(validation, 16, (224, 224)))
    assert images.shape == (16, 224, 224, 3) and 60 < images.mean() < 180 and labels.max() < 1000
    without_extras(monkeypatch)
    slow = batches(train, 0, 1, 32, corrupt_share=0)
    np.testing.assert_array_equal(first[0][1], slow[0][1])
    assert np.abs(first[0][0].astype(int) - slow[0][0]).mean() < 4


@pytest.fixture
def archive(tmp_path):
    """A registered set that reads one archive, and that archive's folder."""
    import hashlib

    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "photos.bin").write_bytes(b"archive")
    info = SimpleNamespace(size=7, checksum=hashlib.sha256(b"archive").hexdigest(), filename=None)

    class PlqPreparedPhotos(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        MANUAL_DOWNLOAD_INSTRUCTIONS = "photos.bin"
        url_infos = {"https://example.org/a/photos.bin": info}  # noqa: RUF012

        def _info(self):
            features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=2)}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(Path(dl_manager.manual_dir) / "photos.bin")}

        def _generate_examples(self, path):
            if path.read_bytes() == b"archive":
                yield 0, {"image": io.BytesIO(GOOD[0]), "label": 1}

    yield info, tmp_path
    del tfds.core.registered._DATASET_REGISTRY["plq_prepared_photos"]


def prepared(folder, name="plq_prepared_photos"):
    prepare.main([name, "--manual_dir", str(folder / "archives"), "--data_dir", str(folder / "sets")])


def test_prepare_writes_the_set_once(archive, capsys):
    _, folder = archive
    left = folder / "sets" / "plq_prepared_photos" / "incomplete.ABC123_1.0.0"
    left.mkdir(parents=True)
    prepared(folder)
    assert not left.exists() and "train 1" in capsys.readouterr().out
    assert RecordSource("plq_prepared_photos", "train", str(folder / "sets"))[0][1] == 1
    prepared(folder)
    assert "nothing to do" in capsys.readouterr().out


def test_prepare_says_what_is_missing_or_wrong(archive, monkeypatch):
    _, folder = archive
    with pytest.raises(UserError, match="plq_prepared_photo: not a set .*did you mean plq_prepared_photos"):
        prepared(folder, "plq_prepared_photo")
    monkeypatch.setattr(preparation.shutil, "disk_usage", lambda _: SimpleNamespace(free=3))
    with pytest.raises(UserError, match="GiB free, preparing takes about"):
        prepared(folder)
    monkeypatch.undo()
    file = folder / "archives" / "photos.bin"
    for content, message in ((b"archivf", "SHA-256 .*, the original has"), (b"arch", "4 bytes, the original has 7")):
        file.write_bytes(content)
        with pytest.raises(UserError, match=message):
            prepared(folder)
    file.unlink()
    with pytest.raises(UserError, match=r"plq_prepared_photos/1.0.0 needs photos.bin, not there"):
        prepared(folder)
    assert not list((folder / "sets").rglob("*.array_record*"))


def test_prepare_names_the_extra_where_tensorflow_is_missing(archive, monkeypatch):
    _, folder = archive
    monkeypatch.setattr(preparation.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(globals(), "tf", None)
    with pytest.raises(UserError, match=r"takes TensorFlow, which is not installed; pip install 'plq\[prepare\]'"):
        prepared(folder)


def test_a_second_try_does_not_check_again_what_has_not_changed(archive, monkeypatch, capsys):
    _, folder = archive
    interrupted = lambda *given: (_ for _ in ()).throw(KeyboardInterrupt)
    monkeypatch.setattr(preparation, "_prepare", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepared(folder)
    checked, check = [], preparation.check_archive
    monkeypatch.setattr(preparation, "check_archive", lambda path, info: checked.append(path) or check(path, info))
    with pytest.raises(KeyboardInterrupt):
        prepared(folder)
    assert not checked and "photos.bin: checked before" in capsys.readouterr().out
    os.utime(folder / "archives" / "photos.bin", (1, 1))
    (folder / "archives" / "photos.bin").write_bytes(b"archivf")
    with pytest.raises(UserError, match="SHA-256"):
        prepared(folder)
    assert len(checked) == 1
    (folder / "archives" / "photos.bin").write_bytes(b"archive")
    (folder / "sets" / "plq_prepared_photos" / preparation.CHECKED).write_text("[1")
    monkeypatch.undo()
    prepared(folder)


def test_what_an_unfinished_run_left_does_not_count_as_taken_space(archive, monkeypatch):
    _, folder = archive
    left = folder / "sets" / "plq_prepared_photos" / "incomplete.ABC123_1.0.0"
    left.mkdir(parents=True)
    free = lambda _: SimpleNamespace(free=0 if left.exists() else 2**30)
    monkeypatch.setattr(preparation.shutil, "disk_usage", free)
    prepared(folder)


def test_two_do_not_prepare_one_set(archive):
    _, folder = archive
    alone = preparation.alone(folder / "sets" / "plq_prepared_photos")
    with alone, pytest.raises(UserError, match="another process is preparing it"):
        prepared(folder)
    prepared(folder)
