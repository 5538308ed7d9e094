"""Time of a training step of ResNet-20 or -18 at 2-bit weights and activations: plq, qwix and brevitas in turns.

    pip install -e '.[benchmark]'
    BREVITAS_JIT=1 OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/step_time_resnet.py [--model resnet20] [--size 32]

Cross-entropy, SGD with momentum 0.9, batch norm, float32, first and last layer in float; the same random batch for
all. Every variant takes a few steps in each repeat, so a slow moment of the machine hits them alike. Milliseconds of
processor time of the whole process (with one thread, as above, other programs hardly change it) and of the clock;
ratios are of processor time, to plq's step (DoReFa weights, clipped activations) of the same repeat. Medians, smallest
and largest. Compilation and first steps are not counted. A library that is not installed is left out.

plq's step also counts hits and sums the loss. qwix fake-quantizes with scales from each batch; brevitas has learned
activation scales, like plq's LSQ, and is past the steps that collect statistics (BREVITAS_JIT=1 is its fast way).
"""

import argparse
import importlib.util
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from other_resnets import FlaxResNet, torch_resnet

from plq.checkpoint.prune import prune
from plq.data.augment import Augmentation
from plq.layers.factory import QuantConfig
from plq.models.registry import Architecture
from plq.train.factor import FactorSchedule
from plq.train.state import init_state
from plq.train.step import TrainSpec, train_step

CLASSES, RATE, MOMENTUM = 10, 0.01, 0.9
BASE = "plq DoReFa"
Step = Callable[[int], None]  # so many steps, and wait for the last


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def plq_steps(model: str, images: np.ndarray, labels: np.ndarray, quantizers: dict[str, Any], merge: str = "") -> Step:
    """plq's own training step; with ``merge`` the expanded network."""
    architecture = Architecture(model, CLASSES, QuantConfig(activation_bits=2, **quantizers))
    optimizer = optax.sgd(RATE, MOMENTUM)
    factor = FactorSchedule("constant", 1, value=1.0)
    task = TrainSpec(architecture, merge or "add", factor, optimizer, Augmentation(), (0.0,), (256.0,), 0.0, 0)
    state = init_state(architecture, task.merge, optimizer, images.shape[1:], seed=0)
    if not merge:
        state = prune(state)
    compiled = jax.jit(partial(train_step, task), donate_argnums=0)
    batch = jax.device_put((images, labels))

    def run(count: int) -> None:
        nonlocal state
        for _ in range(count):
            state = compiled(state, *batch)
        jax.block_until_ready(state)

    return run


def flax_steps(model: str, images: np.ndarray, labels: np.ndarray, wrap: Callable[[Any, Any], Any]) -> Step:
    """A plain Flax network, quantized by ``wrap(network, images)``, with plain optax."""
    x = jnp.asarray(images, jnp.float32) / 256
    network = wrap(FlaxResNet(model, CLASSES), x)
    optimizer = optax.sgd(RATE, MOMENTUM)
    variables = jax.jit(partial(network.init, train=True))(jax.random.key(0, impl="rbg"), x)
    params, rest = variables["params"], {name: value for name, value in variables.items() if name != "params"}
    state = params, rest, optimizer.init(params)
    batch = jax.device_put((images, labels))

    @partial(jax.jit, donate_argnums=0)
    def compiled(state, images, labels):
        params, rest, opt_state = state
        x = images.astype(jnp.float32) / 256

        def loss_of(params):
            logits, changed = network.apply({"params": params, **rest}, x, train=True, mutable=list(rest))
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), changed

        gradients, rest = jax.grad(loss_of, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), rest, opt_state

    def run(count: int) -> None:
        nonlocal state
        for _ in range(count):
            state = compiled(state, *batch)
        jax.block_until_ready(state)

    return run


def qwix_wrap(network: Any, x: Any) -> Any:
    """Fake quantization; as integers ("QT") qwix has 2 to 4 bits in a type that XLA:CPU does not multiply."""
    import qwix

    bits = {"weight_qtype": "int2", "act_qtype": "int2", "act_calibration_method": "absmax"}
    return qwix.quantize_model(network, qwix.OdmlQatProvider([qwix.QuantizationRule(module_path=".*unit.*", **bits)]))


def torch_steps(model: str, images: np.ndarray, labels: np.ndarray, layers: tuple[Any, Any] = (None, None)) -> Step:
    import torch

    network = torch_resnet(model, CLASSES, *layers).train()
    optimizer = torch.optim.SGD(network.parameters(), RATE, MOMENTUM)
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(labels.astype(np.int64))

    def run(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(network(x.float() / 256), y).backward()
            optimizer.step()

    return run


def brevitas_layers() -> tuple[Any, Any]:
    import brevitas.nn as qnn

    conv = partial(qnn.QuantConv2d, bias=False, weight_bit_width=2)
    return conv, partial(qnn.QuantReLU, bit_width=2, collect_stats_steps=1)


def variants(model: str, images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[str, Step]]:
    given = model, images, labels
    dorefa, lsq = {"weight_bits": 2}, {"weights": "lsq", "weight_bits": 2, "activations": "lsq"}
    yield BASE, plq_steps(*given, dorefa)
    yield "plq LSQ", plq_steps(*given, lsq)
    yield "plq DoReFa, expanded", plq_steps(*given, dorefa, "add")
    yield "Flax, float", flax_steps(*given, lambda network, x: network)
    if installed("qwix"):
        yield "qwix, ODML QAT", flax_steps(*given, qwix_wrap)
    if installed("torch"):
        yield "PyTorch, float", torch_steps(*given)
    if installed("brevitas"):
        yield "brevitas", torch_steps(*given, brevitas_layers())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20", choices=("resnet20", "resnet18"))
    for name, number in (("size", 32), ("batch_size", 128), ("repeats", 7), ("steps", 2)):
        parser.add_argument(f"--{name}", type=int, default=number)
    given = parser.parse_args()
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (given.batch_size, given.size, given.size, 3), np.uint8)
    labels = generator.integers(0, CLASSES, given.batch_size).astype(np.int32)
    runs: dict[str, Step] = {}
    for name, run in variants(given.model, images, labels):
        run(2)
        runs[name] = run
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(given.repeats):
        for name, run in runs.items():
            times[name].append(milliseconds(run, given.steps))
    print(f"{given.model}, batch {given.batch_size} of {given.size}x{given.size}x3, {given.repeats} repeats of")
    print(f"{given.steps} steps, Python {platform.python_version()}, jax {jax.__version__}, {jax.devices()[0]}\n")
    print("| step | processor, ms | clock, ms | ratio (median) | ratio (range) |\n|---|---|---|---|---|")
    for name, measured in times.items():
        ratios = sorted(mine[0] / other[0] for mine, other in zip(measured, times[BASE], strict=True))
        processor, clock = (statistics.median(column) for column in zip(*measured, strict=True))
        spread = f"{statistics.median(ratios):.2f} | {ratios[0]:.2f} to {ratios[-1]:.2f}"
        print(f"| {name} | {processor:.0f} | {clock:.0f} | {spread} |")


def milliseconds(run: Step, steps: int) -> tuple[float, float]:
    """Of a step: processor time and time of the clock."""
    processor, clock = time.process_time(), time.perf_counter()
    run(steps)
    return 1000 * (time.process_time() - processor) / steps, 1000 * (time.perf_counter() - clock) / steps


if __name__ == "__main__":
    main()
