"""A folder of pictures from the first command to the last: described, trained, interrupted, packed, predicted."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from folders import opened, orientation, save, write_classes, write_digits, write_splits
from runs import tiny, tiny_config, to_the_end
from test_trainer import CONFIG, assert_same_end, wait_for_step

from plq.cli import describe, predict, prepare
from plq.cli.common import run as run_program
from plq.config.load import FREE_PER_PROCESS, build_config, default, differences
from plq.data.digits import load_digits
from plq.data.folder_preparation import prepare_folder, set_name
from plq.data.images import resize
from plq.data.source import RecordSource
from plq.errors import UserError
from plq.runtime import freezing, stripped_model
from plq.trainer.evaluation import open_loader
from plq.trainer.trainer import Interrupted, Run

ROOT = Path(__file__).parents[1]
FIELDS = {"train__epochs": 2.0, "checkpoint__every_steps": 1, "factor__end": 0.5, "report__every_steps": 1,
          "data__name": "folder"}  # fmt: skip


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """128 training images, two steps an epoch, and 32 test images."""
    return write_digits(tmp_path_factory.mktemp("digits") / "x", 128, 32)


def setup_of(root: Path, **fields):
    return tiny(**{**FIELDS, "data__data_dir": str(root), "data__cache_dir": str(root.parent / "cache"), **fields})


@pytest.fixture(scope="module")
def setup(digits):
    return setup_of(digits)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, setup):
    return to_the_end(Run(setup, tmp_path_factory.mktemp("run")))


def test_a_folder_trains_as_the_images_in_it(digits, uninterrupted):
    images, labels = load_digits()
    setup, order = uninterrupted.setup, [int(Path(one.name).stem) for one in opened(digits).chosen("train")]
    np.testing.assert_array_equal(setup.train.split.images, [resize(image, (40, 40)) for image in images[order]])
    np.testing.assert_array_equal(setup.train.split.labels, labels[order])
    assert setup.image_shape == (40, 40, 1) and len(setup.test) == 32 and uninterrupted.step == 4
    assert stripped_model.load(uninterrupted.workdir / "model").class_names == (*"0123456789",)


def test_interrupted_it_ends_the_same(setup, uninterrupted, tmp_path):
    for stop in (1, 3):
        with pytest.raises(Interrupted, match=f"step {stop}"):
            to_the_end(Run(setup, tmp_path), stop)
    again = to_the_end(Run(setup, tmp_path))
    jax.tree.map(np.testing.assert_array_equal, again.state, uninterrupted.state)


def test_killed_by_crops_it_ends_the_same(tmp_path):
    """SIGKILL to the program; what goes on ends as what was never killed. Photographs are read one by one."""
    root = write_splits(tmp_path / "x", count=8)
    fields = {**FIELDS, "data__data_dir": str(root), "data__crop": "resized", "data__batch_size": 4, "mesh__data": 1,
              "checkpoint__every_steps": 2, "data__cache_dir": str(tmp_path / "cache")}  # fmt: skip
    (tmp_path / "config.py").write_text(CONFIG.format(fields=json.dumps(fields)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    command = [sys.executable, "-m", "plq.main", "--config", tmp_path / "config.py", "--workdir", tmp_path / "killed"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    wait_for_step(tmp_path / "killed" / "metrics.jsonl", 5, process)
    process.kill()
    process.communicate()
    setup = tiny(**fields)
    resumed = Run(setup, tmp_path / "killed")
    assert 0 < resumed.step < setup.total_steps
    to_the_end(resumed)
    assert_same_end(tmp_path / "killed", to_the_end(Run(setup, tmp_path / "whole")))


def test_a_changed_folder_does_not_go_on(tmp_path, monkeypatch):
    root = write_digits(tmp_path / "x", 64, 32)
    with pytest.raises(Interrupted):
        to_the_end(Run(setup_of(root), tmp_path / "run"), 1)
    other = root.rename(tmp_path / "moved")
    image = save(other / "train" / "0" / "new.png", mode="L", size=(8, 8))
    with pytest.raises(UserError, match=f"data.data_dir={other}: its images, .* at step 1; put them back") as caught:
        Run(setup_of(other), tmp_path / "run")
    assert "\n" not in str(caught.value)
    image.unlink()
    with monkeypatch.context() as patch:
        patch.setattr("plq.trainer.trainer.broadcast_from_primary", lambda what, text: "of process 0")
        with pytest.raises(UserError, match="its images, labels or names are not those of process 0"):
            Run(setup_of(other), tmp_path / "run")
    assert to_the_end(Run(setup_of(other), tmp_path / "run")).step == 2


def test_predict_prints_the_names_of_the_folders(tmp_path, capsys):
    root = write_splits(tmp_path / "x")
    run = to_the_end(Run(setup_of(root, data__batch_size=4, train__epochs=1.0), tmp_path / "run"))
    predict.main(["--model", str(run.workdir / "model"), str(root / "test/bee/0.png")])
    assert {"ant", "bee"} <= set(capsys.readouterr().out.split("run/model")[-1].replace(":", " ").split())


MIXED = [("RGB", "a.jpg"), ("L", "b.jpg"), ("CMYK", "c.jpg"), ("RGBA", "d.png"), ("RGB", "e.jpg"), ("RGB", "f.webp")]


@pytest.fixture
def mixed(tmp_path):
    """Formats, sizes, modes, turned photographs; train and validation."""
    root = write_splits(tmp_path / "mixed pictures!", "val", 4)
    for index, (mode, name) in enumerate(MIXED):
        save(root / "train/bee" / name, 200 + index, mode, (60 + index, 40), exif=orientation(1 + index))
    for mode, name in (("P", "g.gif"), ("1", "h.png")):
        save(root / "train/bee" / name, 250, mode, (30, 70))
    return root


@pytest.mark.filterwarnings("ignore:images of mode")
@pytest.mark.parametrize("crop", ["", "resized", "authors", "center"])
def test_a_packed_folder_gives_the_same_batches(tmp_path, mixed, crop):
    name = prepare_folder(opened(mixed), tmp_path / "sets")
    assert name == "mixed_pictures"
    for split in ("train", "test", "train[20%:]+test"):
        loose, packed = (
            _loader(*given, split, crop, tmp_path) for given in (("folder", mixed), (name, tmp_path / "sets"))
        )
        pairs = [*zip(loose.batches(0, 5), packed.batches(0, 5), strict=True)]
        pairs += [*zip(loose.eval_batches(), packed.eval_batches(), strict=True)]
        for left, right in pairs:
            for one, other in zip(left, right, strict=True):
                np.testing.assert_array_equal(one, other)


def _loader(name, root, split, crop, tmp_path):
    config = default()
    config.data.name, config.data.data_dir, config.data.cache_dir = name, str(root), str(tmp_path / "cache")
    config.data.image_size, config.data.crop, config.data.batch_size = (12, 10), crop, 4
    return open_loader(build_config(config).data, split, seed=3)


def test_a_grey_folder_is_packed_grey(tmp_path, digits):
    prepare_folder(opened(digits), tmp_path, "grey")
    loose, packed = (_loader(*given, "train", "", tmp_path) for given in (("folder", digits), ("grey", tmp_path)))
    assert packed.image_shape == (12, 10, 1)
    np.testing.assert_array_equal(loose.split.images, packed.split.images)


def test_jpegs_are_packed_byte_for_byte(tmp_path, mixed):
    name = prepare_folder(opened(mixed), tmp_path / "sets")
    source = RecordSource(name, "train", str(tmp_path / "sets"))
    found = {source[index][0] for index in range(len(source))}
    assert {path.read_bytes() for path in (mixed / "train/bee").glob("*.jpg")} <= found


def test_preparing_once_more(tmp_path, capsys, monkeypatch):
    root, out = write_splits(tmp_path / "Mine"), str(tmp_path / "sets")
    monkeypatch.setenv("PLQ_CACHE_DIR", str(tmp_path / "cache"))
    prepare.main(["folder", str(root), "--out", out])
    assert capsys.readouterr().out.endswith(f"train with --config.data.name=mine --config.data.data_dir={out}\n")
    prepare.main(["folder", str(root), "--out", out])
    assert "nothing to do, prepared before:\n" in capsys.readouterr().out
    save(root / "train/ant/new.png")
    with pytest.raises(UserError, match=f"mine/1.0.0: holds another set than {root} is now; choose another --name"):
        prepare.main(["folder", str(root), "--out", out])
    prepare.main(["folder", str(root), "--out", out, "--name", "more"])
    assert "train 7, test 6" in capsys.readouterr().out


MISTAKES = [
    (["folder"], "plq prepare folder: DIR and --out missing"),
    (["folder", "{root}"], "plq prepare folder: --out missing"),
    (["folder", "{root}", "--out", "o", "--manual_dir", "m"], "plq prepare folder: --manual_dir has no effect"),
    (["cifar10"], "plq prepare cifar10: --manual_dir missing"),
    (["cifar10", "--manual_dir", "m", "--holdout", "0.1"], "plq prepare cifar10: --holdout has no effect"),
    (["folder", "{root}", "--out", "{root}/sets"], "--out .*/sets: is inside the folder"),
    (["folder", "{root}", "--out", "o", "--name", "Mine"], "--name=Mine: allowed a-z, then a-z, 0-9 and _, but for"),
    (["folder", "{root}", "--out", "o", "--name", "digits"], "--name=digits: allowed"),
    (["folder", "{root}", "--out", "o", "--holdout", "1"], "data.holdout=1.0: allowed above 0, below 1"),
    (["folder", "{root}", "--out", "o", "--corrupt_share", "-1"], "data.corrupt_share=-1.0: allowed 0 to 1"),
    (["folder", "{root}/gone", "--out", "o"], "data.data_dir=.*/gone: not there, allowed a folder"),
    (["folder", "{root}", "--out", "o", "--labels", "l.csv"], "data.labels=l.csv: cannot be read"),
    (["folder", "{root}", "--out", "/dev/null/o"], "/dev/null/o.* cannot be written"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_a_mistake_of_preparing_is_one_line(tmp_path, arguments, message, monkeypatch):
    root = write_splits(tmp_path / "x")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        prepare.main([word.format(root=root) for word in arguments])
    assert "\n" not in str(caught.value) and not (tmp_path / "o").exists()


def test_a_name_is_made_of_the_folders(tmp_path):
    assert set_name(tmp_path / "My Photos (2)", "") == "my_photos_2"
    for folder in ("2024", "фото", "folder"):
        with pytest.raises(UserError, match="its name gives none for a set; give --name"):
            set_name(tmp_path / folder, "")


def test_a_class_that_a_packed_set_would_rename_is_refused(tmp_path):
    root = write_classes(tmp_path / "x" / "train", ("ant ", "bee")).parent
    write_classes(root / "test", ("ant ", "bee"))
    with pytest.raises(UserError, match="class 'ant ': begins or ends with a space"):
        prepare_folder(opened(root), tmp_path / "sets")


@pytest.fixture
def described(tmp_path, capsys, monkeypatch):
    """What `plq describe` prints, with these options."""
    monkeypatch.setenv("PLQ_CACHE_DIR", str(tmp_path / "cache"))
    root = write_splits(tmp_path / "x")
    save(root / "train/ant/large.jpg", 50, "L", (40, 30))
    (root / "train/bee/broken.png").write_bytes(b"x")
    (root / "train/bee/notes.txt").write_bytes(b"x")
    (root / "test/bee/copy.png").write_bytes((root / "train/ant/1.png").read_bytes())

    def call(*options):
        given = ["--config", "digits_w1a2", "--config.data.name=folder", f"--config.data.data_dir={root}"]
        describe.main([*given, *options])
        return capsys.readouterr().out

    return call


def test_describe_says_what_a_folder_holds(described):
    lines = described().splitlines()
    assert [line.split() for line in lines[2:4]] == [["ant", "4", "3"], ["bee", "3", "4"]]
    assert lines[5].split() == ["total", "7", "7"]
    assert lines[6:13] == [
        "height: 7 to 30 pixels, median 7",
        "width: 9 to 40 pixels, median 9",
        "formats: PNG 13, JPEG 1",
        "modes: RGB 13, L 1",
        "ignored: .txt 1",
        "unreadable: 1, as train/bee/broken.png: not a readable image (cannot identify image file)",
        "in two splits: 1, as train/ant/1.png = test/bee/copy.png",
    ]
    assert lines[13].startswith("layer") and lines[-1].startswith("per image:")


def test_describe_says_it_as_json(described):
    found = json.loads(described("--json"))
    assert found["image_shape"] == [40, 40, 3] and found["num_classes"] == 2
    assert found["images"]["classes"] == {"ant": {"train": 4, "test": 3}, "bee": {"train": 3, "test": 4}}
    assert found["images"]["width"] == {"min": 9, "median": 9, "max": 40}
    assert found["images"]["in_two_splits"] == [["train/ant/1.png", "test/bee/copy.png"]]


def test_describe_needs_a_folder_or_the_numbers(capsys):
    given = ["--config", "digits_w1a2", "--config.data.name=folder"]
    with pytest.raises(UserError, match="data.data_dir is empty.*or give --image_shape=H,W,C and --num_classes=N"):
        describe.main(given)
    describe.main([*given, "--image_shape=40,40,3", "--num_classes=4"])
    assert capsys.readouterr().out.startswith("layer")


def test_a_run_with_broken_files_names_the_field(tmp_path):
    root = write_splits(tmp_path / "x")
    (root / "train/bee/broken.png").write_bytes(b"x")
    with pytest.raises(UserError, match="1 of 13 pictures .*train/bee/broken.png.*data.corrupt_share"):
        setup_of(root, data__batch_size=4)
    with pytest.warns(UserWarning, match="1 of 13 pictures in .* are left out"):
        assert len(setup_of(root, data__batch_size=4, data__corrupt_share=0.1).train) == 6


def test_a_frozen_file_keeps_the_name_of_the_labels_and_no_path():
    """They may lie with the images, wherever these are then."""
    data = tiny_config(data__name="folder", data__data_dir="/home/a", data__labels="/home/a/b.csv").data.to_dict()
    kept = freezing._without_folders({"config": {"data": data}})["config"]["data"]
    assert (kept["data_dir"], kept["labels"], kept["name"]) == ("", "b.csv", "folder")


def test_the_list_of_labels_may_lie_elsewhere_when_a_run_goes_on():
    before, now, other = (
        tiny_config(data__name="folder", **fields).to_dict()
        for fields in ({"data__labels": "a.csv"}, {"data__labels": "b.csv"}, {"data__holdout": 0.2})
    )
    assert differences(before, now) == [] and differences(before, now, FREE_PER_PROCESS) == []
    assert differences(now, other) == ["data.holdout: saved 0.1, now 0.2"]


def test_a_warning_is_shown_once(capsys):
    def main() -> None:
        for text in ("one\nline", "another", "one\nline"):
            with warnings.catch_warnings():  # after which Python has forgotten what it has shown
                warnings.warn(text, stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        run_program(main)
    assert capsys.readouterr().err == "plq: warning: one\\nline\nplq: warning: another\n"
