"""The formats by name: each turns a frozen model into bytes, and opens a file of these bytes to run it."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np

from plq import __version__
from plq.errors import UserError
from plq.exporters.check import Exported
from plq.report.table import format_table
from plq.runtime.frozen import FrozenModel
from plq.runtime.nodes import Normalize

if TYPE_CHECKING:
    from plq.exporters.qdq import QDQ


@dataclasses.dataclass(frozen=True)
class Export:
    """An export in memory.

    data    what the file is to hold
    files   instead of it, where a folder is written: the text of each of its files
    run     opens the file, to run it
    notes   lines for the user about what is in it
    remedy  what to try where the file does not do what the model does
    """

    data: bytes
    run: Callable[[Path], Exported]
    notes: list[str]
    remedy: str = ""
    files: dict[str, str] = dataclasses.field(default_factory=dict)


def export_onnx(model: FrozenModel, preprocessing: bool, fast: bool = False) -> Export:
    """ONNX for integer kernels (`plq.exporters.qdq`). ``fast``: also where they step at other sums than the model."""
    _need("onnx", "onnx", "onnxruntime")
    from plq.exporters import running
    from plq.exporters.writer import OPSET

    made, data = _onnx(model, preprocessing, {})
    most = made.integer_layers
    off_by_one = {
        k.layer: f"{k.off_by_one} of {k.steps} steps would be misplaced" for k in made.kernels if k.off_by_one
    }
    if off_by_one and not fast:
        made, data = _onnx(model, preprocessing, off_by_one)
    remedy = "without --fast no step is misplaced" if off_by_one and fast else ""
    header = ["layer", "operands", "steps", "misplaced", "in float because"]
    rows = [[k.layer, k.operands, k.steps, k.off_by_one, k.reason] for k in made.kernels]
    what = f"ONNX opset {OPSET}; {made.integer_layers} of {len(rows)} layers on integer kernels"
    if most > made.integer_layers:
        what += f"; --fast puts {most - made.integer_layers} more there, with misplaced steps"
    return Export(data, lambda path: running.run_onnx(path, made), [format_table(header, rows), what], remedy)


def _onnx(model: FrozenModel, preprocessing: bool, in_float: dict[str, str]) -> tuple[QDQ, bytes]:
    from plq.exporters.qdq import QDQ

    made = QDQ(model.frozen.graph, preprocessing, in_float)
    return made, made.model("batch", properties(model)).SerializeToString()


def export_qonnx(model: FrozenModel, preprocessing: bool) -> Export:
    """QONNX (`plq.exporters.qonnx`), for batches of one image."""
    _need("qonnx", "onnx", "onnxruntime", "qonnx")
    from plq.exporters import running
    from plq.exporters.qonnx import DOMAIN, QONNX, VERSION, inferred

    made = QONNX(model.frozen.graph, preprocessing)
    proto = inferred(made.model(1, properties(model), {DOMAIN: VERSION}))
    kinds = [node.op_type for node in proto.graph.node if node.domain == DOMAIN]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
    notes = [f"QONNX: {counts or 'all in float'}"]
    return Export(proto.SerializeToString(), lambda path: running.run_qonnx(path, made), notes)


def export_stablehlo(model: FrozenModel, preprocessing: bool) -> Export:
    """StableHLO (`plq.exporters.stablehlo`), which always takes pixels."""
    from plq.exporters import stablehlo

    if preprocessing:
        raise UserError("--with_preprocessing: has no effect with --format stablehlo, which always takes pixels")

    def run(path: Path) -> Exported:
        call = jax.jit(jax.export.deserialize(bytearray(path.read_bytes())).call)
        return Exported(lambda images: np.asarray(call(images)))

    note = f"StableHLO for {', '.join(stablehlo.PLATFORMS)}; load it with jax.export.deserialize"
    return Export(stablehlo.serialized(model.runner), run, [note])


def export_c(model: FrozenModel, preprocessing: bool, name: str = "model", images: np.ndarray | None = None) -> Export:
    """A folder of C99 (`plq.exporters.c`) whose functions begin with a name; ``images``: for its test."""
    from plq.exporters.c.format import c_files, run_c

    if preprocessing:
        raise UserError("--with_preprocessing: has no effect with --format c, which always takes pixels")
    files, notes = c_files(model.frozen.graph, name, images)
    return Export(b"", run_c(model.frozen.graph), notes, files=files)


FORMATS: dict[str, Callable[..., Export]] = {  # of a FrozenModel, and whether the file takes pixels
    "onnx": export_onnx,
    "qonnx": export_qonnx,
    "stablehlo": export_stablehlo,
}
FOLDERS: dict[str, Callable[..., Export]] = {"c": export_c}  # which write several files


EXPORTS = {**FORMATS, **FOLDERS}


def is_export(path: Path) -> bool:
    """Whether the file is one that `plq.exporters` wrote, in any format: by what the file says of itself."""
    data = path.read_bytes()
    return _is_onnx(data) or _is_stablehlo(data)


def _is_onnx(data: bytes) -> bool:
    """By the name of its producer."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError:
        return False
    try:
        return onnx.load_from_string(data).producer_name == "plq"
    except DecodeError:
        return False


def _is_stablehlo(data: bytes) -> bool:
    """By the name of its function, which stands near the end."""
    from plq.exporters.stablehlo import FUNCTION

    return f"{FUNCTION}\0".encode() in data[-1000:]


def _need(extra: str, *modules: str) -> None:
    """Raise UserError unless the modules can be imported."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            found = f"needs {' and '.join(modules)}, and {module} is not installed"
            raise UserError(f"--format {extra}: {found}; pip install 'plq[{extra}]'") from error


def properties(model: FrozenModel) -> dict[str, str]:
    """What an ONNX file says of itself, JSON by name."""
    normalize = model.frozen.graph.nodes[0]
    assert isinstance(normalize, Normalize)
    values = {
        "class_names": list(model.class_names),
        "image_shape": list(model.image_shape),
        "mean": list(normalize.mean),
        "std": list(normalize.std),
        "fit": model.frozen.fit,
        "plq": __version__,
    }
    return {f"plq.{name}" if name != "plq" else name: json.dumps(value) for name, value in values.items()}
