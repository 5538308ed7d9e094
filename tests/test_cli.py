"""The programs as a person uses them: their output, exit status, and one clear line for each mistake."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plq.checkpoint.model_file import VARIABLES
from plq.checkpoint.store import open_store
from plq.cli import evaluate, predict, prune
from plq.cli import train as main
from plq.data.digits import load_digits
from plq.errors import UserError

CONFIG = """
from runs import tiny_config

def get_config(argument=""):
    config = tiny_config()
    config.checkpoint.every_steps = 11
    {line}
    return config
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("doors")


@pytest.fixture(scope="module")
def config(folder):
    return write_config(folder / "config.py")


def write_config(path, line=""):
    path.write_text(CONFIG.format(line=line))
    return str(path)


@pytest.fixture(scope="module")
def workdir(folder, config):
    """A finished run that kept every checkpoint: steps 11 (f above 0), 22, 33 and 44."""
    main.main(["--config", config, "--workdir", str(folder / "run"), "--config.checkpoint.keep_latest=9"])
    return folder / "run"


@pytest.fixture(scope="module")
def digit(folder):
    image = load_digits()[0][-1]
    Image.fromarray(image[:, :, 0]).save(folder / "digit.png")
    return folder / "digit.png"


def test_a_run_trains_evaluates_and_strips(workdir, capsys):
    assert {path.name for path in workdir.iterdir()} >= {"config.json", "metrics.jsonl", "checkpoints", "model"}
    evaluate.main(["--workdir", str(workdir)])
    evaluate.main(["--model", str(workdir / "model")])
    trained, served = capsys.readouterr().out.splitlines()
    assert "step 44 (without a branch): accuracy" in trained
    assert trained.split(": ")[1] == served.split(": ")[1]
    evaluate.main(["--workdir", str(workdir), "--step", "11"])
    assert "step 11 (with its branch, f 0.5)" in capsys.readouterr().out


def test_prune_lists_what_it_drops(workdir, folder, capsys):
    prune.main(["--workdir", str(workdir), "--step", "11", "--out", str(folder / "early"), "--force"])
    lines = capsys.readouterr().out.splitlines()
    assert "  dropped ancillary/conv1/ancillary_conv/kernel" in lines
    assert lines[-1].startswith("step 11: dropped 30 leaves, ") and "parameters" in lines[-1] and "bytes" in lines[-1]
    prune.main(["--workdir", str(workdir), "--out", str(folder / "late")])
    assert "already removed the branch" in capsys.readouterr().out
    late, model = (folder / "late" / "variables.safetensors", workdir / "model" / "variables.safetensors")
    assert late.read_bytes() == model.read_bytes()


def test_prune_from_a_run_that_kept_its_branch(folder, config, capsys):
    """Stripping a checkpoint that still holds the branch at f = 0 gives the model that leaving it gives."""
    arguments = ["--config", config, "--workdir", str(folder / "keep"), "--config.expansion.leave=False"]
    main.main(arguments)
    prune.main(["--workdir", str(folder / "keep"), "--out", str(folder / "kept")])
    assert "dropped ancillary/" in capsys.readouterr().out
    names = [folder / "kept" / "variables.safetensors", folder / "keep" / "model" / "variables.safetensors"]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_predict_names_classes(workdir, digit, capsys):
    predict.main(["--model", str(workdir / "model"), "--top", "2", str(digit), str(digit)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0] == lines[1]
    names = [part.split() for part in lines[0].split(": ")[1].split(", ")]
    assert len(names) == 2 and 0 <= float(names[1][1]) <= float(names[0][1]) <= 1


def test_the_table_and_the_notes(folder, config, capsys):
    main.main(["--config", config, "--workdir", str(folder / "seen"), "--config.train.epochs=1.2"])
    seen = capsys.readouterr()
    assert "conv3" in seen.out and "deployed with packed weights" in seen.out
    assert "the branch is removed: 30 leaves" in seen.err and "bit-equal on 64 images" in seen.err
    assert "as trained" in seen.err


def broken_image(folder):
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    return folder / "broken.png"


def cut_image(folder):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(folder / "whole.png")
    data = (folder / "whole.png").read_bytes()
    (folder / "cut.png").write_bytes(data[: len(data) // 2])
    return folder / "cut.png"


def colour_image(folder):
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folder / "colour.png")
    return folder / "colour.png"


def deep_image(folder):
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(folder / "deep.png")
    return folder / "deep.png"


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (broken_image, "broken.png: not a readable image"),
        (cut_image, "cut.png: not a readable image"),
        (colour_image, r"colour.png: image mode RGB, the model takes greyscale \(L\); --convert"),
        (deep_image, "deep.png: image mode I;16, allowed 8 bits per channel"),
        (lambda folder: folder / "gone.png", "gone.png: cannot be read"),
        (lambda folder: folder, "cannot be read"),
    ],
)
def test_a_bad_image_is_named_and_the_others_are_done(image, message, workdir, digit, folder, capsys):
    with pytest.raises(SystemExit) as caught:
        predict.main(["--model", str(workdir / "model"), str(image(folder)), str(digit)])
    seen = capsys.readouterr()
    assert caught.value.code == 2 and seen.out.startswith(str(digit))
    import re

    assert re.search(message, seen.err) and seen.err.count("\n") == 1


