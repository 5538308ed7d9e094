"""A stripped model as a graph of few-bit integers, compared with the model on noise."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import flax.linen as nn
import jax
import numpy as np

from plq.checkpoint.model_file import read_model
from plq.errors import UserError
from plq.layers.nnx_kind import is_nnx
from plq.runtime import stripped_model
from plq.runtime.file_format import Frozen
from plq.runtime.frozen import FrozenModel, from_frozen
from plq.runtime.lowering import lower
from plq.runtime.verification import LOGITS, TIE, Reference, differences
from plq.storage.address import place_given
from plq.storage.staging import staged_input

NOISE = 8


AT_ONCE = 8  # images whose results are compared layer by layer


@dataclasses.dataclass(frozen=True)
class Source:
    """A stripped model as it is served, and with products in float32, which is what is frozen: often the same one."""

    served: stripped_model.Model
    exact: stripped_model.Model


def read_source(path: Path, network: Any = None) -> Source:
    """Raises UserError for anything that is not a whole, stripped model. ``network``: see `stripped_model.load`."""
    served, (variables, description) = stripped_model.load(path, network), read_model(path)
    architecture = description["architecture"]
    if architecture.get("precision", {}).get("dtype", "float32") == "float32":
        return Source(served, served)
    exact = {**architecture, "precision": {**architecture["precision"], "dtype": "float32"}}
    return Source(served, stripped_model.from_variables(variables, {**description, "architecture": exact}, str(path)))


def freeze(
    model: Any = None,
    variables: Mapping[str, Any] | None = None,
    *,
    network: Any = None,
    image_shape: tuple[int, int, int] | None = None,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    class_names: Sequence[str] | None = None,
) -> FrozenModel:
    """A low-precision network as a graph of few-bit integers, compared with the network on noise.

    Args:
        model: a stripped model's folder, alone; or any Linen network without a branch, as `plq.convert` gives it, with
            the rest; or an `nnx.Module`, which holds its variables.
        network: of a folder whose network is not one of plq: its Linen class, or "package.module:Network".
        variables: its ``params`` and ``batch_stats``.
        image_shape: [height, width, channels].
        mean: of pixels from 0 to 255, one number or one per channel; the network sees (pixel - mean) / std.
        std: likewise.
        class_names: one for each logit; None: their numbers.
    Raises UserError for variables that are not stripped, for what has no graph, and if the two differ beyond ties.
    """
    if model is None and (isinstance(network, nn.Module) or is_nnx(network)):
        model, network = network, None
    if is_nnx(model):
        from plq.layers.nnx_layers import as_linen

        if variables is not None:
            raise UserError("freeze: found variables beside an nnx.Module, which holds its own")
        model, variables = as_linen(cast(Any, model))
    if not isinstance(model, nn.Module):
        if variables is not None:
            raise UserError("freeze: found a folder and variables, allowed a folder alone")
        with staged_input(place_given("model", model)) as path:
            exact = read_source(path, network).exact
    else:
        if network is not None:
            raise UserError("freeze: found network= beside a network, allowed it with a folder")
        if variables is None or image_shape is None:
            raise UserError("freeze: found a network alone, allowed a network with variables and image_shape")
        exact = stripped_model.from_network(model, variables, image_shape, mean, std, class_names)
    frozen = from_frozen(freeze_model(exact))
    compare_on_noise(frozen, exact)
    return frozen


def freeze_model(model: stripped_model.Model) -> Frozen:
    """The model as a graph of few-bit integers, with what is needed to feed it. Raises UserError if it has no graph.

    Folders of the machine at hand are left out of its training configuration.
    """
    variables = jax.device_get(model.variables)
    graph = lower(model.network, variables, model.image_shape, model.mean, model.std)
    return Frozen(graph, model.class_names, model.fit, _without_folders(model.training))


def _without_folders(training: dict[str, Any]) -> dict[str, Any]:
    config = {name: dict(fields) for name, fields in training.get("config", {}).items()}
    for section, field in (("data", "data_dir"), ("data", "cache_dir"), ("model", "init_from")):
        if field in config.get(section, {}):
            config[section][field] = ""
    if config.get("data", {}).get("labels"):
        config["data"]["labels"] = os.path.basename(config["data"]["labels"])  # which may lie with the images
    return {**training, **({"config": config} if config else {})}


def compare_on_noise(frozen: FrozenModel, exact: stripped_model.Model) -> None:
    """Raise UserError unless both compute the same, layer by layer, for images of random pixels."""
    images = np.random.default_rng(0).integers(0, 256, (NOISE, *exact.image_shape), np.uint8)
    _require_ties(frozen, exact, images, "noise image")


def _require_ties(frozen: FrozenModel, exact: stripped_model.Model, images: np.ndarray, what: str) -> None:
    reference = Reference(exact.network, exact.variables, exact.mean, exact.std)
    for start in range(0, len(images), AT_ONCE):
        for found in differences(frozen, reference, images[start : start + AT_ONCE]):
            if not found.tie:
                where = f"at {found.node}, in {found.codes} codes" if found.codes else "in the logits"
                amount = f"by {found.apart:.2g}, allowed {TIE if found.codes else LOGITS:.2g}; nothing was written"
                raise UserError(f"frozen and stripped model differ beyond ties for a {what}, first {where}, {amount}")
