"""The stripped model on disk: a folder with ``model.json`` and ``variables.safetensors``, data only.

Nothing of the training framework is needed to read it: any safetensors reader will do.
"""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from plq.errors import UserError
from plq.layers.variables import flatten, nest
from plq.storage.output import require_room, writing

FORMAT, VERSION = "plq-model", 1
DESCRIPTION, VARIABLES = "model.json", "variables.safetensors"
TYPES = {
    "BOOL": np.dtype(bool),
    "BF16": np.dtype(jnp.bfloat16),
    **{f"F{8 * size}": np.dtype(f"f{size}") for size in (2, 4, 8)},
    **{f"{kind.upper()}{8 * size}": np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)},
}
HOW = "make a model with: plq prune --workdir DIR --out PATH"


def write_model(path: Path, variables: dict[str, Any], description: dict[str, Any]) -> None:
    """Write a model folder, whole or not at all; a model that is there already is replaced.

    Args:
        variables: nested dict of arrays. description: JSON values.
    Raises UserError if something else is at ``path``, or it cannot be written.
    """
    require_place(path)
    tensors = save({name: np.asarray(leaf, order="C") for name, leaf in flatten(variables).items()})
    digest = hashlib.sha256(tensors).hexdigest()
    header = {"format": FORMAT, "version": VERSION, "sha256": digest, "description": description}
    target = Path(os.path.realpath(path))
    with writing(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=".plq-"))
        try:
            _write_synced(temporary / VARIABLES, tensors)
            _write_synced(temporary / DESCRIPTION, (json.dumps(header, indent=1) + "\n").encode())
            temporary.chmod(0o755)
            _replace_folder(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def require_place(path: Path) -> None:
    """Raise UserError unless a model folder can be written at ``path``: a new or empty one, or in place of a model."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: is there and is not a model of plq; it is left alone, choose another path")
    if path.is_dir() and any(path.iterdir()):
        others = {found.name for found in path.iterdir()} - {DESCRIPTION, VARIABLES}
        if others:
            found = f"holds {min(others)}, which is no part of a model of plq"
            raise UserError(f"{path}: {found}; it is left alone, choose another path")
        try:
            _read_header(path / DESCRIPTION)
        except UserError as error:
            raise UserError(f"{error}; it is left alone, choose another path") from error
    require_room(path, "")


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _replace_folder(new: Path, path: Path) -> None:
    """Folders cannot be replaced in one call: the old one steps aside first."""
    old = new.with_name(new.name + ".old")
    if path.exists():
        path.rename(old)
    new.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def read_model(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Variables (nested dict of NumPy arrays) and description. Raises UserError for any defect."""
    if not (path / DESCRIPTION).is_file():
        raise UserError(_what_it_is(path))
    header = _read_header(path / DESCRIPTION)
    try:
        tensors = (path / VARIABLES).read_bytes()
    except OSError as error:
        raise UserError(f"{path / VARIABLES}: cannot be read ({error.strerror})") from error
    if hashlib.sha256(tensors).hexdigest() != header["sha256"]:
        raise UserError(f"{path / VARIABLES}: damaged: its checksum is not the one in {DESCRIPTION}")
    try:
        return nest(_arrays(tensors)), header["description"]
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{path / VARIABLES}: not readable ({error})") from error


def _arrays(tensors: bytes) -> dict[str, np.ndarray]:
    """Arrays by name. Those of safetensors itself are without bfloat16."""
    return {
        name: np.frombuffer(entry["data"], TYPES[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in deserialize(tensors)
    }


def _what_it_is(path: Path) -> str:
    """Why this path is not a model, and what to do instead."""
    if not path.exists():
        return f"{path}: does not exist; {HOW}"
    if not path.is_dir():
        return f"{path}: is a file, allowed a model folder ({DESCRIPTION}, {VARIABLES}); {HOW}"
    if (path / "model" / DESCRIPTION).is_file():
        return f"{path}: is a training folder; its stripped model is {path / 'model'}"
    if (path / "checkpoints").is_dir():
        return f"{path}: is a training folder, not a stripped model; {HOW}"
    return f"{path}: holds no {DESCRIPTION}, so it is not a model of plq; {HOW}"


def _read_header(path: Path) -> dict[str, Any]:
    try:
        header = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable JSON ({error})") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise UserError(f"{path}: is not the description of a plq model (no format {FORMAT})")
    if header.get("version") != VERSION:
        raise UserError(f"{path}: model format version {header.get('version')}, this plq reads {VERSION}")
    if not isinstance(header.get("sha256"), str) or not isinstance(header.get("description"), dict):
        raise UserError(f"{path}: lacks the field sha256 or description")
    return header
