"""The functions of NAME.c that go through the bands of a product: ``stageN``, with all that they need."""

import dataclasses

import numpy as np

from plq.exporters.c.constants import Constants
from plq.exporters.c.families import DEPTHWISE, LUT, REAL, WIDE
from plq.exporters.c.finish import others_of, sums
from plq.exporters.c.plan import BYTES, PIXELS
from plq.exporters.c.product import Part, Ready
from plq.exporters.c.text import structure


class Driver:
    """Writes the stage of one product. ``scratch``: bytes that it works in.

    ``halved``: 2x2 max pooling follows, and is done on sums: `result` is then the value behind it.
    """

    def __init__(self, constants: Constants, index: int, made: Ready, result: str, halved: bool) -> None:
        self.constants, self.index, self.made = constants, index, made
        self.result, self.halved = result, halved
        self.window, self.family = made.window, made.coding.family
        if halved:
            even = max(2, self.window.band // 2 * 2)
            self.window = dataclasses.replace(self.window, band=even)
        self.totals = self.window.line_bytes + (self.window.sums_bytes if len(made.parts) > 1 else 0)
        self.scratch = self.totals + self.window.sums_bytes
        weights = [self._part(place, part) for place, part in enumerate(made.parts)]
        shown = [str(getattr(self.window, field.name)) for field in dataclasses.fields(self.window)]
        constants.parts.append(structure("window", f"w{index}", shown))
        sums(constants, index, made, halved)
        head, body = self._head(), self._body(weights)
        constants.parts.append("\n".join([*head, *(f"        {line}" for line in body), "    }", "}"]))

    def _part(self, place: int, part: Part) -> str:
        """`struct part`, and the name of its weights."""
        name, constants, coding = f"{self.index}_{place}", self.constants, self.made.coding
        weights = constants.array(part.weights, f"weights {name}")
        starts = constants.array(np.array(part.offsets, np.int32), f"offsets {name}")
        sums = constants.array(np.array(part.sums, np.int32), f"sums {name}") if part.sums else "NULL"
        numbers = [part.segments, part.length, starts, len(part.sums), sums, coding.step, coding.shift, part.limit]
        constants.parts.append(structure("part", f"p{name}", [str(number) for number in numbers]))
        return weights

    @property
    def _grouped(self) -> bool:
        return self.made.groups > 1

    def _head(self) -> list[str]:
        """Up to the loops over groups and bands."""
        constants, made, window = self.constants, self.made, self.window
        parameters = ["const unsigned char *x", f"{constants.type(self.result)} *y"]
        parameters += [f"const {constants.type(name)} *o{place}" for place, name in enumerate(others_of(made.stage))]
        kind = "float" if self.family == REAL else "int32_t"
        height, band = window.out_height, window.band
        row, pixels = ("row", window.out_width) if not self.halved else ("(row / 2)", window.out_width // 2)
        group = f" + (size_t)g * {made.node.features // made.groups}" if self._grouped else ""
        lines = [
            f"/* {made.node.name}: {self.family} */",
            f"FN void stage{self.index}({', '.join(parameters)}, unsigned char *scratch)",
            "{",
            f"    {kind} *sums = ({kind} *)(void *)(scratch + {window.line_bytes});",
        ]
        if len(made.parts) > 1:
            lines.append(f"    float *totals = (float *)(void *)(scratch + {self.totals});")
        if self.family in (DEPTHWISE, WIDE):
            lines.append(f"    const int how = {self._how()};")
        if self._grouped:
            lines.append(f"    for (int g = 0; g < {made.groups}; g++)")
        return [
            *lines,
            f"    for (int row = 0; row < {height}; row += {band}) {{",
            f"        int rows = {height} - row < {band} ? {height} - row : {band};",
            f"        size_t at = (size_t){row} * {pixels * made.node.features}{group};",
        ]

    def _how(self) -> int:
        """What tells the packing of lines: features per channel, or bytes per number."""
        given = self.constants.plan.stores[self.made.stage.input]
        if self.family == DEPTHWISE:
            return self.made.node.features // given.shape[-1]
        return 1 if given.kind in (BYTES, PIXELS) else 4

    def _body(self, weights: list[str]) -> list[str]:
        """Of the loop over bands."""
        made, window = self.made, self.window
        given = made.stage.input
        how = "&how" if self.family in (DEPTHWISE, WIDE) else "NULL"
        if self.family == REAL:
            how = f"&{self.constants.reals(given)}"
        channels = self.constants.plan.graph.values[made.node.inputs[0]].shape[-1]
        source = f"x + g * {window.channels * (window.pitch // channels)}" if self._grouped else "x"
        lines = [f"gather(&w{self.index}, {self.family}_pack, {how}, {source}, scratch, row, rows);"]
        if self.family == REAL and self._grouped and self.constants.plan.stores[given].kind == PIXELS:
            first = f"own.table += {how[1:]}.shared ? 0 : g * {256 * window.channels};"
            lines = [f"struct reals own = {how[1:]};", first, lines[0].replace(how, "&own")]
        for place, (part, name) in enumerate(zip(made.parts, weights, strict=True)):
            lines += self._multiplied(place, part, name)
        last = "totals" if len(made.parts) > 1 else "sums"
        more = [f"o{place} + at" for place in range(len(others_of(made.stage)))]
        more += [f"g * {made.node.features // made.groups}"] if self._grouped else []
        pixels = f"rows * {window.out_width}"
        if self.halved:
            lines.append(f"halve_sums(sums, {self._flips()}, rows, {window.out_width}, {window.features});")
            pixels = f"rows / 2 * {window.out_width // 2}"
        return [*lines, f"finish{self.index}({', '.join([last, 'y + at', pixels, *more])});"]

    def _flips(self) -> str:
        assert self.made.steps is not None
        flips = self.made.steps.flips
        return self._blocks(flips, f"flips {self.index}") if flips.any() else "NULL"

    def _multiplied(self, place: int, part: Part, weights: str) -> list[str]:
        """Sums of one part, and what is done to them before they count."""
        made, window, name = self.made, self.window, f"{self.index}_{place}"
        if self._grouped:
            weights += f" + (size_t)g * {len(part.weights) // made.groups}"
        planes = f"{int(made.coding.planes)}, " if self.family == LUT else ""
        size = f"rows * {window.out_width}, {window.features}"
        lines = [f"{self.family}_band(&w{self.index}, &p{name}, {planes}scratch, rows, {weights}, sums);"]
        if made.bias is not None:
            lines.append(f"add_bias(sums, {self._blocks(made.bias[place].astype(np.int32), f'bias {name}')}, {size});")
        if len(made.parts) > 1:
            worth = self._blocks(made.multipliers[place], f"worth {name}")
            lines.append(f"weigh(totals, sums, {worth}, {size}, {int(place == 0)});")
        return lines

    def _blocks(self, values: np.ndarray, key: str) -> str:
        """A number per feature, in the places that its sums have: whole blocks for each group."""
        groups = values.reshape(self.made.groups, -1)
        padded = np.pad(groups, [(0, 0), (0, self.window.features - groups.shape[1])])
        name = self.constants.array(padded, key)
        return f"{name} + g * {self.window.features}" if self._grouped else name
