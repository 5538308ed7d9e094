"""The text of NAME.c: kernels, weights, and the graph as straight code.

What is taken from the model are numbers, and names of layers in comments, whose alphabet `Graph.check` holds to
letters, digits, "._-" and "/". All identifiers are made here.
"""

import dataclasses
from importlib import resources

import numpy as np

from plq.exporters.c.arrays import array_stage
from plq.exporters.c.chain import c_float
from plq.exporters.c.constants import Constants
from plq.exporters.c.driver import Driver
from plq.exporters.c.finish import elements, others_of
from plq.exporters.c.memory import ALIGNMENT, Buffer, place
from plq.exporters.c.plan import BYTES, INTEGERS, PIXELS, REALS, Plan, Stage, window_of
from plq.exporters.c.product import Ready, ready
from plq.exporters.c.templates import BATCH, PREDICT, SWITCHES
from plq.runtime.array_nodes import ARRAY_NODES
from plq.runtime.graph import IMAGE, Graph
from plq.runtime.nodes import GlobalMean, MaxPool, MaxPool2x2, Product, ZeroPadShortcut

SUFFIX = {BYTES: "bytes", INTEGERS: "integers", REALS: "reals"}
FAMILIES = ("lut", "dot", "depthwise", "wide")
ALWAYS = ("common.h", "vector.h", "real.c", "image.c", "compare.c")


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer, for a table: the kernel that computes it, multiply-adds, bytes of its constants."""

    name: str
    family: str
    macs: int
    bytes: int


class Source:
    """A graph as C. ``text``: NAME.c. ``workspace``, ``flash``: bytes. ``rows``: its layers.

    A call of a stage is text in which {name|type} stands for a value and {scratch} for what the stage works in.
    """

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph, self.name, self.plan = graph, name, Plan(graph)
        self.constants = Constants(self.plan)
        self.rows: list[Row] = []
        self.uses_arrays = False
        self._scratch: dict[int, int] = {}
        self.ready = {s.output: ready(self.plan, s) for s in self.plan.stages if isinstance(s.node, Product)}
        self.halved = {stage.input: stage.output for stage in self.plan.stages if self._is_on_sums(stage)}
        calls = [self._stage(index, stage) for index, stage in enumerate(self.plan.stages)]
        self.offsets, used = place(self._buffers())
        self.workspace = used + ALIGNMENT - 1
        self.text = self._whole(calls)

    @property
    def flash(self) -> int:
        """Bytes of all constants."""
        return self.constants.flash

    def _is_on_sums(self, stage: Stage) -> bool:
        """Whether a stage is 2x2 max pooling that is done on the sums of a product whose codes are found by steps."""
        made = self.ready.get(stage.input)
        readers = sum(other.reads.count(stage.input) for other in self.plan.stages)
        return isinstance(stage.node, MaxPool2x2) and made is not None and made.steps is not None and readers == 1

    def _stage(self, index: int, stage: Stage) -> str:
        """Write what a stage needs. Returns its call; empty: it is a part of an earlier one."""
        if stage.input in self.halved:
            return ""
        if isinstance(stage.node, Product):
            return self._product(index, self.ready[stage.output])
        if stage.node is None:
            return self._elements(index, stage)
        if isinstance(stage.node, GlobalMean):
            return self._mean(stage)
        if isinstance(stage.node, ARRAY_NODES):
            self.uses_arrays = True
            return array_stage(self.constants, index, stage)
        out, given = self.plan.stores[stage.output], self.plan.stores[stage.input]
        kind = self.constants.type(stage.output)
        both = f"{{{stage.input}|const {kind}}}, {{{stage.output}|{kind}}}"
        height, width, channels = given.shape
        if isinstance(stage.node, ZeroPadShortcut):
            zero = "0.0f" if out.kind == REALS else str(-out.base)
            numbers = [width, channels, stage.node.stride, (out.shape[2] - channels) // 2, *out.shape]
            return f"shrink_{SUFFIX[out.kind]}({both}, {', '.join(map(str, numbers))}, {zero});"
        assert isinstance(stage.node, MaxPool2x2 | MaxPool)
        numbers = [height, width, channels, *window_of(stage.node), *out.shape[:2]]
        return f"pool_{SUFFIX[out.kind]}({both}, {', '.join(map(str, numbers))});"

    def _product(self, index: int, made: Ready) -> str:
        before = self.flash
        result = self.halved.get(made.stage.output, made.stage.output)
        driver = Driver(self.constants, index, made, result, result != made.stage.output)
        self._scratch[index] = driver.scratch
        self.rows.append(Row(made.node.name.removesuffix("/conv"), driver.family, made.macs, self.flash - before))
        written = self._written(dataclasses.replace(made.stage, output=result))
        values = [f"{{{made.stage.input}}}", *written, "{scratch}"]
        return f"stage{index}({', '.join(values)});"

    def _elements(self, index: int, stage: Stage) -> str:
        elements(self.constants, index, stage)
        pixels = int(np.prod(self.plan.stores[stage.output].shape[:-1]))
        result, *others = self._written(stage)
        given = f"{{{stage.input}|const {self.constants.type(stage.input)}}}"
        return f"finish{index}({', '.join([given, result, str(pixels), *others])});"

    def _written(self, stage: Stage) -> list[str]:
        """The result of a stage, and what is added in it, as arguments."""
        others = [f"{{{name}|const {self.constants.type(name)}}}" for name in others_of(stage)]
        return [f"{{{stage.output}|{self.constants.type(stage.output)}}}", *others]

    def _mean(self, stage: Stage) -> str:
        assert stage.node is not None
        height, width, channels = self.graph.values[stage.node.inputs[0]].shape
        pitch = channels * (1 if self.plan.stores[stage.input].kind in (BYTES, PIXELS) else 4)
        numbers = f"{height * width}, {channels}, {c_float(float(np.float32(1 / (height * width))))}"
        reals = self.constants.reals(stage.input)
        return f"mean_pixels({{{stage.input}}}, &{reals}, {pitch}, {{{stage.output}|float}}, {numbers});"

    def _buffers(self) -> list[Buffer]:
        """The values and what stages work in, each with the stages that need it."""
        stages = self.plan.stages
        found = [Buffer(f"scratch {index}", size, index, index) for index, size in self._scratch.items()]
        for index, stage in enumerate(stages):
            name = self.halved.get(stage.output, stage.output)
            if name != self.plan.output and stage.input not in self.halved:
                last = max((at for at, other in enumerate(stages) if name in other.reads), default=index)
                found.append(Buffer(name, self.plan.stores[name].bytes, index, last))
        return found

    def _argument(self, piece: str, index: int) -> str:
        """The C expression of a value in a call."""
        name, _, kind = piece.partition("|")
        if name == IMAGE:
            return "images"
        if name == self.plan.output:
            return "logits" if kind else "(const unsigned char *)logits"
        offset = self.offsets[f"scratch {index}" if name == "scratch" else name]
        return f"({kind} *)(void *)(w + {offset})" if kind else f"w + {offset}"

    def _call(self, text: str, index: int) -> str:
        """A call with all values in their places."""
        found = []
        while "{" in text:
            before, _, rest = text.partition("{")
            piece, _, text = rest.partition("}")
            found += [before, self._argument(piece, index)]
        return "".join([*found, text])

    def _whole(self, calls: list[str]) -> str:
        used = {row.family for row in self.rows}
        arrays = ["functions.c"] if self.uses_arrays else []
        kernels = [*ALWAYS, *arrays, *(f"{family}.c" for family in FAMILIES if family in used)]
        body = []
        for index, (stage, call) in enumerate(zip(self.plan.stages, calls, strict=True)):
            if call:
                body.append(f"    {self._call(call, index)}")
            if stage.output not in self.halved:
                body.append(f"    DONE({index}, {self._argument(stage.output, index)});")
        own = [text.replace("NAME", self.name) for text in (SWITCHES, PREDICT.replace("BODY", "\n".join(body)), BATCH)]
        head = f'/* Written by plq. */\n#include "{self.name}.h"'
        return "\n\n".join([head, own[0], *map(kernel, kernels), *self.constants.parts, *own[1:]])


def kernel(name: str) -> str:
    """The text of one of the kernels."""
    return (resources.files("plq.exporters.c") / "kernels" / name).read_text().strip()
