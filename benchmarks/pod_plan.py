"""Throughput and cost of training on ImageNet that pods promise: arithmetic, nothing is run on them.

    python benchmarks/pod_plan.py [--epochs 90] [--activation_bytes 4] [--slices FILE] [--write docs/pod.md]

A step takes max(device + all-reduce, host input); see docs/pod.md for the formulas and where each input is from. Every
assumption is an option. ``--slices``: a JSON list of objects with the fields of `Slice` below, instead of those here.
``--write`` replaces what stands between the two marks of the file.
"""

import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from plq.cli.common import arguments, run
from plq.errors import UserError
from plq.layers.factory import QuantConfig
from plq.models.registry import Architecture

MARKS = ("<!-- written by benchmarks/pod_plan.py -->", "<!-- to here -->")
IMAGES = 1_281_167  # in ImageNet's training set


@dataclasses.dataclass(frozen=True)
class Slice:
    """What is rented. Of one chip: FLOP/s of bfloat16 products, bytes/s and gigabytes of its memory."""

    name: str
    chips: int
    flops: float
    memory_bandwidth: float
    memory_gb: float
    chips_per_host: int
    cores_per_host: int
    allreduce_bandwidth: float  # bytes/s into and out of a chip, that an all-reduce gets
    allreduce_latency: float  # s, of one that carries next to nothing
    batches_per_chip: Sequence[int]  # sizes to look at
    usd_per_hour: float  # of all chips