def test_convert_takes_colour(workdir, folder, capsys):
    predict.main(["--model", str(workdir / "model"), "--convert", str(colour_image(folder))])
    assert "colour.png: " in capsys.readouterr().out


MISTAKES = [  # arguments after --config FILE --workdir NEW, what the line says
    (["--config.data.nam=digits"], r"--config.data.nam: unknown field; did you mean name\?"),
    (["--config.dta.name=digits"], "unknown section dta; did you mean data"),
    (["--config.data.batch_size=many"], "config.data.batch_size=many"),
    (["--config.data.batch_size=0"], "data.batch_size=0: allowed 1 or more"),
    (["--config.data.batch_size=2000"], "data.batch_size=2000: larger than the training set of 1437"),
    (["--config.data.batch_size=63"], "data.batch_size=63: does not divide over 2 devices"),
    (["--config.data.name=digit"], "data.name=digit: not found in"),
    (["--config.data.name=cifar10", "--config.data.data_dir=/nowhere"], "data.name=cifar10: not found in /nowhere"),
    (["--config.data.train_split=trian"], "split 'trian' of digits: unknown; did you mean train"),
    (["--config.data.image_size=16"], "data.image_size: found images of 16x16, svhn takes 40x40 or more"),
    (["--config.data.image_size=0"], "data.image_size: found images of 8x8"),
    (["--config.data.mean=1.0,2.0"], r"data.mean=\(1.0, 2.0\): 2 numbers for images of 1 channels"),
    (["--config.data.contrast=(1.5,0.5)"], "data.contrast"),
    (["--config.model.name=svnh"], "model.name=svnh: unknown; did you mean svhn"),
    (["--config.model.width=0.0"], "model.width=0.0"),
    (["--config.quant.weights=dorfea"], "quant.weights=dorfea: unknown; did you mean dorefa"),
    (["--config.quant.weight_bits=9"], "quant.weight_bits=9: weights dorefa allow 1, 2, 3"),
    (["--config.quant.weights=xnor", "--config.quant.weight_bits=2"], "quant.weight_bits=2: weights xnor allow 1, 32"),
    (["--config.quant.activation_bits=0"], "quant.activation_bits=0"),
    (["--config.quant.activations=relu"], "quant.activation_bits=2: activations relu allow 32"),
    (["--config.expansion.merge=sum"], "expansion.merge=sum: unknown"),
    (["--config.factor.name=cosin"], "factor.name=cosin: unknown; did you mean cosine"),
    (["--config.factor.end=1.5"], "factor.end=1.5"),
    (["--config.factor.value=0.5"], "factor.value=0.5: has no effect"),
    (["--config.optimizer.learning_rate=nan"], "optimizer.learning_rate=nan: allowed a finite number"),
    (["--config.optimizer.schedule=linear"], "optimizer.schedule=linear: unknown"),
    (["--config.train.epochs=-1.0"], "train.epochs=-1.0: allowed above 0"),
    (["--config.mesh.data=5"], "needs 5 devices, found 2"),
    (["--config.quant.dtype=float16"], "quant.dtype=float16"),
    (["--config.mesh.fsdp=2", "--config.mesh.data=2"], "mesh.data=2 mesh.fsdp=2: needs 4 devices, found 2"),
    (["--config.train.accumulate=3"], "data.batch_size=64: does not divide over 2 devices .*train.accumulate=3 parts"),
    (["--workdir=ftp://host/run"], "--workdir ftp://host/run: allowed gs://BUCKET/NAME, s3://BUCKET/NAME, or a path"),
    (["--workdir=gs://bucket"], "--workdir gs://bucket: allowed gs://BUCKET/NAME"),
    (["--num_processes=2"], "--num_processes: given without --coordinator, --process_id"),
    (["--patience=0"], "--patience 0: allowed 1 or more seconds"),
    (["--wrkdir=x"], "wrkdir"),
    (["extra"], "extra: not understood"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(given) for given, _ in MISTAKES])
