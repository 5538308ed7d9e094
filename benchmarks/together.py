"""k trainings as one program against k programs one after another: time and memory of a step.

    python benchmarks/together.py [--width 0.125] [--batch_size 128] [--lanes 2 4] [--repeats 5] [--steps 5]

The SVHN network on scikit-learn's digits, DoReFa 1/2, with its branch: half of the lanes with f = 1, half with f = 0,
a seed for every two (as `plq.compare --together` runs them). Single and joint steps take turns in every repeat, so a
slow moment of the machine hits both alike; figures are medians over repeats, ratios within a repeat. Memory is XLA's
own figure for the compiled step, arguments and temporaries: of one training for "single", of all k for "together".
"""

import argparse
import dataclasses
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plq.config.load import default, settings
from plq.train.step import train_step
from plq.train.vmapped import VmappedRuns
from plq.trainer.setup import Setup, assemble


def setup(given: argparse.Namespace) -> Setup:
    config = default()
    config.data.name, config.data.image_size, config.data.batch_size = "digits", 40, given.batch_size
    config.model.width, config.model.dropout, config.mesh.data = given.width, 0.0, 1
    config.factor.name, config.factor.value = "constant", 1.0
    return assemble(settings(config))


@dataclasses.dataclass
class Way:
    """A compiled step, its state, and what compiling took; k trainings advance with each call."""

    compiled: Any
    arguments: tuple[Any, ...]
    state: Any
    compiling: float

    def seconds(self, steps: int) -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            self.state = self.compiled(self.state, *self.arguments)
        jax.block_until_ready(self.state)
        return time.perf_counter() - begin

    def megabytes(self) -> float:
        found = self.compiled.memory_analysis()
        return (found.argument_size_in_bytes + found.temp_size_in_bytes) / 2**20


def way(step: Callable[..., Any], state: Any, *arguments: Any) -> Way:
    begin = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=(0,)).lower(state, *arguments).compile()
    return Way(compiled, arguments, jax.tree.map(jnp.copy, state), time.perf_counter() - begin)


def ways(run: Setup, k: int) -> dict[str, Way]:
    state, (images, labels) = run.initial_state(), run.batch(0)
    lanes = VmappedRuns(run.task, np.arange(k, dtype=np.int32) // 2, np.arange(k, dtype=np.float32) % 2)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * k), (state, images, labels))
    return {
        "single": way(lambda *given: train_step(run.task, *given), state, images, labels),
        "together": way(lanes.step, *stacked),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=float, default=0.125)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--lanes", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    given = parser.parse_args()
    run, device = setup(given), jax.devices()[0]
    print(f"{device.device_kind} ({platform.machine()}), jax {jax.__version__}, width {given.width},")
    print(f"batch {given.batch_size}, {given.repeats} repeats of {given.steps} steps\n")
    print("| k | way | ms per step and training | ratio to single (range) | MiB | compiling, s |")
    print("|---|---|---|---|---|---|")
    for k in given.lanes:
        found = ways(run, k)
        times: dict[str, list[float]] = {name: [] for name in found}
        for repeat in range(given.repeats + 1):
            for name, one in found.items():
                seconds = one.seconds(given.steps) / (1 if name == "single" else k)
                if repeat:  # the first warms up
                    times[name].append(seconds / given.steps)
        for name, measured in times.items():
            ratios = sorted(mine / other for mine, other in zip(measured, times["single"], strict=True))
            spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            cells = [k, name, f"{1000 * statistics.median(measured):.1f}", spread]
            print(f"| {' | '.join(map(str, cells))} | {found[name].megabytes():.0f} | {found[name].compiling:.1f} |")


if __name__ == "__main__":
    main()
