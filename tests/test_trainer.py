"""A run in its folder: stopped anywhere and started again it ends as if nothing had happened."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from runs import tiny, tiny_config, to_the_end

from plq.checkpoint.model_file import VARIABLES
from plq.checkpoint.store import open_store
from plq.cli.train import train
from plq.errors import UserError
from plq.layers.variables import ancillary_leaves
from plq.report.metrics import read_metrics
from plq.runtime import stripped_model
from plq.trainer.trainer import Interrupted, Run

FIELDS = {"checkpoint__every_steps": 4, "report__every_steps": 3, "data__pad": 2}


def run(workdir, setup, stop_at=None):
    """A whole run, or one that gets SIGTERM during step ``stop_at``. Returns the Run."""
    workdir.mkdir(exist_ok=True)
    return to_the_end(Run(setup, workdir), stop_at)


@pytest.fixture(scope="module")
def setup():
    return tiny(**FIELDS)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, setup):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    return run(workdir, setup)


def assert_same_end(workdir, uninterrupted):
    other = uninterrupted.workdir
    for name in ("metrics.jsonl", f"model/{VARIABLES}", "model/model.json"):
        assert (workdir / name).read_bytes() == (other / name).read_bytes(), name


def test_interrupted_anywhere_it_ends_the_same(tmp_path, setup, uninterrupted):
    zero = setup.task.factor.end_step
    assert zero == 22
    for stop in (1, 7, zero - 1, zero, zero + 1, 30):
        with pytest.raises(Interrupted, match=f"step {stop}"):
            run(tmp_path, setup, stop)
        assert open_store(tmp_path).steps()[-1] == stop
        assert bool(ancillary_leaves_saved(tmp_path, stop)) == (stop < zero)
    again = run(tmp_path, setup)
    jax.tree.map(np.testing.assert_array_equal, again.state, uninterrupted.state)
    assert_same_end(tmp_path, uninterrupted)


def ancillary_leaves_saved(workdir, step):
    return [path for path in open_store(workdir).leaves(step) if "ancillary" in path]


def test_a_finished_run_given_again_computes_nothing_new(uninterrupted, setup):
    before = (uninterrupted.workdir / "metrics.jsonl").read_bytes()
    again = run(uninterrupted.workdir, setup)
    assert (uninterrupted.workdir / "metrics.jsonl").read_bytes() == before
    jax.tree.map(np.testing.assert_array_equal, again.state, uninterrupted.state)


def test_what_a_run_leaves(uninterrupted, setup):
    workdir = uninterrupted.workdir
    store = open_store(workdir)
    assert store.steps()[-1] == 44 and store.best_step() in (22, 44)
    record = store.record(44)
    assert record["factor"] == 0 and record["data"] == {"seed": 0, "epoch": 2, "batch": 0}
    assert record["config"]["model"]["width"] == 0.05
    kinds = [(line["step"], line["kind"]) for line in read_metrics(workdir / "metrics.jsonl")]
    assert [step for step, kind in kinds if kind == "test"] == [22, 44]
    assert [step for step, kind in kinds if kind == "train"] == [*range(3, 44, 3), 44]
    model = stripped_model.load(workdir / "model")
    assert not ancillary_leaves(model.variables)
    images = setup.test.split.images[:64]
    np.testing.assert_array_equal(model(images), setup.logits(uninterrupted.state, images))


def test_a_config_that_computes_something_else_is_refused(uninterrupted):
    from plq.config.load import build_config
    from plq.trainer.workdir import claim

    claim(uninterrupted.workdir, uninterrupted.setup.config)
    other = build_config(tiny_config(**FIELDS, optimizer__learning_rate=0.5))
    with pytest.raises(UserError, match=r"optimizer.learning_rate: saved 0.001, now 0.5"):
        claim(uninterrupted.workdir, other)
    claim(uninterrupted.workdir, build_config(tiny_config(**FIELDS, checkpoint__keep_latest=9)))


def test_a_field_that_a_saved_config_lacks_was_at_its_default(tmp_path):
    from plq.config.load import build_config
    from plq.trainer.workdir import claim

    usual, other = (build_config(tiny_config(**FIELDS, train__seed=seed)) for seed in (0, 3))
    saved = usual.to_json()
    del saved["train"]["seed"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    claim(tmp_path, usual)
    with pytest.raises(UserError, match="train.seed: saved 0, now 3"):
        claim(tmp_path, other)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    """A learning rate that overflows: the step is named, and no checkpoint has a value that is not finite."""
    broken = tiny(
        optimizer__name="sgd",
        optimizer__learning_rate=1e30,
        checkpoint__every_steps=1,
        quant__weight_bits=32,
        quant__activation_bits=32,
        quant__activations="relu",
    )
    with pytest.raises(UserError, match=r"step \d+: the loss or its gradient is not finite"):
        train(broken, tmp_path)
    for step in open_store(tmp_path).steps():
        weights = open_store(tmp_path).restore_plain(step, ("weights",))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(weights))


def test_no_model_while_the_factor_is_above_0(tmp_path, capsys):
    current = run(tmp_path, tiny(factor__name="constant", factor__value=1.0, train__epochs=0.1))
    assert not (tmp_path / "model").exists()
    assert "f is still 1" in capsys.readouterr().err
    assert current.state.expanded


def test_killed_at_any_moment_it_ends_the_same(tmp_path, uninterrupted):
    """SIGKILL to the program at several steps, f's last one among them, then the same command once more."""
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(fields=json.dumps(FIELDS)))
    workdir = tmp_path / "run"
    command = [sys.executable, "-m", "plq.main", "--config", str(config), "--workdir", str(workdir)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    for kill_after in (5, 21, 24):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        wait_for_step(workdir / "metrics.jsonl", kill_after, process)
        process.kill()
        process.communicate()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same_end(workdir, uninterrupted)


CONFIG = """
from runs import tiny_config

def get_config():
    return tiny_config(**{fields})
"""


def wait_for_step(metrics, step, process, seconds=120):
    """Until the metrics file tells of this step, or the process has ended."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit and process.poll() is None:
        if metrics.exists() and any(line["step"] >= step for line in read_metrics(metrics)):
            return
        time.sleep(0.005)
    raise AssertionError(f"step {step} was not reached: {process.communicate()[1].decode()[-500:]}")
