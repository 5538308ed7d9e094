"""The integer sums at which the output of each channel steps up, found by computing it as the network does.

All operations between a sum and its code are monotone in floating point too, so codes rise, or fall, with the sum: the
steps are found by bisection, and comparing sums with them gives the same codes as computing them.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

MOST = 8  # codes of an output for which sums are compared; with more it is faster to compute them
END = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Steps:
    """By channel; an output is the sum of ``rises`` of all the steps that the sum has reached, above ``lowest``.

    sums    int32 [steps, channels]: the smallest sum that reaches a step; END: none does
    flips   int32 [channels]: what sums are XORed with before they are compared: 0, or -1 where codes fall
    """

    lowest: int
    rises: tuple[int, ...]
    sums: np.ndarray
    flips: np.ndarray


def steps_of(
    codes: Callable[[np.ndarray], np.ndarray], integers: np.ndarray, low: np.ndarray, high: np.ndarray
) -> Steps:
    """The steps of a layer.

    Args:
        codes: from int64 sums [n, channels] to the integers that they give. integers: of the output, rising.
        low, high: int64 [channels], the smallest and the largest sum that can occur.
    """
    ends = codes(np.stack([low, high]))
    falls = ends[0] > ends[1]
    flip = lambda sums: np.where(falls, ~sums, sums)
    first, last = np.where(falls, ~high, low), np.where(falls, ~low, high)
    found = lambda sums: codes(flip(sums)[None])[0]
    sums = [_first_at(found, level, first, last) for level in integers[1:]]
    rises = tuple(np.diff(integers).tolist())
    return Steps(int(integers[0]), rises, np.array(sums, np.int32), -falls.astype(np.int32))


def _first_at(found: Callable[[np.ndarray], np.ndarray], level: int, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The smallest s in [low, high] at which the output has reached a level, END if it does at none."""
    low, high = low.copy(), high + 1
    end = high.copy()
    while (low < high).any():
        middle = low + (high - low) // 2
        hit = (found(np.minimum(middle, end - 1)) >= level) & (middle < end)
        high, low = np.where(hit, middle, high), np.where(hit, low, np.minimum(middle + 1, high))
    return np.where(low == end, END, low)
