"""The text of NAME.c: kernels, weights, and the graph as straight code.

What is taken from the model are numbers, and names of layers in comments, whose alphabet `Graph.check` holds to letters,
digits, "._-" and "/". All identifiers are made here.
"""

import dataclasses
from importlib import resources

import numpy as np

from plq.export.c import chain
from plq.export.c.families import DEPTHWISE, LUT, REAL, WIDE
from plq.export.c.memory import Buffer, place
from plq.export.c.plan import BYTES, INTEGERS, PIXELS, REALS, Plan, Stage, Store, window_of
from plq.export.c.product import Part, Ready, ready
from plq.export.c.text import array, structure
from plq.frozen.graph import IMAGE, Graph
from plq.frozen.nodes import Activation, GlobalMean, Normalize, Product, Shrink

TYPES = {PIXELS: "uint8_t", BYTES: "uint8_t", INTEGERS: "int32_t", REALS: "float"}
SUFFIX = {BYTES: "bytes", INTEGERS: "integers", REALS: "reals"}
KINDS = {REALS: 0, BYTES: 1, PIXELS: 2, INTEGERS: 4}


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer, for a table: the kernel that computes it, multiply-adds, bytes of weights."""

    name: str
    family: str
    macs: int
    bytes: int


class Source:
    """Writes a planned graph. ``text``: NAME.c. ``workspace``, ``flash``: bytes. ``rows``: of the layers."""

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph, self.name, self.plan = graph, name, Plan(graph)
        self.parts: list[str] = []
        self.rows: list[Row] = []
        self.flash = 0
        self._arrays: dict[str, str] = {}
        self._scratch: list[int] = []
        self._used = {"real", "image", "compare"}
        self._reals: dict[str, str] = {}
        self.ready = [ready(self.plan, s) if isinstance(s.node, Product) else None for s in self.plan.stages]
        calls = [self._stage(index, stage) for index, stage in enumerate(self.plan.stages)]
        self.offsets, bytes_used = place(self._buffers())
        self.workspace = bytes_used + 63  # to align it
        self.text = self._whole(calls)

    # Arrays and expressions

    def array(self, values: np.ndarray, name: str) -> str:
        """The name of a constant array, written down once."""
        if name not in self._arrays:
            self._arrays[name] = f"a{len(self._arrays)}"
            self.flash += values.nbytes
            self.parts.append(array(self._arrays[name], np.ascontiguousarray(values.reshape(-1))))
        return self._arrays[name]

    def tensor(self, name: str) -> str:
        """The name of a tensor of the graph."""
        return self.array(self.graph.tensors[name], f"tensor {name}")

    def element(self, store: Store, x: str) -> str:
        """The real numbers that stand at f of a value; "@" as in `chain.c_steps`."""
        if store.kind == REALS:
            return f"@load({x} + f)"
        if store.kind == PIXELS:
            channels = self.graph.image_shape[2]
            mean, std = (self.array(np.broadcast_to(both, (channels,)), role) for both, role in self._normalization())
            return f"@div(@add(@from_bytes({x} + f, 0), @load({mean} + f)), @load({std} + f))"
        numbers = f"@from_bytes({x} + f, {store.base})" if store.kind == BYTES else f"@from_integers({x} + f)"
        return f"@mul({numbers}, @all({chain.c_float(store.scale)}))"

    def _normalization(self) -> list[tuple[np.ndarray, str]]:
        """What is added to pixels, and what they are divided by then."""
        node = self.graph.nodes[0]
        assert isinstance(node, Normalize)
        return [(-np.array(node.mean, np.float32), "minus mean"), (np.array(node.std, np.float32), "std")]

    def reals(self, name: str) -> str:
        """The `struct reals` that tells how a value is read."""
        if name not in self._reals:
            store = self.plan.stores[name]
            table, shared = "NULL", 0
            if store.kind == PIXELS:
                (minus, _), (std, _) = self._normalization()
                normalized = (np.arange(256, dtype=np.float32)[:, None] + minus) / std
                table, shared = self.array(normalized.T, "normalized"), int(normalized.shape[1] == 1)
            self._reals[name] = f"r{len(self._reals)}"
            fields = [str(KINDS[store.kind]), str(store.base), str(shared), chain.c_float(store.scale), table]
            self.parts.append(structure("reals", self._reals[name], fields))
        return self._reals[name]

    # Stages

    def _stage(self, index: int, stage: Stage) -> list[str]:
        """Write what a stage needs. Returns the call, in pieces: function and arguments, values as {name|type}."""
        made = self.ready[index]
        if made is not None:
            return self._product(index, made)
        self._scratch.append(0)
        given, out = self.plan.stores[stage.input], self.plan.stores[stage.output]
        if stage.node is None:
            return self._elements(index, stage)
        if isinstance(stage.node, GlobalMean):
            height, width, channels = self.graph.values[stage.node.inputs[0]].shape
            share = chain.c_float(float(np.float32(1 / (height * width))))
            pitch = channels * {PIXELS: 1, BYTES: 1}.get(given.kind, 4)
            return [f"mean_pixels({{{stage.input}}}, &{self.reals(stage.input)}, {pitch}, {{{stage.output}|float}}, "
                    f"{height * width}, {channels}, {share});"]  # fmt: skip
        kind = TYPES[out.kind]
        both = f"{{{stage.input}|const {kind}}}, {{{stage.output}|{kind}}}"
        height, width, channels = given.shape
        out_height, out_width, out_channels = out.shape
        if isinstance(stage.node, Shrink):
            zero = "0.0f" if out.kind == REALS else str(-out.base)
            numbers = [width, channels, stage.node.stride, (out_channels - channels) // 2, *out.shape]
            return [f"shrink_{SUFFIX[out.kind]}({both}, {', '.join(map(str, numbers))}, {zero});"]
        numbers = [height, width, channels, *window_of(stage.node), out_height, out_width]  # type: ignore[arg-type]
        return [f"pool_{SUFFIX[out.kind]}({both}, {', '.join(map(str, numbers))});"]

    def _others(self, stage: Stage) -> list[str]:
        """The values that the steps of a stage add, each once."""
        return list(dict.fromkeys(step.other for step in stage.steps if step.other))

    def _elements(self, index: int, stage: Stage) -> list[str]:
        given, channels = self.plan.stores[stage.input], self.plan.stores[stage.output].shape[-1]
        pixels = int(np.prod(self.plan.stores[stage.output].shape[:-1]))
        first = self.element(given, "x")
        self._finish(index, stage, TYPES[given.kind], [f"@real v = {first};"], channels, channels, channels)
        arguments = [f"{{{stage.input}|const {TYPES[given.kind]}}}", f"{{{stage.output}|{self._type(stage.output)}}}"]
        return [f"finish{index}({', '.join([*arguments, str(pixels), *self._other_arguments(stage)])});"]

    def _other_arguments(self, stage: Stage) -> list[str]:
        return [f"{{{name}|const {self._type(name)}}}" for name in self._others(stage)]

    def _type(self, name: str) -> str:
        return TYPES[self.plan.stores[name].kind]

    def _finish(
        self, index: int, stage: Stage, kind: str, first: list[str], width: int, pitch: int, step: int, more: str = ""
    ) -> None:
        """The function that takes sums, or the elements of a value, to what is stored.

        Args:
            kind: C type of what is read as ``x``. first: lines that begin with it. width: channels that are computed.
            pitch: from one pixel of ``x`` to the next. step: from one pixel of the result to the next.
        """
        out, others = self.plan.stores[stage.output], self._others(stage)
        places = {name: f"o{place}" for place, name in enumerate(others)}
        name = (lambda tensor: f"({self.tensor(tensor)} + first)") if more else self.tensor
        lines = chain.c_steps(
            stage.steps, name, lambda other: self.element(self.plan.stores[other], places[other]), out
        )
        parameters = [f"const {kind} *restrict x", f"{TYPES[out.kind]} *restrict y", "int pixels"]
        parameters += [f"const {self._type(other)} *{places[other]}" for other in others]
        moves = [f"x += {pitch}", f"y += {step}", *(f"{place} += {step}" for place in places.values())]
        lines = [*first, *(f"@real {name};" for name in ("gate", "level") if f"{name} = " in " ".join(lines)), *lines]
        loops = [("v_", "for (; f + LANES <= WIDTH; f += LANES)")] + [("s_", "for (; f < WIDTH; f++)")] * (width % 8 > 0)
        body = [f"    for (int p = 0; p < pixels; p++, {', '.join(moves)}) {{", "        int f = 0;"]
        for prefix, loop in loops:
            body.append(f"        {loop.replace('WIDTH', str(width))} {{")
            body += [*(f"            {line.replace('@', prefix)}" for line in lines), "        }"]
        head = f"FN void finish{index}({', '.join(parameters)}{more})"
        self.parts.append("\n".join([head, "{", *body, "    }", "}"]))

    def _product(self, index: int, made: Ready) -> list[str]:
        stage, window, family = made.stage, made.window, made.coding.family
        self._used.add(family)
        before = self.flash
        for place, part in enumerate(made.parts):
            self._part(index, place, made, part)
        shown = [f"{getattr(window, field.name)}" for field in dataclasses.fields(window)]
        self.parts.append(structure("window", f"w{index}", shown))
        width = made.node.features // made.groups
        self._product_finish(index, made, width)
        self._driver(index, made, width)
        self.rows.append(Row(made.node.name.removesuffix("/conv"), family, made.macs, self.flash - before))
        arguments = [f"{{{stage.input}}}", f"{{{stage.output}|{self._type(stage.output)}}}"]
        return [f"stage{index}({', '.join([*arguments, *self._other_arguments(stage)])}, {{scratch}});"]

    def _part(self, index: int, place: int, made: Ready, part: Part) -> None:
        name = f"{index}_{place}"
        self.array(part.weights, f"weights {name}")
        starts = self.array(np.array(part.offsets, np.int32), f"offsets {name}")
        sums = self.array(np.array(part.sums, np.int32), f"sums {name}") if part.sums else "NULL"
        numbers = [part.segments, part.length, starts, len(part.sums), sums]
        coding = made.coding
        fields = [str(field) for field in [*numbers, coding.step, coding.shift, part.limit]]
        self.parts.append(structure("part", f"p{name}", fields))

    def _grouped(self, made: Ready, values: np.ndarray, name: str) -> str:
        """A number per feature, in the places that its sums have: whole blocks for each group."""
        groups = values.reshape(made.groups, -1)
        padded = np.pad(groups, [(0, 0), (0, made.window.features - groups.shape[1])])
        return self.array(padded, name)

    def _product_finish(self, index: int, made: Ready, width: int) -> None:
        """What follows the sums: steps that they are compared with, or the operations of the network."""
        stage, window, more = made.stage, made.window, ", int first" if made.groups > 1 else ""
        at = lambda name: f"({name} + first)" if more else name
        if made.steps is not None:
            self._compared(index, made, width, more)
            return
        kind, first = "float", ["@real v = @load(x + f);"]
        if len(made.worths) == 1:
            worth = self.array(made.worths[0], f"worth {index}")
            kind, first = "int32_t", [f"@real v = @mul(@from_integers(x + f), @load({at(worth)} + f));"]
            if made.offset is not None:
                first.append(f"v = @add(v, @load({at(self.array(made.offset, f'offset {index}'))} + f));")
        self._finish(index, stage, kind, first, width, window.features, made.node.features, more)

    def _compared(self, index: int, made: Ready, width: int, more: str) -> None:
        """A function that finds codes by comparing sums with steps."""
        steps, out = made.steps, self.plan.stores[made.stage.output]
        assert steps is not None
        sums = self.array(steps.sums, f"steps {index}")
        flips = self.array(steps.flips, f"flips {index}") if steps.flips.any() else "NULL"
        count, features, lowest = len(steps.sums), made.node.features, steps.lowest - out.base
        if out.kind == BYTES and set(steps.rises) == {1}:
            self.parts.append(structure("steps", f"s{index}", [str(count), str(features), sums, flips, str(lowest)]))
            body = [f"    compare(&s{index}, x, y, pixels, {width}, {made.window.features}, {features}, "
                    f"{'first' if more else 0});"]  # fmt: skip
        else:
            body = self._compared_unevenly(index, made, width, more)
        kind = TYPES[out.kind]
        head = f"FN void finish{index}(const int32_t *restrict x, {kind} *restrict y, int pixels{more})"
        self.parts.append("\n".join([head, "{", *body, "}"]))

    def _compared_unevenly(self, index: int, made: Ready, width: int, more: str) -> list[str]:
        """The same where a step may rise by more than 1."""
        steps, out = made.steps, self.plan.stores[made.stage.output]
        assert steps is not None
        features, first = made.node.features, " + first" if more else ""
        sums, lowest = self._arrays[f"steps {index}"], chain.c_integer(steps.lowest - out.base)
        flip = f" ^ {self._arrays[f'flips {index}']}[f{first}]" if steps.flips.any() else ""
        rises = [f"(v >= {sums}[f + {place * features}{first}]) * {rise}" for place, rise in enumerate(steps.rises)]
        return [
            f"    for (int p = 0; p < pixels; p++, x += {made.window.features}, y += {features})",
            f"        for (int f = 0; f < {width}; f++) {{",
            f"            int32_t v = x[f]{flip};",
            f"            y[f] = ({TYPES[out.kind]})({' + '.join([lowest, *rises])});",
            "        }",
        ]

    def _driver(self, index: int, made: Ready, width: int) -> None:
        """The function that goes through the bands of a product."""
        window, stage, family = made.window, made.stage, made.coding.family
        given, out = self.plan.stores[stage.input], self._type(stage.output)
        others = self._others(stage)
        totals = window.line_bytes + (window.sums_bytes if len(made.parts) > 1 else 0)
        self._scratch.append(totals + window.sums_bytes)
        sums = "float" if family == REAL else "int32_t"
        parameters = ["const unsigned char *x", f"{out} *y"]
        parameters += [f"const {self._type(name)} *o{place}" for place, name in enumerate(others)]
        grouped = made.groups > 1
        rows = f"int rows = {window.out_height} - row < {window.band} ? {window.out_height} - row : {window.band};"
        head = [
            f"/* {made.node.name}: {family} */",
            f"FN void stage{index}({', '.join(parameters)}, unsigned char *scratch)",
            "{",
            f"    {sums} *sums = ({sums} *)(void *)(scratch + {window.line_bytes});",
            *([f"    float *totals = (float *)(void *)(scratch + {totals});"] if len(made.parts) > 1 else []),
            *self._how(made, given),
            *([f"    for (int g = 0; g < {made.groups}; g++)"] if grouped else []),
            f"    for (int row = 0; row < {window.out_height}; row += {window.band}) {{",
            f"        {rows}",
            f"        size_t at = (size_t)row * {window.out_width * made.node.features}"
            + (f" + (size_t)g * {width};" if grouped else ";"),
        ]
        source = f"x + g * {window.channels * window.pitch // given.shape[-1]}" if grouped else "x"
        how = f"&{self.reals(stage.input)}" if family == REAL else "&how" if family in (DEPTHWISE, WIDE) else "NULL"
        body = [f"gather(&w{index}, {family}_pack, {how}, {source}, scratch, row, rows);"]
        for place, part in enumerate(made.parts):
            body += self._multiplied(index, place, made, part)
        last = "totals" if len(made.parts) > 1 else "sums"
        more = [f", o{place} + at" for place in range(len(others))] + ([f", g * {width}"] if grouped else [])
        body.append(f"finish{index}({last}, y + at, rows * {window.out_width}{''.join(more)});")
        self.parts.append("\n".join([*head, *(f"        {line}" for line in body), "    }", "}"]))

    def _how(self, made: Ready, given: Store) -> list[str]:
        family = made.coding.family
        if family == DEPTHWISE:
            return [f"    const int how = {made.node.features // given.shape[-1]};"]
        return [f"    const int how = {1 if given.kind in (BYTES, PIXELS) else 4};"] if family == WIDE else []

    def _multiplied(self, index: int, place: int, made: Ready, part: Part) -> list[str]:
        """Sums of one part, and what is done to them before they count."""
        window, family, name = made.window, made.coding.family, f"{index}_{place}"
        weights = self._arrays[f"weights {name}"]
        if made.groups > 1:
            weights += f" + (size_t)g * {len(part.weights) // made.groups}"
        at = lambda constant: f"{constant} + g * {window.features}" if made.groups > 1 else constant
        planes = f" {int(made.coding.planes)}," if family == LUT else ""
        lines = [f"{family}_band(&w{index}, &p{name},{planes} scratch, rows, {weights}, sums);"]
        if made.bias is not None:
            bias = self._grouped(made, made.bias[place].astype(np.int32), f"bias {name}")
            lines.append(f"add_bias(sums, {at(bias)}, rows * {window.out_width}, {window.features});")
        if len(made.parts) > 1:
            worth = self._grouped(made, made.worths[place], f"worth {name}")
            lines.append(
                f"weigh(totals, sums, {at(worth)}, rows * {window.out_width}, {window.features}, {int(place == 0)});"
            )
        return lines

    # The whole

    def _buffers(self) -> list[Buffer]:
        """The values and what stages work in, each with the stages that need it."""
        stages, found = self.plan.stages, []
        for index, stage in enumerate(stages):
            if stage.output != self.plan.output:
                last = max((at for at, other in enumerate(stages) if stage.output in other.reads), default=index)
                found.append(Buffer(stage.output, self.plan.stores[stage.output].bytes, index, last))
            if self._scratch[index]:
                found.append(Buffer(f"scratch {index}", self._scratch[index], index, index))
        return found

    def _argument(self, piece: str, index: int) -> str:
        """The C expression of a value named in a call."""
        name, _, kind = piece.partition("|")
        if name == IMAGE:
            return "images"
        if name == self.plan.output:
            return "logits" if kind else "(const unsigned char *)logits"
        place = self.offsets[f"scratch {index}" if name == "scratch" else name]
        return f"({kind} *)(void *)(w + {place})" if kind else f"w + {place}"

    def _call(self, pieces: list[str], index: int) -> str:
        """A call with all values in their places."""
        text, found = pieces[0], []
        while "{" in text:
            before, _, rest = text.partition("{")
            piece, _, text = rest.partition("}")
            found += [before, self._argument(piece, index)]
        return "".join([*found, text])

    def _whole(self, calls: list[list[str]]) -> str:
        n = self.name
        kernels = ["common.h", "vector.h", *(f"{name}.c" for name in ("real", "image", "compare", "lut", "dot", "depthwise", "wide") if name in self._used)]
        body = []
        for index, (stage, call) in enumerate(zip(self.plan.stages, calls, strict=True)):
            result = self._argument(f"{stage.output}", index)
            body += [f"    {self._call(call, index)}", f"    DONE({index}, {result});"]
        return "\n\n".join([
            f'/* Written by plq. */\n#include "{n}.h"',
            f"#ifdef {n}_FREESTANDING\n#define PLQ_FREESTANDING\n#endif\n"
            f"#ifdef {n}_PORTABLE\n#define PLQ_PORTABLE\n#endif",
            *(kernel(name) for name in kernels),
            f"#ifdef {n}_PROFILE\nvoid {n}_done(int stage, const void *result);\n"
            f"#define DONE(stage, result) {n}_done(stage, result)\n#else\n#define DONE(stage, result) (void)0\n#endif",
            *self.parts,
            f"void {n}_predict(const uint8_t *images, float *logits, void *workspace)\n{{\n"
            "    unsigned char *w = (unsigned char *)workspace;\n"
            "    w += (64 - (uintptr_t)w % 64) % 64;\n" + "\n".join(body) + "\n}",
            BATCH.replace("NAME", n),
            "",
        ])  # fmt: skip


def kernel(name: str) -> str:
    """The text of one of the kernels."""
    return (resources.files("plq.export.c") / "kernels" / name).read_text().strip()


BATCH = """#ifdef _OPENMP
#include <omp.h>
#endif

