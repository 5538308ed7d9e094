"""Runs side by side in one program are what they are alone."""

import json
import os
import signal
from functools import partial

import jax
import numpy as np
import pytest
from runs import tiny, tiny_config

from plq.compare.history import read_history
from plq.compare.plan import make_plan, parse_axis
from plq.compare.runs import Stopped, Training
from plq.compare.vmapped_runs import VmappedTrainer, groups_of, run_vmapped
from plq.config.load import build_config
from plq.errors import UserError
from plq.layers.variables import ancillary_leaves, leaf_path
from plq.models.registry import NETWORKS
from plq.models.resnet import ResNet
from plq.runtime import stripped_model
from plq.train.vmapped import VmappedRuns
from plq.trainer.setup import assemble

# In float, and by small steps of plain gradient descent: rounding stays rounding. With few bits, Adam at a gradient of
# nearly 0, or larger steps across the bend of |x|, where all of a digit's background lies at once, a last bit can turn
# a sign, and from then on the two are different runs of the same distribution.
FIELDS = {
    "quant__weight_bits": 32, "quant__activation_bits": 32, "optimizer__name": "sgd", "optimizer__learning_rate": 0.002,
    "data__pad": 2, "train__epochs": 0.5, "report__every_steps": 3, "model__dropout": 0.3,
}  # fmt: skip


def planned(directory, *axes, variants=("plain", "expanded"), seeds=1, **fields):
    plan = make_plan(build_config(tiny_config(**fields)), [parse_axis(axis) for axis in axes], variants, seeds)
    return plan, [Training(cell, (), directory) for cell in plan.trainings()]


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    """Plain and EXP-Net of seed 1, stopped by a signal at step 4, then run to the end; f is 0 from step 6 on."""
    directory = tmp_path_factory.mktemp("together")
    plan, trainings = planned(directory, **FIELDS, train__seed=1)
    (group,) = groups_of(plan, trainings)
    stopped = VmappedTrainer(group, directory)
    written = stopped._written

    def written_and_signal():
        written()
        if stopped.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    stopped._written = written_and_signal
    with pytest.raises(Stopped):
        stopped.train()
    stopped.close()
    assert stopped._advanced._cache_size() == 1  # compiled once, before and after a report
    again = VmappedTrainer(group, directory)
    assert again.step == 4 and ancillary_leaves(again.states) == ancillary_leaves(stopped.states)
    again.close()
    assert run_vmapped([group], directory) == {}
    assert not any((directory / "together").iterdir())
    return {training.cell.variant: training for training in trainings}


@pytest.mark.parametrize("variant", ["expanded", "plain"])
def test_a_lane_ends_as_the_run_alone(trainings, variant):
    training, name = trainings[variant], {"expanded": "cosine", "plain": "constant"}[variant]
    alone = tiny(**FIELDS, mesh__data=1, train__seed=1, factor__name=name)
    state = alone.initial_state()
    for step in range(alone.total_steps):
        state = alone.pruned(alone.step(state, *alone.batch(step)), step + 1)
    history, expected = read_history(training.folder), alone.evaluate(state)
    assert [record["step"] for record in history.train] == [3, 6, 9, 11]
    assert history.test[-1]["loss"] == pytest.approx(expected["loss"], rel=1e-3)
    assert history.test[-1]["accuracy"] == pytest.approx(expected["accuracy"], abs=1.5 / 360)
    model = stripped_model.load(training.folder / "model")
    close = lambda lane, own: np.testing.assert_allclose(lane, own, rtol=1e-2, atol=1e-3)
    jax.tree.map(close, jax.device_get(model.variables["params"]), jax.device_get(state.weights["params"]))


def test_f_and_the_branch_are_each_lanes_own(trainings):
    for variant, training in trainings.items():
        history = read_history(training.folder)
        assert (history.train[0]["factor"] > 0) == (variant == "expanded") and history.test[-1]["factor"] == 0
        assert json.loads((training.folder / "config.json").read_text())["train"]["seed"] == training.cell.seed
        assert training.done and training.how()["together"] == 2


