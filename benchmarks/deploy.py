"""Latency of a few-bit network where it is served, against the same network in float, in one run.

    python benchmarks/deploy.py --threads 1 [--network svhn] [--width 1.0] [--weights dorefa] [--weight_bits 1]
        [--activations clip] [--activation_bits 2] [--first_bits 32] [--last_bits 32] [--size 40] [--batches 1 64]
        [--repeats 9] [--fast]

From uint8 pixels to logits, weights as initialized; time depends on them by one thing alone, in which layers a step
would be misplaced. `plq.exporters` makes both ONNX files, the float one from the network without quantization. All
variants take turns in every repeat, so that a slow moment of the machine hits them alike; ratios are taken within a
repeat: how many times as fast as float ONNX Runtime. The process is bound to as many cores as there are threads.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
import onnxruntime

from plq.exporters.c.engine import native
from plq.exporters.formats import export_onnx
from plq.exporters.running import onnx_session
from plq.layers.factory import QuantConfig
from plq.models.registry import Architecture
from plq.runtime.freezing import freeze_model
from plq.runtime.frozen import FrozenModel, from_frozen
from plq.runtime.stripped_model import Model

CLASSES = 10


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--network", default="svhn")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--weights", default="dorefa")
    parser.add_argument("--weight_bits", type=int, default=1)
    parser.add_argument("--activations", default="clip")
    parser.add_argument("--activation_bits", type=int, default=2)
    parser.add_argument("--first_bits", type=int, default=32)
    parser.add_argument("--last_bits", type=int, default=32)
    parser.add_argument("--size", type=int, default=40)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--fast", action="store_true", help="as in plq.exporters")
    return parser.parse_args()


def model(given: argparse.Namespace, precision: QuantConfig) -> Model:
    """The network with fresh weights, as it would be loaded from a stripped model; each learned scale another one."""
    network = Architecture(given.network, CLASSES, precision, given.width).plain()
    shape = (given.size, given.size, 3)
    variables = jax.jit(network.init)(jax.random.key(0), np.zeros((1, *shape), np.float32))
    generator = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: leaf * (1 + 0.1 * generator.random()) if leaf.ndim == 0 else leaf, variables)
    names = tuple(map(str, range(CLASSES)))
    return Model(network, variables, shape, (0.0,), (256.0,), names, "square", {})


def session(model: FrozenModel, threads: int, fast: bool = False) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """ONNX Runtime on our export of a model, and how many layers it computes on integers."""
    export = export_onnx(model, preprocessing=True, fast=fast)
    run = onnx_session(export.data, threads)
    return lambda images: run.run(None, {"image": images})[0], export.notes[-1]


def seconds(function: Callable[[np.ndarray], object], images: np.ndarray, runs: int) -> float:
    """Of one call, the mean over ``runs``."""
    begin = time.perf_counter()
    for _ in range(runs):
        jax.block_until_ready(function(images))
    return (time.perf_counter() - begin) / runs


def table(given: argparse.Namespace, variants: dict[str, Callable], batch: int) -> None:
    """Measure and print a table for one batch size."""
    images = np.random.default_rng(0).integers(0, 256, (batch, given.size, given.size, 3), np.uint8)
    runs = {name: max(1, round(0.3 / max(1e-6, _warm(function, images)))) for name, function in variants.items()}
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(given.repeats):
        for name, function in variants.items():
            times[name].append(seconds(function, images, runs[name]))
    base = times["float, ONNX Runtime"]
    print(f"\n| batch {batch} | ms (median) | ms (range) | times as fast (median) | (range) |\n|---|---|---|---|---|")
    for name, measured in times.items():
        ratios = sorted(other / mine for mine, other in zip(measured, base, strict=True))
        ms = sorted(1000 * value for value in measured)
        spread = f"{ms[0]:.2f} to {ms[-1]:.2f} | {statistics.median(ratios):.2f} | {ratios[0]:.2f} to {ratios[-1]:.2f}"
        print(f"| {name} | {statistics.median(ms):.2f} | {spread} |")


def _warm(function: Callable, images: np.ndarray) -> float:
    """Seconds of a call after compilation."""
    seconds(function, images, 2)
    return seconds(function, images, 1)


def cpu() -> str:
    """Its name and the instructions that matter."""
    with open("/proc/cpuinfo") as file:
        lines = dict(line.split(":", 1) for line in file if ":" in line)
    fields = {name.strip(): value.strip() for name, value in lines.items()}
    flags = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni") if flag in fields["flags"].split()]
    hidden = f"; {os.environ['HIDE']} hidden by hide_vnni.c" if "HIDE" in os.environ else ""
    return f"{fields['model name']} ({', '.join(flags)}{hidden})"


def main() -> None:
    given = arguments()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.threads])
    jax.config.update("jax_platforms", "cpu")
    edges = {"first_bits": given.first_bits, "last_bits": given.last_bits}
    few = model(given, QuantConfig(given.weights, given.weight_bits, given.activations, given.activation_bits, **edges))
    full = model(given, QuantConfig(given.weights, 32, given.activations, 32))
    frozen = from_frozen(freeze_model(few))
    exported, integers = session(frozen, given.threads, given.fast)
    variants = {
        "float, ONNX Runtime": session(from_frozen(freeze_model(full)), given.threads)[0],
        "exported ONNX, ONNX Runtime": exported,
        "native C": native(frozen.frozen, given.threads),
        "frozen, JAX": frozen,
        "float, JAX": full,
    }
    print(f"{cpu()}, {given.threads} thread(s), onnxruntime {onnxruntime.__version__}, jax {jax.__version__}")
    bits = f"{given.weights} {given.weight_bits} / {given.activations} {given.activation_bits} bits"
    bits += f", first {given.first_bits}, last {given.last_bits}"
    print(f"{given.network}, width {given.width}, {bits}, {given.size}x{given.size}x3; {integers}")
    for batch in given.batches:
        table(given, variants, batch)


if __name__ == "__main__":
    main()
