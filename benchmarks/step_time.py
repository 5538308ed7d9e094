"""Time of a training step: float, low-precision, expanded, and after removal, in one run.

    python benchmarks/step_time.py [--width 0.25] [--batch_size 128] [--repeats 7] [--steps 10] [--merge add]

The SVHN network on scikit-learn's digits, DoReFa 1/2. All variants take turns in every repeat, so a slow moment
of the machine hits them alike; figures are medians of ratios to the low-precision step of the same repeat, with
the smallest and the largest. Compilation and evaluation are not counted. The last rows are whole runs of
``4 * steps`` steps: plain, and EXP-Net with f = 0 from a quarter of it on.
"""

import argparse
import dataclasses
import platform
import statistics
import time

import jax

from plq.config.load import default, settings
from plq.trainer.setup import Setup, assemble


def setup(given: argparse.Namespace, **fields) -> Setup:
    """A run of 4 * steps steps; f is 0 from a quarter of them on, unless it is constant."""
    config = default()
    config.data.name, config.data.image_size, config.data.batch_size = "digits", 40, given.batch_size
    config.model.width, config.model.dropout, config.expansion.merge = given.width, 0.0, given.merge
    config.quant.dtype, config.mesh.data = given.dtype, 1
    for name, value in fields.items():
        section, field = name.split("__")
        config[section][field] = value
    built = assemble(settings(config))
    train = dataclasses.replace(built.settings.train, epochs=4 * given.steps / built.epoch_steps)
    return dataclasses.replace(built, settings=dataclasses.replace(built.settings, train=train))


def plain(given, **fields):
    return setup(given, factor__name="constant", **fields)


def start(run: Setup, at: int):
    """The state from which steps are timed, compiled for. ``at``: the step it stands at."""
    state = run.pruned(run.initial_state(), at)
    return jax.block_until_ready(run.step(state, *run.batch(0)))


def seconds(run: Setup, state, steps: range):
    """Time of these steps, and the state after them."""
    batches = [run.batch(step) for step in steps]
    jax.block_until_ready((state, batches))
    begin = time.perf_counter()
    for step, batch in zip(steps, batches, strict=True):
        state = run.step(run.pruned(state, step), *batch)
    jax.block_until_ready(state)
    return time.perf_counter() - begin, state


def row(name: str, times: list[float], base: list[float], steps: int) -> str:
    ratios = sorted(mine / other for mine, other in zip(times, base, strict=True))
    milliseconds = 1000 * statistics.median(times) / steps
    return f"| {name} | {milliseconds:.1f} | {statistics.median(ratios):.2f} | {ratios[0]:.2f} to {ratios[-1]:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--merge", default="add")
    parser.add_argument("--dtype", default="float32")
    given = parser.parse_args()
    exp_net = setup(given)
    end = 4 * given.steps
    variants = {  # name: run, step at which it starts, steps that are timed
        "float": (plain(given, quant__weight_bits=32, quant__activation_bits=32), 0, range(given.steps)),
        "low-precision": (plain(given), 0, range(given.steps)),
        "expanded": (setup(given, factor__name="constant", factor__value=1.0), 0, range(given.steps)),
        "after removal": (exp_net, given.steps, range(given.steps, 2 * given.steps)),
        "whole run, plain": (plain(given), 0, range(end)),
        "whole run, EXP-Net, f = 0 from a quarter": (exp_net, 0, range(end)),
    }
    for run, at, _ in variants.values():
        start(run, at)
    start(exp_net, end)
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(given.repeats):
        for name, (run, at, steps) in variants.items():
            times[name].append(seconds(run, start(run, at), steps)[0])
    device = jax.devices()[0]
    print(f"{device.device_kind} ({platform.machine()}), jax {jax.__version__}, width {given.width},")
    print(f"batch {given.batch_size}, {given.dtype}, {given.merge}, {given.repeats} repeats of {given.steps} steps\n")
    print("| step | ms (median) | ratio (median) | ratio (range) |\n|---|---|---|---|")
    for name, measured in times.items():
        base = times["whole run, plain" if name.startswith("whole") else "low-precision"]
        print(row(name, measured, base, len(variants[name][2])))


if __name__ == "__main__":
    main()