def test_a_mistake_is_one_line_and_leaves_nothing(arguments, message, config, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        main.main(["--config", config, "--workdir", str(tmp_path / "new"), *arguments])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert not (tmp_path / "new" / "config.json").exists()


def other_folder(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_text("cat")
    return tmp_path / "photos"


def a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    return tmp_path / "file"


@pytest.mark.parametrize(
    ("make", "message"), [(other_folder, "holds other things and no run"), (a_file, "a file is in the way")]
)
def test_a_wrong_workdir_is_left_alone(make, message, config, tmp_path):
    path = make(tmp_path)
    before = sorted(path.rglob("*")), path.is_file()
    with pytest.raises(UserError, match=message):
        main.main(["--config", config, "--workdir", str(path)])
    assert (sorted(path.rglob("*")), path.is_file()) == before


CONFIG_FILES = [
    ("def get_config(:", "invalid syntax"),
    ("x = 1", "get_config"),
    ("def get_config():\n    return 1 / 0", "division by zero"),
    (
        "from plq.config.load import default\ndef get_config():\n    c = default()\n    c.data.nme = 'x'\n    return c",
        "nme",
    ),
    (
        "from plq.config.load import default\ndef get_config():\n    c = default()\n    c.data.flip = 'x'\n"
        "    return c",
        "flip",
    ),
    ("def get_config():\n    return 3", "gives no ConfigDict"),
]


@pytest.mark.parametrize(("text", "message"), CONFIG_FILES, ids=range(len(CONFIG_FILES)))
def test_a_wrong_config_file_is_one_line(text, message, tmp_path):
    """In a process of its own: Python keeps a module that was imported once."""
    (tmp_path / "broken.py").write_text(text)
    done = program("main", "--config", str(tmp_path / "broken.py"), "--workdir", str(tmp_path / "new"))
    assert_one_line(done, message)


def program(name, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-m", *(["plq.main"] if name == "main" else ["plq", name]), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def assert_one_line(done, message):
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("plq: ") and done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr


def test_programs_end_with_status_2_and_one_line(workdir, tmp_path):
    assert_one_line(program("main", "--config", str(tmp_path / "gone.py")), "gone.py")
    assert_one_line(program("evaluate", "--workdir", str(tmp_path)), "config.json")
    assert_one_line(program("predict", "--model", str(workdir), "x.png"), "its stripped model is")
    assert_one_line(program("prune", "--workdir", str(tmp_path), "--out", "x"), "holds no folder checkpoints")


@pytest.mark.parametrize("name", ["main", "evaluate", "prune", "predict", "describe"])
def test_help_is_status_0(name):
    done = program(name, "--help")
    usage = f"usage: plq {'train' if name == 'main' else name}"
    assert done.returncode == 0 and usage in done.stdout and not done.stderr


def test_other_mistakes(workdir, folder, tmp_path):
    steps = "allowed: 11, 22, 33, 44"
    for door, arguments, message in (
        (
            prune,
            ["--workdir", str(workdir), "--step", "11", "--out", str(tmp_path / "m")],
            "the factor f is 0.5 at step 11",
        ),
        (prune, ["--workdir", str(workdir), "--step", "12", "--out", str(tmp_path / "m")], steps),
        (prune, ["--workdir", str(workdir), "--out", str(other_folder(tmp_path))], "it is left alone"),
        (evaluate, ["--workdir", str(workdir), "--step", "3"], steps),
        (evaluate, ["--model", str(workdir / "model"), "--split", "tset"], "split 'tset' of digits"),
        (evaluate, ["--model", str(workdir / "model"), "--step", "3"], "--step: goes with --workdir"),
        (evaluate, [], "--workdir --model is required"),
        (predict, ["--model", str(tmp_path / "gone"), "x.png"], "gone: does not exist"),
        (predict, ["--model", str(workdir / "model"), "--top", "0", "x.png"], "--top 0"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            door.main(arguments)
        assert "\n" not in str(caught.value)


def test_a_truncated_checkpoint_is_named_by_the_doors_that_read_it(workdir, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    for path in (copy / "checkpoints" / "44").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            os.truncate(path, path.stat().st_size // 2)
    for door, arguments in ((evaluate, []), (prune, ["--out", str(tmp_path / "m")])):
        with pytest.raises(UserError, match="checkpoints/44: cannot be read") as caught:
            door.main(["--workdir", str(copy), *arguments])
        assert "\n" not in str(caught.value)
    assert open_store(copy).steps() == [11, 22, 33, 44]


def test_an_unstripped_checkpoint_is_refused_by_inference(workdir, tmp_path):
    from plq.runtime import stripped_model

    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    for step in (22, 33, 44):
        shutil.rmtree(copy / "checkpoints" / str(step))
    with pytest.raises(UserError, match=r"not stripped, \d+ ancillary leaves: .*weights/ancillary/conv1/"):
        stripped_model.load(copy)


def test_a_second_run_in_one_folder_is_refused(config, tmp_path):
    from plq.report.workdir import lock

    (tmp_path / "run").mkdir()
    with lock(tmp_path / "run"), pytest.raises(UserError, match=f"another run is using it .process {os.getpid()}"):
        main.main(["--config", config, "--workdir", str(tmp_path / "run")])


@pytest.mark.skipif("TFDS_DATA_DIR" not in os.environ, reason="TFDS_DATA_DIR is not set")
def test_photographs_are_trained_on_stopped_and_served(tmp_path):
    """ImageNet's JPEGs, record by record: a run in two parts ends as one in a single part."""
    if not (Path(os.environ["TFDS_DATA_DIR"]) / "imagenet2012").is_dir():
        pytest.skip("imagenet2012 is not prepared")
    arguments = ["--config", "configs/imagenet_w4a4.py:quick", "--config.train.epochs=0.75"]
    small = [
        "--config.data.image_size=32",
        "--config.model.name=vgg_small",
        "--config.model.block=post",
        "--config.model.width=0.05",
        "--config.mesh.data=1",
    ]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "plq.main", *arguments, *small, "--config.checkpoint.every_steps=1"]
    subprocess.run([*command, "--workdir", str(whole)], cwd=root, check=True, capture_output=True)
    process = subprocess.Popen([*command, "--workdir", str(parts)], cwd=root, stderr=subprocess.PIPE)
    while process.poll() is None and not (parts / "checkpoints" / "3").is_dir():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate()
    again = subprocess.run([*command, "--workdir", str(parts)], cwd=root, check=True, capture_output=True, text=True)
    assert process.returncode in (130, 0) and "bit-equal" in again.stderr  # 0: it ended before the signal came
    for name in ("metrics.jsonl", f"model/{VARIABLES}"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name
    for name in ("metrics.jsonl", "model/variables.safetensors"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()