V5E = {"flops": 197e12, "memory_bandwidth": 819e9, "memory_gb": 16.0, "allreduce_bandwidth": 2 * 45e9}
SLICES = (
    Slice("v5e-8", 8, **V5E, chips_per_host=8, cores_per_host=112, allreduce_latency=8e-6,
          batches_per_chip=(32, 64), usd_per_hour=8 * 1.2),
    Slice("v5e-64", 64, **V5E, chips_per_host=4, cores_per_host=56, allreduce_latency=28e-6,
          batches_per_chip=(4, 64), usd_per_hour=64 * 1.2),
    Slice("8 x H100", 8, 989e12, 3.35e12, 80.0, chips_per_host=8, cores_per_host=96, allreduce_bandwidth=150e9,
          allreduce_latency=20e-6, batches_per_chip=(32, 256), usd_per_hour=55.04),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Assumptions:
    """What holds for all slices."""

    activation_bytes: float = 4.0  # float32 between convolutions
    passes: float = 14.0  # of the memory over each activation, forward and backward
    parameter_bytes: float = 20.0  # read and written per parameter: weight, gradient, momentum
    kept_copies: float = 2.0  # of each activation, from forward to backward
    roofline_share: float = 0.64  # of the device's limit that a good program reaches
    allreduces_per_norm: float = 2.0
    images_per_core_second: float = 560.0
    threads: int = 64  # that decode on one host
    branch_share: float = 0.25  # of the run, factor.end
    epochs: float = 90.0


@dataclasses.dataclass(frozen=True)
class Network:
    """Counts of one network, plain or with its branches; per image where that matters."""

    name: str
    parameters: int
    products: int  # multiply-adds of a forward pass
    activations: int  # outputs of all convolutions
    norms: int


@functools.cache
def network(name: str, expanded: bool) -> Network:
    """Read off the network itself, at 224x224 and 1,000 classes."""
    architecture = Architecture(name, 1000, QuantConfig(weight_bits=4, activation_bits=4))
    module = architecture.expanded("add", 1.0) if expanded else architecture.plain()
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    jaxpr, shapes = jax.make_jaxpr(module.init, return_shape=True)(jax.random.key(0), image)
    equations = list(_equations(jaxpr.jaxpr))
    convolutions = [equation for equation in equations if equation.primitive.name == "conv_general_dilated"]
    return Network(
        name,
        sum(leaf.size for kind in ("params", "ancillary") for leaf in jax.tree.leaves(shapes.get(kind, {}))),
        sum(map(_products, equations)),
        sum(equation.outvars[0].aval.size for equation in convolutions),
        len(jax.tree.leaves([value for kind, value in shapes.items() if kind.endswith("stats")])) // 2,
    )


def _equations(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda leaf: hasattr(leaf, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


def _products(equation: Any) -> int:
    """Multiply-adds of a convolution or a matrix product; 0 for everything else."""
    name = equation.primitive.name
    if name not in ("conv_general_dilated", "dot_general"):
        return 0
    output, kernel = equation.outvars[0].aval, equation.invars[1].aval
    axis = equation.params["dimension_numbers"].rhs_spec[0] if name == "conv_general_dilated" else -1
    return output.size * kernel.size // kernel.shape[axis]


@dataclasses.dataclass(frozen=True)
class Step:
    """Seconds of one training step, by what they are spent on."""

    compute: float
    memory: float
    allreduce: float
    host_input: float
    roofline_share: float

    @property
    def device(self) -> float:
        return max(self.compute, self.memory) / self.roofline_share

    @property
    def seconds(self) -> float:
        return max(self.device + self.allreduce, self.host_input)

    @property
    def limit(self) -> str:
        """What takes the longest."""
        device = "compute" if self.compute > self.memory else "memory"
        spent = {device: self.device, "all-reduce": self.allreduce}
        if self.host_input >= self.device + self.allreduce:
            return "host input"
        return max(spent, key=lambda name: spent[name])


def step(net: Network, where: Slice, batch: int, given: Assumptions) -> Step:
    """One step with ``batch`` images on each chip."""
    moved = given.passes * given.activation_bytes * net.activations * batch + given.parameter_bytes * net.parameters
    ring = 2 * (where.chips - 1) / where.chips * 4 * net.parameters / where.allreduce_bandwidth
    rate = min(given.threads, where.cores_per_host) * given.images_per_core_second
    return Step(
        compute=3 * 2 * net.products * batch / where.flops,
        memory=moved / where.memory_bandwidth,
        allreduce=ring + (given.allreduces_per_norm * net.norms + 1) * where.allreduce_latency,
        host_input=batch * where.chips_per_host / rate,
        roofline_share=given.roofline_share,
    )


def memory_gb(net: Network, batch: int, given: Assumptions) -> float:
    """What a chip must hold: activations kept for the backward pass; weight, gradient and momentum in float32."""
    return (given.kept_copies * given.activation_bytes * net.activations * batch + 12 * net.parameters) / 1e9


def row(plain: Network, expanded: Network, where: Slice, batch: int, given: Assumptions) -> str:
    """One line of the table; hours and dollars are of the whole run, with the branch for its first part."""
    after, before = step(plain, where, batch, given), step(expanded, where, batch, given)
    mean = given.branch_share * before.seconds + (1 - given.branch_share) * after.seconds
    whole = batch * where.chips
    hours = given.epochs * IMAGES / whole * mean / 3600
    times = (after.compute, after.memory, after.device, after.allreduce, after.host_input, after.seconds)
    needed = memory_gb(expanded, batch, given)
    cells = [
        *(plain.name, where.name, f"{whole:,}", *(f"{1000 * time:.2f}" for time in times), after.limit),
        *(f"{whole / after.seconds:,.0f}", f"{1000 * before.seconds:.2f}"),
        f"{needed:.1f} of {where.memory_gb:.0f}" + ("" if needed < where.memory_gb else ", too much"),
        *(f"{hours:.2f}", f"{hours * where.usd_per_hour:.0f}"),
    ]
    return f"| {' | '.join(cells)} |"


HEADER = [
    *(
        "network",
        "slice",
        "batch",
        "compute, ms",
        "memory, ms",
        "device, ms",
        "all-reduce, ms",
        "input, ms",
        "step, ms",
    ),
    *("limit", "images/s", "step with branch, ms", "memory, GB", "run, h", "run, USD"),
]


def worked(net: Network, where: Slice, batch: int, given: Assumptions) -> str:
    """The arithmetic of one step, in numbers."""
    found = step(net, where, batch, given)
    ms = lambda seconds: f"{1000 * seconds:.2f} ms"
    per_image, per_parameter = f"{given.passes:g} x {given.activation_bytes:g} B", f"{given.parameter_bytes:g} B"
    moved = f"{per_image} x {net.activations:,} x {batch} + {per_parameter} x {net.parameters:,}"
    ring = f"2 x {where.chips - 1}/{where.chips} x 4 B x {net.parameters:,} / {where.allreduce_bandwidth:.3g} B/s"
    small = f"({given.allreduces_per_norm:g} x {net.norms} + 1) x {1e6 * where.allreduce_latency:.3g} us"
    cores = min(given.threads, where.cores_per_host)
    rate = f"({cores} x {given.images_per_core_second:g} images/s)"
    return f"""{net.name}, {where.name}, {batch} images per chip, without the branch:

    compute     3 x 2 x {net.products:,} x {batch} / {where.flops:.3g} FLOP/s = {ms(found.compute)}
    memory      ({moved}) / {where.memory_bandwidth:.3g} B/s = {ms(found.memory)}
    device      max({ms(found.compute)}, {ms(found.memory)}) / {given.roofline_share:g} = {ms(found.device)}
    all-reduce  {ring} + {small} = {ms(found.allreduce)}
    input       {batch} x {where.chips_per_host} images / {rate} = {ms(found.host_input)}
    step        max({ms(found.device)} + {ms(found.allreduce)}, {ms(found.host_input)}) = {ms(found.seconds)}
    images/s    {batch} x {where.chips} / {ms(found.seconds)} = {batch * where.chips / found.seconds:,.0f}"""


def counts(nets: list[Network]) -> list[str]:
    """A table of the networks: plain and expanded in turn."""
    lines = ["| network | parameters | multiply-adds | activations | batch norms |", "|---|---|---|---|---|"]
    for net, what in zip(nets, ("", ", with branches") * (len(nets) // 2), strict=True):
        millions = f"{net.parameters / 1e6:.2f} M | {net.products / 1e9:.2f} G | {net.activations / 1e6:.2f} M"
        lines.append(f"| {net.name}{what} | {millions} | {net.norms} |")
    return lines


def plan(slices: Sequence[Slice], given: Assumptions) -> str:
    """Markdown: counts of the networks, each network on each slice, and one row's arithmetic."""
    pairs = [(network(name, False), network(name, True)) for name in ("resnet18", "resnet50")]
    lines = [*counts([net for pair in pairs for net in pair]), ""]
    lines += [f"| {' | '.join(HEADER)} |", "|" + "---|" * len(HEADER)]
    for pair in pairs:
        for where in slices:
            lines += [row(*pair, where, batch, given) for batch in where.batches_per_chip]
    return "\n".join([*lines, "", worked(pairs[1][0], slices[-1], slices[-1].batches_per_chip[-1], given)])


def read_slices(path: Path) -> Sequence[Slice]:
    """Raises UserError for what is not a list of slices."""
    try:
        return [Slice(**one) for one in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"--slices {path}: allowed a JSON list of slices ({error})") from error


def write(path: Path, text: str) -> None:
    """Put the text between the marks of the file."""
    before, _, rest = path.read_text().partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    path.write_text(f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{after}")


def main() -> None:
    parser = arguments("benchmarks.pod_plan", (__doc__ or "").splitlines()[0])
    for field in dataclasses.fields(Assumptions):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    parser.add_argument("--slices", type=Path)
    parser.add_argument("--write", type=Path)
    given = vars(parser.parse_args())
    slices, target = given.pop("slices"), given.pop("write")
    for name, value in given.items():
        if not value > 0:
            raise UserError(f"--{name} {value}: allowed above 0")
    text = plan(read_slices(slices) if slices else SLICES, Assumptions(**given))
    print(text)
    if target:
        write(target, text)


if __name__ == "__main__":
    run(main)