void NAME_predict_batch(const uint8_t *images, float *logits, size_t count, void *workspace, int threads)
{
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static)
#else
    (void)threads;
#endif
    for (ptrdiff_t i = 0; i < (ptrdiff_t)count; i++) {
        unsigned char *own = (unsigned char *)workspace;
#ifdef _OPENMP
        own += (size_t)omp_get_thread_num() * NAME_WORKSPACE_BYTES;
#endif
        NAME_predict(images + (size_t)i * (NAME_HEIGHT * NAME_WIDTH * NAME_CHANNELS), logits + i * NAME_CLASSES, own);
    }
}"""


def header(graph: Graph, name: str, workspace: int) -> str:
    """The text of NAME.h."""
    height, width, channels = graph.image_shape
    classes = graph.values[graph.output].shape[0]
    sizes = {"HEIGHT": height, "WIDTH": width, "CHANNELS": channels, "CLASSES": classes, "WORKSPACE_BYTES": workspace}
    defines = "\n".join(f"#define {name}_{field} {value}" for field, value in sizes.items())
    return HEADER.replace("DEFINES", defines).replace("NAME", name)


HEADER = """/* Written by plq. */
#ifndef NAME_H
#define NAME_H

#include <stddef.h>
#include <stdint.h>

DEFINES

#ifdef __cplusplus
extern "C" {
#endif

/* Logits of one image, [height][width][channels], red first. Works in `workspace`, NAME_WORKSPACE_BYTES of any alignment,
   and keeps nothing there. */
void NAME_predict(const uint8_t *images, float *logits, void *workspace);

/* The same for `count` images one after the other. With OpenMP `threads` of them at once; the workspace is then as many
   times as large. */
void NAME_predict_batch(const uint8_t *images, float *logits, size_t count, void *workspace, int threads);

#ifdef __cplusplus
}
#endif

#endif
"""


