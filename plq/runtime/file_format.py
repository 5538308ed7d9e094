"""``model.plq``: a frozen network in one file, few bits packed, data only.

The container is a safetensors file (`plq.runtime.container`). Its tensors are those of the graph: float32 as they are,
codes packed into bytes (`plq.runtime.pack`) with one axis. Its metadata:

    format, version   "plq", "1"
    model             JSON: graph (`Graph.to_json`), codes (the shape of each packed tensor), class_names, fit, training

Nothing in a file is run, and no name in it is used as a path.
"""

import dataclasses
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from plq.data.resize import FITS
from plq.errors import UserError
from plq.runtime import container
from plq.runtime.graph import Graph, parse_heads, parse_nodes
from plq.runtime.node import Node, Tensors
from plq.runtime.nodes import Product
from plq.runtime.pack import pack, unpack
from plq.storage.output import make_folder_of, require_file, write_atomic

FORMAT, VERSION = "plq", "1"
FIELDS = {"graph": dict, "codes": dict, "class_names": list, "fit": str, "training": dict}
HOW = "make one with: plq freeze --model DIR --out model.plq"


@dataclasses.dataclass(frozen=True)
class Frozen:
    """What a file holds. ``fit``: images of another size are squared ("square") or their middle is taken ("center").

    ``training``: where the model comes from, JSON values: "config" is the run's, "freezing" what was measured.
    """

    graph: Graph
    class_names: tuple[str, ...]
    fit: str
    training: dict[str, Any]

    def check(self) -> None:
        """Raise UserError unless graph, names and fit are what they must be."""
        self.graph.check()
        classes = self.graph.classes
        if len(self.class_names) != classes:
            raise UserError(f"class_names: found {len(self.class_names)}, allowed {classes}, one per logit")
        for name in self.class_names:
            if not isinstance(name, str) or not name.isprintable():
                raise UserError(f"class_names: found {name!r:.60}, allowed printable text")
        if self.fit not in FITS:
            raise UserError(f"fit: found {self.fit!r:.60}, allowed {' or '.join(FITS)}")


def packed_bits(nodes: tuple[Node, ...]) -> dict[str, int]:
    """The tensors that are stored as packed codes, and their bits."""
    return {
        node.tensor("kernel"): node.grid.bits for node in nodes if isinstance(node, Product) and node.grid is not None
    }


def encode(frozen: Frozen) -> bytes:
    """The bytes of a file; the same for the same content. Raises UserError if `Frozen.check` does."""
    frozen.check()
    tensors, bits = frozen.graph.tensors, packed_bits(frozen.graph.nodes)
    stored = {name: pack(tensor, bits[name]) if name in bits else tensor for name, tensor in tensors.items()}
    model = {
        "graph": frozen.graph.to_json(),
        "codes": {name: list(tensors[name].shape) for name in bits},
        "class_names": list(frozen.class_names),
        "fit": frozen.fit,
        "training": frozen.training,
    }
    text = json.dumps(model, separators=(",", ":"))
    return container.dump(stored, {"format": FORMAT, "version": VERSION, "model": text})


def write(path: Path, data: bytes) -> None:
    """Write what `encode` gives, whole or not at all. A frozen model that is there already is replaced.

    Raises UserError if something else is at ``path``, or it cannot be written.
    """
    require_file(path, {}, is_frozen, "a frozen model", "")
    make_folder_of(path)
    write_atomic(path, data)


def is_frozen(path: Path) -> bool:
    """Whether a whole frozen model is in the file."""
    try:
        read(path)
    except UserError:
        return False
    return True


def read(path: Path) -> Frozen:
    """The model in a file. Raises UserError, in one line that begins with the path, for whatever is not a whole one.

    No more memory is taken than the size of the file justifies.
    """
    if not path.is_file():
        found = "is not a file" if path.exists() else "does not exist"
        raise UserError(f"{path}: {found}, allowed a frozen model; {HOW}")
    try:
        with path.open("rb") as file:
            return _decode(*container.load(file, os.fstat(file.fileno()).st_size))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def decode(data: bytes) -> Frozen:
    """What `encode` was given. Raises UserError as `read` does."""
    return _decode(*container.load(io.BytesIO(data), len(data)))


def _decode(stored: Tensors, metadata: dict[str, str]) -> Frozen:
    model = _model(metadata)
    image_shape, nodes = parse_nodes(model["graph"])
    tensors = _unpacked(stored, packed_bits(nodes), model["codes"])
    graph = Graph(image_shape, nodes, tensors, parse_heads(model["graph"]))
    frozen = Frozen(graph, tuple(model["class_names"]), model["fit"], model["training"])
    frozen.check()
    return frozen


def _model(metadata: dict[str, str]) -> dict[str, Any]:
    """The entry "model", its fields of the right type."""
    if metadata.get("format") != FORMAT:
        raise UserError(
            f"is not a frozen model of plq: found format {metadata.get('format')!r:.40}, allowed {FORMAT!r}"
        )
    if metadata.get("version") != VERSION:
        raise UserError(f"found version {metadata.get('version')!r:.40}, this plq reads {VERSION!r}")
    try:
        model = json.loads(metadata.get("model", ""))
    except (ValueError, RecursionError) as error:
        raise UserError("the description of the model is not JSON") from error
    if not isinstance(model, dict) or set(model) != set(FIELDS):
        raise UserError(f"the description of the model: allowed exactly {', '.join(FIELDS)}")
    for name, kind in FIELDS.items():
        if not isinstance(model[name], kind):
            raise UserError(f"{name}: found {type(model[name]).__name__}, allowed {kind.__name__}")
    return model


def _unpacked(stored: Tensors, bits: dict[str, int], shapes: dict[str, Any]) -> Tensors:
    """The graph's tensors: codes in their shapes, one byte each."""
    if set(shapes) != set(bits):
        raise UserError("codes: the shapes given are not those of the quantized layers")
    for name, shape in shapes.items():
        legal = isinstance(shape, list) and 0 < len(shape) <= container.MAX_RANK
        if not legal or not all(type(length) is int and 0 < length <= container.MAX_FILE for length in shape):
            raise UserError(f"codes: {name[:80]!r}: its shape is not a list of lengths above 0")
        if name not in stored or stored[name].dtype != np.uint8 or not 1 <= bits[name] <= 8:
            raise UserError(f"tensor {name[:80]!r}: allowed packed codes of 1 to 8 bits")
    try:
        unpacked = {name: unpack(stored[name].reshape(-1), bits[name], tuple(shapes[name])) for name in bits}
    except ValueError as error:
        raise UserError(f"packed codes: {error}") from error
    return {**stored, **unpacked}
