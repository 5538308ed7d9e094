"""Variants of the branch, and how much of the output it carries."""

import dataclasses

import jax
import numpy as np
import pytest
from networks import architecture, digit_images, logits, used_variables
from runs import tiny, trained

from plq.checkpoint.prune import prune
from plq.layers.describe import expanded_layers
from plq.layers.variables import ancillary_leaves
from plq.train.branch import branch_shares
from plq.train.factor import FactorSchedule

LAYERS = tuple(f"conv{i}" for i in range(1, 7))


def test_shares_grow_with_the_factor_and_are_0_without():
    """In the first expanded layer neither side depends on f: the odds of the share are proportional to it."""
    setup = tiny()
    images, state = setup.test.split.images[:32], setup.initial_state()

    @jax.jit
    def shares(f):
        class Fixed(FactorSchedule):
            def by_layer(self, step):
                return f

        return branch_shares(dataclasses.replace(setup.task, factor=Fixed("constant", 1)), state, images)

    whole, half, none = (jax.device_get(shares(f)) for f in (1.0, 0.5, 0.0))
    assert tuple(whole) == LAYERS and not any(none.values())
    assert all(0 < whole[layer] < 1 for layer in LAYERS)
    odds = lambda share: share / (1 - share)
    assert odds(whole["conv1"]) == pytest.approx(2 * odds(half["conv1"]), rel=1e-5)


def test_layers_with_a_branch_in_order():
    assert expanded_layers(architecture().expanded("concat", 1.0), (40, 40, 1)) == LAYERS


def test_a_branch_without_batch_norm_leaves_as_one_with():
    network = architecture()
    variables = used_variables(network.expanded("add", 0.0, norm=False), digit_images(100))
    assert not [path for path in ancillary_leaves(variables) if "norm" in path]
    images = digit_images(50)
    expanded = logits(network.expanded("add", np.float32(0.0), norm=False), variables, images)
    np.testing.assert_array_equal(expanded, logits(network.plain(), prune(variables), images))


def test_layers_one_after_another_train_and_leave():
    """Without batch norm as well: the branch trains, the front goes first, and all of it is removed."""
    setup = tiny(expansion__norm=False, factor__order="front", train__epochs=0.5)
    zero = setup.task.factor.end_step
    before, after = trained(setup, zero - 1), trained(setup, zero + 1)
    assert ancillary_leaves(before) and not ancillary_leaves(after)
    assert int(after.tally.broken_step) == -1
    kernel = lambda state: state.weights["ancillary"]["conv6"]["ancillary_conv"]["kernel"]
    assert not np.array_equal(kernel(before), kernel(setup.initial_state()))
    shares = jax.device_get(setup.branch_shares(before, setup.test.split.images[:64]))
    assert shares["conv1"] == 0 < shares["conv6"]
