"""A model card in Markdown, of facts alone: what a frozen model's own file says, and nothing that is not in it."""

import json
from typing import Any

from plq.errors import printable
from plq.report.table import human_bytes
from plq.runtime.file_format import Frozen
from plq.runtime.nodes import Normalize
from plq.runtime.sizes import Layer, float_size, layers, quantized_ratio

MARK = "<!-- written by plq.freeze -->"
UNKNOWN = "not recorded"


TEXT = """{mark}
# {title}

| | |
|---|---|
{facts}

## Layers

W: bits of the weights, A: of the input; 32 is float32.

| layer | kind | W | A | output | weights | packed bytes | float32 bytes |
|---|---|---|---|---|---|---|---|
{layers}

## Use

```python
import plq

model = plq.load({name})
logits = model(images)  # uint8 [batch, height, width, {channels}] of any size -> float32 [batch, {classes}]
```
"""


def card(frozen: Frozen, name: str, file_bytes: int) -> str:
    """The text that stands beside a file of this name and size."""
    rows, classes, whole = layers(frozen.graph), frozen.class_names, float_size(frozen.graph)
    size = f"{human_bytes(file_bytes)}; the same network in float32 {human_bytes(whole)}"
    facts = {
        **origin(frozen.training),
        "Images": images(frozen),
        "Classes": f"{len(classes)}: {', '.join(classes[:20])}{', ...' if len(classes) > 20 else ''}",
        "Size": f"{size}; the quantized kernels with their scales are {quantized_ratio(rows):.1f} times smaller",
        **measured(frozen.training),
    }
    return TEXT.format(
        mark=MARK,
        title=printable(name),
        name=json.dumps(name, ensure_ascii=False),
        facts="\n".join(f"| {fact} | {_cell(text)} |" for fact, text in facts.items()),
        layers="\n".join(map(_row, rows)),
        channels=frozen.graph.image_shape[2],
        classes=len(classes),
    )


def images(frozen: Frozen) -> str:
    """What the network sees of an image."""
    height, width, channels = frozen.graph.image_shape
    first = frozen.graph.nodes[0]
    assert isinstance(first, Normalize)
    fit = {"square": "others are resized to that", "center": "of others the middle is taken"}[frozen.fit]
    of = "1 channel" if channels == 1 else f"{channels} channels"
    return f"{height}x{width}, {of} ({fit}); (pixel - {_numbers(first.mean)}) / {_numbers(first.std)}"


def origin(training: dict[str, Any]) -> dict[str, str]:
    """How the model was trained, as far as its configuration says."""
    config = training.get("config")

    def get(section: str, field: str) -> Any:
        fields = config.get(section) if isinstance(config, dict) else None
        return fields.get(field, UNKNOWN) if isinstance(fields, dict) else UNKNOWN

    if not isinstance(config, dict):
        return {"Training": UNKNOWN}
    augmentation = {field: get("data", field) for field in ("pad", "flip", "brightness", "contrast", "crop")}
    used = [f"{field} {value}" for field, value in augmentation.items() if value not in (0, False, "", [1.0, 1.0])]
    factor = f"{get('factor', 'name')}, 0 from {_share(get('factor', 'end'))} of the run on"
    if get("factor", "name") == "constant":
        factor = f"constant {get('factor', 'value')}"
    return {
        "Data": f"{get('data', 'name')}, split {get('data', 'train_split') or 'the usual one'}",
        "Augmentation": ", ".join(used) or "none",
        "Network": f"{get('model', 'name')}, width {get('model', 'width')}",
        "Quantizers": f"weights {get('quant', 'weights')}, activations {get('quant', 'activations')}",
        "Schedule": ", ".join((
            f"{get('train', 'epochs')} epochs",
            f"stopped at step {training.get('step', UNKNOWN)}",
            f"batch {get('data', 'batch_size')}",
            f"{get('optimizer', 'name')} at {get('optimizer', 'learning_rate')}",
            f"schedule {get('optimizer', 'schedule')}",
            f"weight decay {get('optimizer', 'weight_decay')}",
            f"seed {get('train', 'seed')}",
        )),
        "Factor f": f"{factor}; merge {get('expansion', 'merge')}",
    }  # fmt: skip


def measured(training: dict[str, Any]) -> dict[str, str]:
    """What freezing measured: accuracy before and after, and in how many images they part."""
    found = training.get("freezing")
    if not isinstance(found, dict) or "images" not in found:
        return {"Accuracy": "not measured"}
    get = lambda field: found.get(field, UNKNOWN)
    unstable = ""
    if "changed_by_last_bits" in found:
        unstable = f"; unstable: changing the last bit of its numbers changes {_count(get('changed_by_last_bits'))}"
    return {
        "Accuracy": f"{_percent(get('accuracy_before'))} before freezing, {_percent(get('accuracy_after'))} after",
        "Measured on": f"{get('data')}, split {get('split')}, {_count(get('images'))} images",
        "Other class": f"{_count(get('other_class'))} images{unstable}",
        "Logits": f"{_number(get('largest_difference'))} apart at most",
    }


def _row(row: Layer) -> str:
    shape, sizes = "x".join(map(str, row.output_shape)), (row.weights, row.packed_bytes, row.float_bytes)
    bits = f"{row.weight_bits} | {row.input_bits}"
    return f"| {row.name} | {row.kind} | {bits} | {shape} | {' | '.join(f'{size:,}' for size in sizes)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _numbers(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def _share(value: Any) -> str:
    return f"{100 * value:g} %" if isinstance(value, (int, float)) else str(value)


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _number(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def _percent(value: Any) -> str:
    return f"{100 * value:.2f} %" if isinstance(value, (int, float)) else str(value)
