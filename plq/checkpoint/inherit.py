"""Start from another model's weights: what fits is taken, and what was taken and what was not is said."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from plq.checkpoint.match import leaf_shapes
from plq.checkpoint.model_file import read_model
from plq.errors import UserError
from plq.models.registry import Architecture
from plq.quant.base import WeightQuantizer
from plq.variables import KEPT, flatten, nest


@dataclasses.dataclass(frozen=True)
class Inherited:
    """Variables to start from, and paths: taken from the file, left at fresh values here, in the file but not used.

    ``variables`` are ``params`` and ``batch_stats``. What quantizers learn is never taken: it belongs to a number of
    bits. For weights it follows from the taken kernel (``computed``), for activations it is set from images.
    """

    source: str
    variables: dict[str, Any]
    taken: list[str]
    computed: list[str]
    fresh: list[str]
    unused: list[str]

    def __str__(self) -> str:
        parts = [f"{len(self.taken)} leaves taken"]
        for name, paths in (("computed", self.computed), ("not in it", self.fresh), ("not used", self.unused)):
            parts += [f"{len(paths)} {name} ({', '.join(paths)})"] if paths else []
        return f"starting from {self.source}: {'; '.join(parts)}"


def read_float_model(path: Path, architecture: Architecture) -> dict[str, Any]:
    """Variables of a model folder, or of the one in a training folder. Raises UserError for another network."""
    folder = path / "model" if (path / "model").is_dir() else path
    variables, description = read_model(folder)
    found = Architecture.from_json(description.get("architecture", {}))
    for field in dataclasses.fields(Architecture):
        theirs, ours = getattr(found, field.name), getattr(architecture, field.name)
        if field.name not in ("precision", "num_classes", "dropout") and theirs != ours:
            raise UserError(f"model.init_from={path}: has {field.name}={theirs}, this network {field.name}={ours}")
    return variables


def inherit(
    source: str, fresh: dict[str, Any], found: dict[str, Any], quantizers: Mapping[str, WeightQuantizer], learned: set
) -> Inherited:
    """The kept variables of ``fresh`` with those of ``found`` that have the same path, shape and dtype.

    Args:
        quantizers: weight quantizers by layer path, from `plq.layers.describe.quantized_layers`. learned: paths of
            all quantizer scales ("params/...").
    Raises UserError if nothing fits.
    """
    ours = {path: leaf for path, leaf in flatten(fresh).items() if path.split("/")[0] in KEPT}
    theirs = flatten(found)
    shapes, wanted = leaf_shapes(found), leaf_shapes(nest(ours))
    taken = [path for path in ours if path not in learned and shapes.get(path) == wanted[path]]
    if not any(path.endswith("/kernel") for path in taken):
        raise UserError(f"model.init_from={source}: no kernel in it has the name and shape of one of this network")
    merged = {**ours, **{path: theirs[path] for path in taken}}
    computed = {}
    for layer, quantizer in quantizers.items():
        kernel = f"params/{layer}/kernel"
        if quantizer.scale_names and kernel in taken:
            scales = quantizer.scales_of(jnp.asarray(merged[kernel]))
            computed.update({f"params/{layer}/{name}": value for name, value in scales.items()})
    left = [path for path in ours if path not in taken and path not in computed]
    unused = [path for path in theirs if path not in taken]
    return Inherited(source, nest({**merged, **computed}), taken, sorted(computed), left, unused)
