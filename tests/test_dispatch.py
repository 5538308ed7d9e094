"""The host hands out steps and does not wait for them; nothing is compiled twice."""

import contextlib

import jax
import numpy as np
import pytest
from runs import tiny

from plq.data.prefetch import prefetch_to_device
from plq.trainer.trainer import Run

EVERY = 5
ArrayImpl = type(jax.numpy.zeros(()))


@pytest.fixture(scope="module")
def setup():
    return tiny(mesh__data=1, report__every_steps=EVERY, checkpoint__every_steps=11)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, setup):
    """A whole run, and the steps at which the host read an array or waited for one."""
    current, waited, step = Run(setup, tmp_path_factory.mktemp("run")), [], setup.step
    read, block = ArrayImpl._value, ArrayImpl.block_until_ready

    def guarded(state, images, labels):
        with jax.transfer_guard("disallow"):  # all that a step takes is on the devices already
            return step(state, images, labels)

    with pytest.MonkeyPatch.context() as patch, contextlib.closing(current):
        patch.setitem(vars(setup), "step", guarded)
        patch.setattr(ArrayImpl, "_value", property(lambda array: waited.append(current.step) or read.fget(array)))
        patch.setattr(ArrayImpl, "block_until_ready", lambda array: waited.append(current.step) or block(array))
        current.train()
    return current, waited


def test_the_host_waits_at_reports_evaluations_and_saves_alone(finished, setup):
    current, waited = finished
    total = setup.total_steps
    due = {*range(EVERY, total, EVERY), *range(11, total, 11), setup.epoch_steps, total}
    assert current.step == total == 44 and due <= set(waited) <= due | {0}


def test_a_run_compiles_one_step_with_the_branch_and_one_without(finished, setup):
    assert setup.task.factor.end_step == 22  # f had 22 values above 0 on the way
    assert setup.step._cache_size() == 2
    assert setup.logits._cache_size() == 2


def test_the_next_batch_is_on_its_way_while_one_is_in_use(setup, monkeypatch):
    put, placed = jax.device_put, []
    monkeypatch.setattr(jax, "device_put", lambda *given: placed.append(1) or put(*given))
    with contextlib.closing(setup.batches(3, 6)) as batches:
        for step, (images, labels) in enumerate(batches, 3):
            assert len(placed) == min(step - 3 + 2, 3)
            expected = setup.train.batch(step)
            np.testing.assert_array_equal(images, expected[0])
            np.testing.assert_array_equal(labels, expected[1])
            assert isinstance(images, jax.Array) and images.sharding == setup.sharding
    assert step == 5 and len(placed) == 3


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_one_ahead_leaves_none_out(count):
    assert list(prefetch_to_device(range(count))) == list(range(count))
