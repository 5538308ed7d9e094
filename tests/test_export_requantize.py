"""Integer kernels step where the network does, for every sum that can occur."""

import dataclasses

import numpy as np
import pytest
from frozen_models import BINARY, CHANNELS, small_graph

from plq.exporters.requantize import expansions, is_exact, requantize
from plq.exporters.saturation import window
from plq.exporters.thresholds import Steps, steps_of
from plq.exporters.units import Unit, find_units, is_matrix
from plq.runtime.arithmetic import before_rounding, on_grid
from plq.runtime.graph import Graph
from plq.runtime.grid import Grid
from plq.runtime.nodes import Add, Conv, Flatten

TOP = 3


def only_unit(found: Graph) -> Unit:
    unit = find_units(found)["conv"]
    assert isinstance(unit, Unit), unit
    return unit


def output(requantized, steps: Steps, channel: int, sums: np.ndarray, ratio: float) -> np.ndarray:
    """What a kernel gives for these sums, in its arithmetic; ``ratio``: input scale / output scale."""
    kernel, own = (k.reshape(-1, k.shape[-1])[:, channel] for k in (requantized.kernel, steps.kernel))
    used = np.flatnonzero(own)
    expansion = kernel[used[0]] // own[used[0]] if used.size else 0
    value = np.float32(expansion * sums + requantized.bias[channel]) * np.float32(ratio * requantized.scale[channel])
    return np.rint(value)


CASES = {
    "dorefa 1": {},
    "dorefa 2": {"weights": Grid(2, -1.5)},
    "lsq 3": {"weights": Grid(3, -4.0), "inputs": Grid(3)},
    "half up": {"activation": {"rounding": "half_up", "nonlinearity": "clip"}},
    "abs": {"activation": {"nonlinearity": "abs"}},
    "offset": {"activation": {"grid": Grid(2, -1.0)}},
    "levels": {"activation": {"grid": Grid(2, 0.0, (0, 1, 2, 4))}},
    "residual": {"residual": True},
}


@pytest.mark.parametrize("case", CASES)
def test_every_sum_gives_the_code_that_real_arithmetic_gives(case):
    found = small_graph(**CASES[case])
    unit = only_unit(found)
    steps = steps_of(found, unit)
    ratio = found.values["codes"].scale / unit.activation.scale * (2 if unit.grid.levels else 1)
    result = requantize(steps, TOP, found.values["codes"].scale, found.values["codes"].scale / ratio)
    assert result.off_by_one.sum() == 0 and is_exact(result.kernel, 7 if case == "lsq 3" else TOP)
    assert (found.tensors["norm/scale"] < 0).any() and steps.reached.any(1).all()
    for channel in range(CHANNELS):
        sums = np.arange(steps.low[channel], steps.high[channel] + 1)
        line = steps.slope[channel] * sums + steps.intercept[channel]
        given = output(result, steps, channel, sums, ratio)
        reached = np.searchsorted(steps.outputs, given, side="right")
        assert reached.tolist() == np.searchsorted(steps.outputs - 0.5, line, side="right").tolist()


@pytest.mark.parametrize(("rounding", "sums"), [("half_even", [2, 3, 6]), ("half_up", [1, 3, 5])])
def test_ties_fall_as_the_network_rounds(rounding, sums):
    """Output sum / 2: the sums 1, 3 and 5 are ties, between 0 and 1, 1 and 2, 2 and 3."""
    found = small_graph(activation={"rounding": rounding})
    found.tensors["conv/scale"][...] = 2  # of weights -1/2 and 1/2: one sum is worth 2 / 2 * 1/4, half a step
    found.tensors["norm/scale"][...], found.tensors["norm/shift"][...] = 1, 0
    assert steps_of(found, only_unit(found)).sums[0].tolist() == sums


def test_a_channel_that_never_changes_has_no_weights():
    found = small_graph()
    found.tensors["norm/scale"][:2], found.tensors["norm/shift"][:2] = 0, (0.8, -5)
    found.tensors["norm/shift"][2] = 1e6
    steps = steps_of(found, only_unit(found))
    result = requantize(steps, TOP, 0.25, 0.5)
    assert not result.kernel[..., :3].any() and result.kernel[..., 3:].all()
    assert result.bias[:3].tolist() == [2, 0, 3]


def test_eight_bits_are_off_by_one_sum_at_most_and_say_so():
    found = small_graph(Grid(8, -128.0), {"grid": Grid(8), "scale": 1 / 64, "divisor": 1 / 64}, inputs=Grid(8))
    found.tensors["norm/scale"] /= 64
    steps = steps_of(found, only_unit(found))
    result = requantize(steps, 255, 0.25, 1 / 64)
    assert result.off_by_one.sum() > 0
    assert not is_exact(result.kernel, 255)
    for channel in range(CHANNELS):
        sums = np.arange(steps.low[channel], steps.high[channel] + 1, 97)
        line = np.rint(steps.slope[channel] * sums + steps.intercept[channel])
        given = output(result, steps, channel, sums, 16.0)
        assert np.abs(np.clip(given, 0, 255) - np.clip(line, 0, 255)).max() <= 1


