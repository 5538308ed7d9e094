"""The numbers with which an integer kernel steps at the same sums as the frozen network.

A kernel such as ONNX Runtime's QLinearConv turns the integer sum of an output channel into

    output = round_half_even(multiplier * (expansion * sum + bias))        multiplier float32, bias int32

and saturates, where the network has a staircase made of scales, a batch norm, a division and a rounding of its own. A
multiplier and a bias are searched that step at the same sums: no rule for ties matters then, as none is left. The
expansion, a whole number by which the weights are multiplied so far as int8 allows, makes the bias finer.
"""

import dataclasses

import numpy as np

from plq.exporters.thresholds import Steps
from plq.exporters.units import INT8

PAIR = 2**15 - 1  # x86 without VNNI adds two products in 16 bits
MOST_BIASES = 300  # that are tried to either side of the first guess


@dataclasses.dataclass(frozen=True)
class Requantization:
    """Integers for one unit, and how well they do.

    kernel     int32, in the shape of the product's, expansion included
    bias       int32 [channels]
    scale      float32 [channels], of the kernel: multiplier = input scale * scale / output scale
    misplaced  int [channels]: how many steps come at another sum than in the network; at the one before or behind it
    """

    kernel: np.ndarray
    bias: np.ndarray
    scale: np.ndarray
    off_by_one: np.ndarray


def expansions(kernel: np.ndarray, largest_input: int) -> np.ndarray:
    """The factor of each channel's weights, int [channels]: as large as `is_exact` and int8 allow, or 1."""
    largest = np.abs(kernel).max(tuple(range(kernel.ndim - 1)))
    return np.maximum(1, min(INT8, PAIR // (2 * largest_input)) // np.maximum(1, largest))


def is_exact(kernel: np.ndarray, largest_input: int) -> bool:
    """Whether no two products exceed 16 bits, in which x86 without VNNI adds those of uint8 and int8, saturating."""
    return 2 * int(np.abs(kernel).max()) * largest_input <= PAIR


def requantize(steps: Steps, largest_input: int, input_scale: float, output_scale: float) -> Requantization:
    """The integers with which a kernel takes these steps. ``largest_input``: of the uint8 codes."""
    moving = np.asarray(steps.reached.any(1))
    expansion = expansions(steps.kernel, largest_input) * moving
    fits = [
        fit(steps, channel, int(expansion[channel])) if moving[channel] else rest(steps, channel)
        for channel in range(moving.size)
    ]
    multiplier, bias = (np.array(column) for column in zip(*fits, strict=True))
    scale = (multiplier * output_scale / input_scale).astype(np.float32)
    realized: np.ndarray = np.float32(input_scale) * scale / np.float32(output_scale)
    off_by_one = np.zeros(moving.size, int)
    for channel in np.flatnonzero(moving):
        off_by_one[channel] = misplaced_steps(steps, int(channel), expansion[channel], bias[channel], realized[channel])
    return Requantization(steps.kernel * expansion, bias.astype(np.int32), scale, off_by_one)


def rest(steps: Steps, channel: int) -> tuple[float, int]:
    """Multiplier and bias of a channel whose output never changes."""
    passed = int((steps.sums[channel] <= steps.low[channel]).sum())
    return 1.0, int(steps.outputs[passed - 1] if passed else steps.outputs[0] - 1)


def fit(steps: Steps, channel: int, expansion: int) -> tuple[float, int]:
    """Multiplier and bias with all steps of a channel in place and the widest margin, or else the line's own.

    With u = expansion * sum + bias at the first sum of a step and d at the one before, k the output that begins there:
    multiplier * u > k - 1/2 > multiplier * d. For each bias this leaves an interval of multipliers, or nothing.
    """
    slope, intercept = steps.slope[channel], steps.intercept[channel]
    guess = round(expansion * intercept / slope)
    width = min(2 * expansion, MOST_BIASES)
    biases = np.arange(guess - width, guess + width + 1)[:, None]
    up, down = (expansion * sums + biases for sums in edges(steps, channel))
    lower, upper = interval(steps.outputs - 0.5, up, down)
    best = int(np.argmax(upper / lower))
    if upper[best] <= lower[best]:
        return slope / expansion, guess
    return float(np.sqrt(lower[best] * upper[best])), int(biases[best, 0])


def edges(steps: Steps, channel: int) -> tuple[np.ndarray, np.ndarray]:
    """The first sum of each step and the last one before it, float64; infinite where no sum is that large or small."""
    sums, low, high = steps.sums[channel], steps.low[channel], steps.high[channel]
    first = np.where(sums > high, np.inf, np.maximum(sums, low))
    return first, np.where(sums <= low, -np.inf, np.minimum(sums - 1, high))


def interval(middles: np.ndarray, up: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bounds of all m > 0 with m * up > middle > m * down, by row of [biases, steps]; lower >= upper: none."""
    with np.errstate(divide="ignore"):
        at_up, at_down = middles / up, middles / down
    lower = np.maximum(np.where(up > 0, at_up, -np.inf), np.where(down < 0, at_down, -np.inf)).max(1)
    upper = np.minimum(np.where(down > 0, at_down, np.inf), np.where(up < 0, at_up, np.inf)).min(1)
    impossible = ((up == 0) & (middles >= 0)) | ((down == 0) & (middles <= 0))
    upper = np.where(impossible.any(1) | (upper <= 0), 0.0, upper)
    lower = np.where(lower <= 0, upper / 4, lower)
    upper = np.where(np.isinf(upper), 4 * lower, upper)
    return np.where(lower > 0, lower, 1.0), upper


def misplaced_steps(steps: Steps, channel: int, expansion: int, bias: int, multiplier: np.float32) -> int:
    """How many steps of a channel a kernel takes at another sum, in its own float32 arithmetic."""
    up, down = (np.rint((expansion * sums + bias).astype(np.float32) * multiplier) for sums in edges(steps, channel))
    return int(((up < steps.outputs) | (down >= steps.outputs)).sum())
