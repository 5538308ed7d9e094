"""Functions of NAME.c that take sums, or the elements of a value, to what is stored: ``finishN``."""

import dataclasses

from plq.exporters.c import chain
from plq.exporters.c.constants import TYPES, Constants
from plq.exporters.c.plan import BYTES, Stage
from plq.exporters.c.product import Ready
from plq.exporters.c.text import structure


@dataclasses.dataclass(frozen=True)
class Rows:
    """``kind``: C type of what is read. ``width``: channels that are computed, of a group if there are several.

    ``pitch``, ``step``: from one pixel of what is read, and of the result, to the next.
    """

    kind: str
    width: int
    pitch: int
    step: int
    grouped: bool = False

    def of_group(self, constant: str) -> str:
        """A constant with one number per channel, at the first one of the group at hand."""
        return f"({constant} + first)" if self.grouped else constant


def others_of(stage: Stage) -> list[str]:
    """The values that the steps of a stage add, each once."""
    return list(dict.fromkeys(step.other for step in stage.steps if step.other))


def elements(constants: Constants, index: int, stage: Stage) -> None:
    """``finishN`` of a stage that begins with the elements of a value."""
    store = constants.plan.stores[stage.input]
    channels = constants.plan.stores[stage.output].shape[-1]
    first = [f"@real v = {constants.element(store, 'x')};"]
    _finish(constants, index, stage, Rows(TYPES[store.kind], channels, channels, channels), first)


def sums(constants: Constants, index: int, made: Ready, halved: bool) -> None:
    """``finishN`` of a product: steps that sums are compared with, or the operations of the network.

    ``halved``: flips are taken when windows of sums are pooled, before that.
    """
    kind = "int32_t" if len(made.multipliers) == 1 else "float"
    width = made.node.features // made.groups
    rows = Rows(kind, width, made.window.features, made.node.features, made.groups > 1)
    if made.steps is not None:
        return _compared(constants, index, made, rows, halved)
    first = ["@real v = @load(x + f);"]
    if len(made.multipliers) == 1:
        worth = rows.of_group(constants.array(made.multipliers[0], f"worth {index}"))
        first = [f"@real v = @mul(@from_integers(x + f), @load({worth} + f));"]
        if made.offset is not None:
            offset = rows.of_group(constants.array(made.offset, f"offset {index}"))
            first.append(f"v = @add(v, @load({offset} + f));")
    return _finish(constants, index, made.stage, rows, first)


def _finish(constants: Constants, index: int, stage: Stage, rows: Rows, first: list[str]) -> None:
    """``first``: lines that make the first numbers of ``x``."""
    plan, out = constants.plan, constants.plan.stores[stage.output]
    places = {name: f"o{place}" for place, name in enumerate(others_of(stage))}
    lines = chain.c_steps(
        stage.steps,
        lambda tensor: rows.of_group(constants.tensor(tensor)),
        lambda other: constants.element(plan.stores[other], places[other], rows.of_group),
        out,
    )
    needed = [f"@real {name};" for name in ("gate", "level") if f"{name} = " in " ".join(lines)]
    lines = [*first, *needed, *lines]
    moves = [f"x += {rows.pitch}", f"y += {rows.step}", *(f"{place} += {rows.step}" for place in places.values())]
    body = [f"    for (int p = 0; p < pixels; p++, {', '.join(moves)}) {{", "        int f = 0;"]
    for prefix, loop in _loops(rows.width):
        body += [f"        {loop} {{", *(f"            {line.replace('@', prefix)}" for line in lines), "        }"]
    parameters = [f"const {rows.kind} *restrict x", f"{TYPES[out.kind]} *restrict y", "int pixels"]
    parameters += [f"const {constants.type(other)} *{place}" for other, place in places.items()]
    constants.parts.append(_function(index, parameters, rows, [*body, "    }"]))


def _loops(width: int) -> list[tuple[str, str]]:
    """Over whole vectors, and over what is left where a vector may have more channels than that."""
    vectors = [("v_", f"for (; f + LANES <= {width}; f += LANES)")]
    return vectors if width % 8 == 0 else [*vectors, ("s_", f"for (; f < {width}; f++)")]


def _function(index: int, parameters: list[str], rows: Rows, body: list[str]) -> str:
    if rows.grouped:
        unused = "" if any("first" in line for line in body) else "    (void)first;"
        parameters, body = [*parameters, "int first"], [*([unused] if unused else []), *body]
    return "\n".join([f"FN void finish{index}({', '.join(parameters)})", "{", *body, "}"])


def _compared(constants: Constants, index: int, made: Ready, rows: Rows, halved: bool) -> None:
    """Codes by comparing sums with steps."""
    steps, out = made.steps, constants.plan.stores[made.stage.output]
    assert steps is not None
    sums = constants.array(steps.sums, f"steps {index}")
    flipped = steps.flips.any() and not halved
    flips = constants.array(steps.flips, f"flips {index}") if flipped else "NULL"
    lowest = steps.lowest - out.base
    if out.kind == BYTES and set(steps.rises) == {1}:
        fields = [str(len(steps.sums)), str(rows.step), sums, flips, str(lowest)]
        constants.parts.append(structure("steps", f"s{index}", fields))
        first = "first" if rows.grouped else "0"
        body = [f"    compare(&s{index}, x, y, pixels, {rows.width}, {rows.pitch}, {rows.step}, {first});"]
    else:
        first = " + first" if rows.grouped else ""
        flip = "" if flips == "NULL" else f" ^ {flips}[f{first}]"
        rises = [f"(v >= {sums}[f + {place * rows.step}{first}]) * {by}" for place, by in enumerate(steps.rises)]
        body = [
            f"    for (int p = 0; p < pixels; p++, x += {rows.pitch}, y += {rows.step})",
            f"        for (int f = 0; f < {rows.width}; f++) {{",
            f"            int32_t v = x[f]{flip};",
            f"            y[f] = ({TYPES[out.kind]})({' + '.join([chain.c_integer(lowest), *rises])});",
            "        }",
        ]
    parameters = ["const int32_t *restrict x", f"{TYPES[out.kind]} *restrict y", "int pixels"]
    constants.parts.append(_function(index, parameters, rows, body))
