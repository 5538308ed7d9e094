"""Named arrays and text in one file: safetensors, in one spelling only, with a checksum over every byte.

    8 bytes   length of the header, little-endian
    header    JSON: {"__metadata__": {name: text}, tensor name: {"data_offsets", "dtype", "shape"}}, keys sorted, ASCII,
              without white space, then spaces up to a multiple of 8 bytes
    data      the tensors without gaps, little-endian: "F32" by name, then "U8" by name

Any reader of safetensors opens it. The entry "sha256" of the metadata is the checksum of the header as it would be
without this entry, and of the data. The reader here takes nothing that the writer would have written otherwise.
"""

import hashlib
import json
import math
from typing import Any, BinaryIO

import numpy as np

from plq.errors import UserError

MAX_HEADER, MAX_FILE, MAX_RANK = 4 * 2**20, 8 * 2**30, 8
DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "U8": np.dtype("u1")}  # in the order of the file
METADATA, SHA256 = "__metadata__", "sha256"

Shapes = dict[str, tuple[str, tuple[int, ...]]]  # dtype and shape by name, in the order of the file


def dump(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """The bytes of a file: the same for the same content. Raises UserError if there is too much text."""
    dtypes = {name: next(key for key, dtype in DTYPES.items() if dtype == tensors[name].dtype) for name in tensors}
    shapes = _ordered({name: (dtypes[name], tensor.shape) for name, tensor in tensors.items()})
    data = b"".join(np.ascontiguousarray(tensors[name], DTYPES[dtype]).tobytes() for name, (dtype, _) in shapes.items())
    text = _header(shapes, {**metadata, SHA256: _digest(shapes, metadata, data)})
    if len(text) > MAX_HEADER:
        raise UserError(f"the description takes {len(text):,} bytes, allowed {MAX_HEADER:,}")
    return len(text).to_bytes(8, "little") + text + data


def load(file: BinaryIO, size: int) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors, read-only, and metadata of a file of this size. Raises UserError unless `dump` would write it so.

    All sizes are checked against that of the file before anything is allocated.
    """
    text = _read_header(file, size)
    shapes, metadata = _parse(text)
    if _header(shapes, metadata) != text:
        raise UserError("damaged: its header is not as it was written")
    starts, total = _places(shapes)
    if total != size - 8 - len(text):
        raise UserError(f"damaged or cut off: {size - 8 - len(text):,} bytes of data, allowed {total:,}")
    data = file.read(total)
    digest = metadata.pop(SHA256, None)
    if len(data) != total or digest != _digest(shapes, metadata, data):
        raise UserError("damaged: its checksum is not the one it was written with")
    tensors = {
        name: np.frombuffer(data, DTYPES[dtype], math.prod(shape), starts[name]).reshape(shape)
        for name, (dtype, shape) in shapes.items()
    }
    return tensors, metadata


def _read_header(file: BinaryIO, size: int) -> bytes:
    if size > MAX_FILE:
        raise UserError(f"found {size:,} bytes, allowed {MAX_FILE:,}")
    length = int.from_bytes(file.read(8), "little")
    if size < 16 or not 0 < length <= min(MAX_HEADER, size - 8):
        raise UserError("is not a frozen model of plq, or it is cut off")
    return file.read(length)


def _parse(text: bytes) -> tuple[Shapes, dict[str, str]]:
    """Shapes and metadata of a header, each of the right type."""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError("is not a frozen model of plq: its header is not JSON") from error
    if not isinstance(header, dict) or not isinstance(header.get(METADATA), dict):
        raise UserError("is not a frozen model of plq: its header has no metadata")
    metadata = header.pop(METADATA)
    if not all(isinstance(value, str) for value in metadata.values()):
        raise UserError("damaged: its metadata is not text")
    return _ordered({name: _shape(name, entry) for name, entry in header.items()}), metadata


def _shape(name: str, entry: Any) -> tuple[str, tuple[int, ...]]:
    dtype, shape = (entry.get("dtype"), entry.get("shape")) if isinstance(entry, dict) else (None, None)
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise UserError(f"tensor {name[:80]!r}: found dtype {dtype!r:.20}, allowed {', '.join(DTYPES)}")
    lengths = shape if isinstance(shape, list) and len(shape) <= MAX_RANK else [None]
    if not all(type(length) is int and 0 < length <= MAX_FILE for length in lengths):
        raise UserError(f"tensor {name[:80]!r}: its shape is not a list of at most {MAX_RANK} lengths above 0")
    return dtype, tuple(lengths)


def _ordered(shapes: Shapes) -> Shapes:
    """In the order of the file."""
    return dict(sorted(shapes.items(), key=lambda item: (list(DTYPES).index(item[1][0]), item[0])))


def _places(shapes: Shapes) -> tuple[dict[str, int], int]:
    """Where in the data each tensor begins, and where the last one ends."""
    starts, end = {}, 0
    for name, (dtype, shape) in shapes.items():
        starts[name] = end
        end += math.prod(shape) * DTYPES[dtype].itemsize
    return starts, end


def _header(shapes: Shapes, metadata: dict[str, str]) -> bytes:
    starts, end = _places(shapes)
    ends = [*starts.values(), end][1:]
    table = {
        name: {"data_offsets": [starts[name], stop], "dtype": dtype, "shape": list(shape)}
        for (name, (dtype, shape)), stop in zip(shapes.items(), ends, strict=True)
    }
    text = json.dumps({METADATA: metadata, **table}, sort_keys=True, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def _digest(shapes: Shapes, metadata: dict[str, str], data: bytes) -> str:
    digest = hashlib.sha256(_header(shapes, metadata))
    digest.update(data)
    return digest.hexdigest()
