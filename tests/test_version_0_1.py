"""Files that plq 0.1 wrote are opened, gone on with and replaced.

tests/version_0_1.zip: ``config.py``, its config file of digits, and what 0.1 made with it and ``ARGUMENTS``: ``run``
with the checkpoint of step 3 of 7 and the stripped model of step 7, and that model as ``model.plq`` with its card.
"""

import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from networks import digit_images

import plq
from plq.cli import evaluate, freeze, train
from plq.config.load import build_config, load
from plq.data.digits import load_digits
from plq.errors import UserError

ARGUMENTS = [
    "--config.model.width=0.02", "--config.train.epochs=0.3", "--config.checkpoint.every_steps=3",
    "--config.checkpoint.keep_latest=9", "--config.quant.weights=lsq", "--config.quant.weight_bits=2",
    "--config.quant.activations=lsq", "--config.factor.end=0.6", "--config.report.tensorboard=False",
    "--config.mesh.data=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("old")
    zipfile.ZipFile(Path(__file__).with_name("version_0_1.zip")).extractall(path)
    return path


def test_a_config_file_is_read(folder):
    assert build_config(load(folder / "config.py")).quant.weight_bits == 1


def test_a_run_goes_on_to_the_model_that_it_would_have_had(folder, tmp_path, capsys):
    run = shutil.copytree(folder / "run", tmp_path / "run")
    was = plq.load(run / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a checkpoint that is not taken is warned about
        train.main(["--config", str(folder / "config.py"), *ARGUMENTS, "--workdir", str(run)])
    notes = capsys.readouterr().err
    assert "going on from step 3 of 7" in notes and "run/model: test accuracy" in notes
    assert (run / "checkpoints/7").is_dir()
    images = digit_images(50)
    both = [np.ravel(model(images)) for model in (plq.load(run / "model"), was)]
    assert np.corrcoef(both)[0, 1] > 0.9  # 1 on the machine of 0.1: roundings of others turn some codes
    evaluate.main(["--workdir", str(folder / "run")])
    assert "step 3 (with its branch" in capsys.readouterr().out


def test_another_config_is_refused(folder, tmp_path):
    run = shutil.copytree(folder / "run", tmp_path / "run")
    with pytest.raises(UserError, match=r"quant.weight_bits: saved 2, now 1"):
        train.main(["--config", str(folder / "config.py"), "--workdir", str(run)])


def test_models_load_and_are_exported(folder, tmp_path):
    stripped, frozen, images = plq.load(folder / "run/model"), plq.load(folder / "model.plq"), digit_images(20)
    np.testing.assert_allclose(frozen(images), stripped(images), rtol=1e-4, atol=1e-4)
    assert frozen.class_names == stripped.class_names
    for format in ("stablehlo", "c"):
        plq.export(frozen, tmp_path / format, format=format, images=images)
    stated = stripped.training["test"]["accuracy"]
    test, labels = load_digits()
    found = np.mean(np.argmax(frozen(test[-360:]), -1) == labels[-360:])
    assert found == pytest.approx(stated, abs=0.01)


def test_freezing_again_replaces_the_file_and_its_card(folder, tmp_path):
    for name in ("model.plq", "model.md"):
        shutil.copy(folder / name, tmp_path)
    freeze.main(["--model", str(folder / "run/model"), "--out", str(tmp_path / "model.plq")])
    assert plq.load(tmp_path / "model.plq").training["config"] == plq.load(folder / "model.plq").training["config"]