def test_expansions_stay_within_eight_bits_and_sixteen_of_pairs():
    kernel = np.array([[1, 3, 15, 127, 0]])
    assert expansions(kernel, 3).tolist() == [127, 42, 8, 1, 127]
    assert expansions(kernel, 255).tolist() == [64, 21, 4, 1, 64]
    assert is_exact(kernel[:, :3] * expansions(kernel, 255)[:3], 255) and not is_exact(kernel, 255)


REASONS = {
    "its weights have a scale per position": {"scale_shape": (3, 3, 1, 1)},
    "hard_swish goes down and up": {"activation": {"nonlinearity": "hard_swish"}},
    "what is added to it has another grid": {"residual": True, "inputs": Grid(2, -1.0)},
    "its activation takes |x| of a sum": {"residual": True, "activation": {"nonlinearity": "abs"}},
    "what is added to it has more bits": {"residual": True, "inputs": Grid(3)},
    "what precedes its activation does not fit into uint8 with a sign": {
        "activation": {"nonlinearity": "abs", "grid": Grid(8)}
    },
}


@pytest.mark.parametrize("reason", REASONS)
def test_what_no_integer_kernel_can_do_is_told(reason):
    assert find_units(small_graph(**REASONS[reason]))["conv"] == reason


def test_values_with_two_readers_begin_no_unit():
    found = small_graph()
    nodes = list(found.nodes)
    nodes[5] = Add("pool", ("norm", "norm"))
    assert find_units(dataclasses.replace(found, nodes=tuple(nodes)))["conv"] == "its output is float"


def test_a_convolution_over_the_whole_input_is_a_matrix():
    found = small_graph()
    head = [Conv("head", ("act",), 10, BINARY, (5, 5)), Flatten("flat", ("head",))]
    tensors = {**found.tensors, "head/kernel": np.zeros((5, 5, CHANNELS, 10), np.uint8)}
    tensors["head/scale"] = np.ones((1, 1, 1, 1), np.float32)
    del tensors["dense/kernel"]
    found = Graph(found.image_shape, (*found.nodes[:-2], *head), tensors)
    found.check()
    assert is_matrix(found, head[0]) and not is_matrix(found, found.nodes[3]) and not is_matrix(found, found.nodes[1])


WINDOWS = {
    "hard swish": {"activation": {"nonlinearity": "hard_swish", "grid": Grid(2, -1.0)}},
    "residual of another grid": {"residual": True, "inputs": Grid(2, -1.0)},
    "residual and |x|": {"residual": True, "activation": {"nonlinearity": "abs"}},
    "float clip": {"activation": {"nonlinearity": "clip", "grid": None, "scale": 1.0, "divisor": 1.0}},
    "levels": {"activation": {"grid": Grid(2, 0.0, (0, 1, 2, 4))}},
}


@pytest.mark.parametrize("case", WINDOWS)
def test_sums_are_cut_off_only_where_nothing_depends_on_them(case):
    found = small_graph(**WINDOWS[case])
    product, node = found.nodes[3], next(node for node in found.nodes if node.name == "act")
    lowest = window(found, product)
    assert lowest is not None
    value = found.values["codes"]
    worth = value.scale / 2 * float(found.tensors["conv/scale"].item())
    residuals = value.grid.integers * value.scale if WINDOWS[case].get("residual") else [0.0]
    for channel in range(CHANNELS):
        sums = np.arange(lowest[channel] - 500, lowest[channel] + 756)
        cut = np.clip(sums, lowest[channel], lowest[channel] + 255)
        for residual in residuals:
            scale, shift = (found.tensors[f"norm/{role}"][channel] for role in ("scale", "shift"))
            whole, saturated = (
                before_rounding(node, np.float32(s * worth * scale + shift + residual), node.divisor, node.factor)
                for s in (sums, cut)
            )
            ends = [whole, saturated] if node.grid is None else [on_grid(node, v) for v in (whole, saturated)]
            np.testing.assert_array_equal(*ends)
            assert len(np.unique(ends[0])) > 1


def test_too_many_sums_are_computed_in_float():
    found = small_graph(**WINDOWS["hard swish"])
    found.tensors["norm/scale"][3] /= 64
    assert window(found, found.nodes[3]) is None
    found.tensors["norm/scale"][3] = 0  # no sum matters
    assert window(found, found.nodes[3]) is not None
