"""A frozen model in words: a table of layers, and a line per fact."""

from typing import Any

from plq.report.model_card import images, measured, origin
from plq.report.table import format_table, human_bytes
from plq.runtime.file_format import Frozen
from plq.runtime.sizes import float_size, layers, quantized_ratio

HEADER = ["layer", "kind", "W", "A", "output", "weights", "packed", "float32"]


def layer_table(frozen: Frozen) -> str:
    """A row per layer: bits of the weights (W) and of the input (A), bytes packed and in float32."""
    rows: list[list[Any]] = [
        [
            row.name,
            row.kind,
            row.weight_bits,
            row.input_bits,
            "x".join(map(str, row.output_shape)),
            row.weights,
            row.packed_bytes,
            row.float_bytes,
        ]
        for row in layers(frozen.graph)
    ]
    sums = [sum(row[column] for row in rows) for column in (5, 6, 7)]
    return format_table(HEADER, rows, ["total", "", "", "", "", *sums])


def summary(frozen: Frozen, file_bytes: int) -> str:
    """Sizes, images, classes and origin, a line each."""
    whole, ratio = float_size(frozen.graph), quantized_ratio(layers(frozen.graph))
    names = ", ".join(frozen.class_names[:10]) + (", ..." if len(frozen.class_names) > 10 else "")
    facts = {
        "File": f"{human_bytes(file_bytes)}; the same network in float32 {human_bytes(whole)}",
        "Quantized": f"kernels with their scales, {ratio:.1f} times smaller than in float32",
        "Images": images(frozen),
        "Classes": f"{len(frozen.class_names)}: {names}",
        **origin(frozen.training),
        **measured(frozen.training),
    }
    width = max(map(len, facts))
    return "\n".join(f"{name.ljust(width)}  {text}" for name, text in facts.items())