LEARNED = {"quant__weights": "lsq", "quant__activations": "lsq_plus", "quant__weight_bits": 2, "quant__last_bits": 4}
ONE_BIT = {"quant__activations": "pact", "expansion__merge": "concat", "factor__order": "front"}
FIRST_STEPS = {
    "learned, calibrated scales": {**LEARNED, "model__block": "pre"},
    "one bit, layer by layer": {**ONE_BIT, "model__block": "bireal"},
}


@pytest.mark.parametrize("name", FIRST_STEPS)
def test_first_steps_agree_before_rounding_can_tell(name, monkeypatch):
    """The first step of each variant, as one lane of two and as a run of its own: loss and all kept weights."""
    monkeypatch.setitem(NETWORKS, "resnet20", partial(ResNet, stages=(1, 1), small_images=True))
    fields = {**FIRST_STEPS[name], "optimizer__name": "sgd", "model__name": "resnet20", "model__width": 0.25}
    fields |= {"mesh__data": 1, "data__batch_size": 16, "model__dropout": 0.0}
    cells = planned(None, **fields)[0].cells
    plain, expanded = (assemble(cell.config) for cell in cells)
    lanes = VmappedRuns(expanded.task, np.zeros(2, np.int32), np.asarray([0, 1], np.float32))
    stack = lambda tree: jax.tree.map(lambda leaf: np.stack([leaf] * 2), jax.device_get(tree))
    states = jax.jit(lanes.step)(*stack((expanded.initial_state(), *expanded.batch(0))))
    losses = []
    for lane, alone in enumerate((plain, expanded)):
        own = alone.step(alone.initial_state(), *alone.batch(0))
        losses.append(float(own.tally.loss))
        assert float(states.tally.loss[lane]) == pytest.approx(losses[-1], rel=1e-5)
        mine = {leaf_path(path): leaf[lane] for path, leaf in jax.tree_util.tree_leaves_with_path(states.weights)}
        for path, leaf in jax.tree_util.tree_leaves_with_path(own.weights):
            np.testing.assert_allclose(mine[leaf_path(path)], leaf, rtol=1e-3, atol=2e-4, err_msg=leaf_path(path))
    assert abs(losses[0] - losses[1]) > 1e-2


def test_groups_hold_what_can_share_a_program(tmp_path):
    plan, trainings = planned(tmp_path, "quant.weight_bits=1,2", variants=("plain", "expanded", "float"), seeds=3)
    shape = lambda groups: [[t.cell.folder.split("/")[1] for t in group.trainings] for group in groups]
    found = shape(groups_of(plan, trainings))
    assert [len(names) for names in found] == [6, 3, 6]
    assert {name.split("_")[0] for name in found[1]} == {"float"}
    assert [len(names) for names in shape(groups_of(plan, trainings, most=4))] == [4, 2, 3, 4, 2]
    alone = next(training for training in trainings if training.cell.folder == "cells/float_1")
    (alone.folder / "checkpoints").mkdir(parents=True)  # it began as a run of its own
    assert [len(names) for names in shape(groups_of(plan, trainings))] == [6, 2, 6]
    assert len({group.name for group in groups_of(plan, trainings)}) == 3


def test_sets_that_are_not_in_memory_are_refused(tmp_path):
    with pytest.raises(UserError, match="--together: data.crop=resized reads record by record"):
        groups_of(*planned(tmp_path, data__crop="resized", data__name="imagenette"))


def test_what_does_not_fit_is_halved_and_a_failure_stops_nothing(tmp_path, monkeypatch):
    """Room for two lanes at a time; the group with seed 2 breaks in another way."""
    tried = []

    def run(group, directory):
        tried.append([training.cell.seed for training in group.trainings])
        if len(group.trainings) > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")
        if 2 in tried[-1]:
            raise jax.errors.JaxRuntimeError("INTERNAL: broken\nmore")
        return {}

    monkeypatch.setattr("plq.compare.vmapped_runs._run", run)
    failed = run_vmapped(groups_of(*planned(tmp_path, seeds=4)), tmp_path)
    assert tried == [[0, 0, 1, 1, 2, 2, 3, 3], [0, 0, 1, 1], [0, 0], [1, 1], [2, 2, 3, 3], [2, 2], [3, 3]]
    assert failed == {f"cells/{variant}_2": "INTERNAL: broken" for variant in ("plain", "expanded")}
