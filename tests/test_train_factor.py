"""Schedules of f against the written-out formulas, their end, and their bounds."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plq.errors import UserError
from plq.train.factor import SHAPES, FactorSchedule

DECAYING = [name for name in SHAPES if name != "constant"]


@pytest.mark.parametrize("name", DECAYING)
@given(length=st.integers(1, 3_000_000), share=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_bounds_and_exact_zero_at_any_length(name, length, share):
    factor = FactorSchedule(name, length)
    assert float(factor(0)) == 1.0
    assert float(factor(length)) == 0.0 and float(factor(length + 1)) == 0.0 and float(factor(2**31 - 1)) == 0.0
    assert 0.0 <= float(factor(int(share * length))) <= 1.0
    assert factor.end_step == length


@pytest.mark.parametrize("name", DECAYING)
def test_never_rises(name):
    values = jax.vmap(FactorSchedule(name, 997))(jnp.arange(1200))
    assert (np.diff(values) <= 0).all()


def test_written_out_formulas():
    length, steps = 1000, range(0, 1000, 37)
    for step in steps:
        u = step / length
        assert float(FactorSchedule("cosine", length)(step)) == pytest.approx(
            0.5 * (1 + math.cos(math.pi * u)), abs=1e-6
        )
        assert float(FactorSchedule("linear", length)(step)) == pytest.approx(1 - u, abs=1e-6)
        assert float(FactorSchedule("polynomial", length, power=3.0)(step)) == pytest.approx((1 - u) ** 3, abs=1e-6)


def test_staircase_is_the_papers_40_epochs():
    """0.5 ** floor(t / S), 0 once that is 0.001 or less: S = 4 epochs, 0 after 40 (EXP-Net's AlexNet)."""
    per_epoch = 5005
    factor = FactorSchedule("staircase", 40 * per_epoch)
    assert factor.stages == 10
    for epoch in range(40):
        for step in (epoch * per_epoch, (epoch + 1) * per_epoch - 1):
            assert float(factor(step)) == 0.5 ** (epoch // 4)


def test_constant():
    assert FactorSchedule("constant", 5, value=1.0).end_step is None
    assert FactorSchedule("constant", 5, value=0.0).end_step == 0
    assert float(FactorSchedule("constant", 5, value=0.25)(10**6)) == 0.25


def test_traced_and_plain_steps_agree():
    for name in SHAPES:
        factor = FactorSchedule(name, 123, value=0.5)
        assert float(jax.jit(factor)(77)) == pytest.approx(float(factor(77)), rel=1e-6)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "cosin"),
        ("decay_steps", 0),
        ("rate", 1.0),
        ("rate", 0.0),
        ("cutoff", 0.0),
        ("power", 0.0),
        ("value", 1.5),
        ("value", -0.1),
        ("rate", float("nan")),
    ],
)
def test_illegal_values_are_named(field, value):
    with pytest.raises(UserError, match="factor."):
        FactorSchedule(**{"name": "cosine", "decay_steps": 10, field: value})


@pytest.mark.parametrize("name", DECAYING)
@pytest.mark.parametrize("order", ["front", "back"])
def test_layers_one_after_another(name, order):
    """Each decays as the whole would, in its third of the time; all are 0 where f is; f is their mean."""
    layers, length = ("first", "second", "third"), 300
    factor, alone = FactorSchedule(name, length, order=order, layers=layers), FactorSchedule(name, length)
    turns = {layer: turn for turn, layer in enumerate(layers if order == "front" else layers[::-1])}
    for step in (0, 40, 99, 100, 150, 250, 299):
        found = factor.by_layer(step)
        for layer, turn in turns.items():
            assert float(found[layer]) == float(alone(min(max(3 * step - turn * length, 0), length)))
        assert float(factor(step)) == pytest.approx(np.mean(list(found.values())))
        assert float(factor(step)) > 0
    assert all(float(value) == 0 for value in factor.by_layer(length).values()) and factor.end_step == length


def test_an_order_is_checked():
    with pytest.raises(UserError, match="factor.order=forward: unknown; allowed: together, front, back"):
        FactorSchedule("cosine", 5, order="forward")
