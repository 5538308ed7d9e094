"""Cost of a config's network by layer: parameters, bytes, operations."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from plq.config.schema import Config
from plq.layers.cost import cost_table
from plq.layers.describe import layer_table
from plq.report.table import format_table, human_bytes

Shape = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer. ``bytes_training``: with the branch; ``bytes_float32``, ``bytes_deployed``: as served."""

    name: str
    kind: str
    weight_bits: int
    input_bits: int
    output_bits: int
    output_shape: tuple[int, ...]
    parameters: int
    ancillary_parameters: int
    bytes_training: int
    bytes_float32: int
    bytes_deployed: int
    macs: int
    bit_operations: int


BYTES = ("bytes_training", "bytes_float32", "bytes_deployed")


SUMMED = ("parameters", "ancillary_parameters", *BYTES, "macs", "bit_operations")


def rows_of(config: Config, image_shape: Shape, num_classes: int) -> list[Row]:
    """The layers in the order in which data passes them. Raises UserError for images that the network cannot take."""
    architecture = config.architecture(num_classes, image_shape)
    plain = architecture.plain()
    starts_plain = config.expansion.leave and config.factor.over(1).end_step == 0
    expansion = config.expansion
    start = plain if starts_plain else architecture.expanded(expansion.merge, 1.0, expansion.norm)
    training = {layer.name: layer for layer in layer_table(start, image_shape)}
    rows = []
    for cost in cost_table(plain, image_shape):
        layer, trained = cost.layer, training[cost.layer.name]
        rows.append(
            Row(
                name=layer.name,
                kind=layer.kind,
                weight_bits=layer.weight_bits,
                input_bits=cost.input_bits,
                output_bits=cost.output_bits,
                output_shape=layer.output_shape,
                parameters=layer.parameters,
                ancillary_parameters=trained.ancillary_parameters,
                bytes_training=trained.bytes_now,
                bytes_float32=layer.bytes_now,
                bytes_deployed=layer.bytes_deployed,
                macs=layer.macs,
                bit_operations=cost.bit_operations,
            )
        )
    return rows


def totals(rows: Sequence[Row]) -> dict[str, int]:
    return {name: sum(getattr(row, name) for row in rows) for name in SUMMED}


HEADER = ["layer", "kind", "W", "in", "out", "output", "parameters", "training", "float32", "deployed", "MACs", "BOPs"]


def cells_of(rows: Sequence[Row]) -> list[list[Any]]:
    """A line of the table for each layer, under `HEADER`, and one of totals."""
    names = ("parameters", *BYTES, "macs", "bit_operations")
    cells: list[list[Any]] = [
        [
            row.name,
            row.kind,
            row.weight_bits,
            row.input_bits,
            row.output_bits,
            "x".join(map(str, row.output_shape)),
            *(getattr(row, name) for name in names),
        ]
        for row in rows
    ]
    total = totals(rows)
    return [*cells, ["total", "", "", "", "", "", *(total[name] for name in names)]]


def print_table(rows: list[Row]) -> None:
    *cells, last = cells_of(rows)
    print(format_table(HEADER, cells, last))
    total = totals(rows)
    sizes = (human_bytes(total[name]) for name in BYTES)
    print("variables: {} in training, {} in float32, {} deployed with packed weights".format(*sizes))
    print(f"per image: {total['macs']:,} multiply-accumulates, {total['bit_operations']:,} bit operations")
