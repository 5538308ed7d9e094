"""Depthwise convolutions as `plq.layers.depthwise` has them, against XLA's own, in one process of one core.

    python benchmarks/depthwise.py [--repeats 9] [--batch 64]

3x3 layers alone, forward and with both gradients, then a training step of a plain MobileNet v1 at a quarter of its
width, 4/4, 64x64 pixels. Both ways take turns within a repeat, and a ratio is one within a repeat.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from plq.checkpoint.prune import prune
from plq.data.augment import Augmentation
from plq.layers.depthwise import depthwise
from plq.layers.factory import QuantConfig
from plq.models.registry import Architecture
from plq.train.factor import FactorSchedule
from plq.train.state import init_state
from plq.train.step import TrainSpec, train_step

SHAPES = ((56, 64, 1), (28, 128, 1), (28, 128, 2), (14, 256, 1), (7, 512, 1))  # pixels, channels, stride
Way = Callable[..., Array]


def library(x: Array, kernel: Array, strides: tuple[int, ...], padding: str, dilation: None = None) -> Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    groups = x.shape[-1]
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=numbers, feature_group_count=groups)


def row(title: str, calls: dict[Way, Callable[[], object]], repeats: int) -> str:
    """One line of the table: medians in ms, and the library's time over ours."""
    times: dict[Way, list[float]] = {way: [] for way in calls}
    for repeat in range(repeats + 1):  # the first is compilation
        for way, call in calls.items():
            begin = time.perf_counter()
            jax.block_until_ready(call())
            times[way] += [1000 * (time.perf_counter() - begin)] * (repeat > 0)
    ratios = [slow / fast for slow, fast in zip(times[library], times[depthwise], strict=True)]
    medians = " | ".join(f"{statistics.median(values):.1f}" for values in times.values())
    return f"| {title} | {medians} | {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}) |"


def layer_calls(way: Way, x: Array, kernel: Array, stride: int) -> dict[str, Callable[[], object]]:
    forward = jax.jit(lambda x, kernel: way(x, kernel, (stride, stride), "SAME"))
    gradients = jax.jit(jax.grad(lambda *given: jnp.square(forward(*given)).sum(), (0, 1)))
    return {"forward": partial(forward, x, kernel), "with gradients": partial(gradients, x, kernel)}


def step_call(way: Way, batch: int) -> Callable[[], object]:
    """A training step, always from the same state, traced with ``way`` as the layers' own."""
    precision = QuantConfig(weights="dorefa", weight_bits=4, activations="clip", activation_bits=4)
    architecture, optimizer = Architecture("mobilenet_v1", 10, precision, width=0.25), optax.sgd(0.01, 0.9)
    factor = FactorSchedule("constant", 1, value=0.0)
    task = TrainSpec(architecture, "add", factor, optimizer, Augmentation(), (0.0,), (256.0,), 0.0, 0)
    images = np.random.default_rng(0).integers(0, 256, (batch, 64, 64, 3), np.uint8)
    labels = np.zeros(batch, np.int32)
    with mock.patch("plq.layers.depthwise.depthwise", way):
        state = prune(init_state(architecture, task.merge, optimizer, images.shape[1:], seed=0))
        compiled = jax.jit(partial(train_step, task)).lower(state, images, labels).compile()
    return partial(compiled, state, images, labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--batch", type=int, default=64)
    given = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    ways: tuple[Way, Way] = (library, depthwise)
    print("| | XLA's own, ms | shifts, ms | times as fast (range) |\n|---|---|---|---|", flush=True)
    for pixels, channels, stride in SHAPES:
        x = jax.random.normal(jax.random.key(0), (given.batch, pixels, pixels, channels))
        kernel = jax.random.normal(jax.random.key(1), (3, 3, 1, channels))
        calls = {way: layer_calls(way, x, kernel, stride) for way in ways}
        for what in ("forward", "with gradients"):
            title = f"{pixels}x{pixels}, {channels}, stride {stride}, {what}"
            print(row(title, {way: each[what] for way, each in calls.items()}, given.repeats), flush=True)
    title = "training step of MobileNet v1"
    print(row(title, {way: step_call(way, given.batch) for way in ways}, given.repeats), flush=True)


if __name__ == "__main__":
    main()
