"""The served model: a stripped checkpoint in the pure low-precision network.

from plq.runtime import stripped_model
model = stripped_model.load("runs/digits/model")
logits = model(images)                            # uint8 [batch, height, width, channels]
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError
from jax import Array

from plq.checkpoint.match import leaf_shapes, require_same_leaves
from plq.checkpoint.model_file import read_model
from plq.checkpoint.store import open_store
from plq.checks import instance, typed
from plq.data.augment import normalize
from plq.data.resize import resize_batch, resize_image
from plq.distributed.devices import devices
from plq.errors import UserError, first_line, one_line
from plq.layers.variables import ancillary_leaves, as_dicts, flatten, kept, leaf_path, nest
from plq.models.own import in_evaluation
from plq.models.trainable import from_json
from plq.storage.address import Address
from plq.storage.staging import staged_input


@dataclasses.dataclass(frozen=True)
class Model:
    """A low-precision network with its variables and everything needed to feed it an image.

    ``network`` is a Flax module without any code of the ancillary branch, called as ``network(images)``; ``variables``
    are ``params``, ``batch_stats`` and what other collections somebody's own network has. ``image_shape`` is [height,
    width, channels]; ``mean`` and ``std`` are in units of 0..255. ``fit``: larger and smaller images are squared
    ("square") or their middle is taken ("center").
    """

    network: nn.Module
    variables: dict[str, Any]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    fit: str
    training: dict[str, Any]

    def __call__(self, images: np.ndarray) -> Array:
        """Logits, float32 [batch, classes], of uint8 images [batch, height, width, channels] of any size.

        Raises UserError for images of another type or number of channels.
        """
        return self._logits(self.variables, resize_batch(images, self.image_shape, self.fit))

    def fitted(self, image: np.ndarray) -> np.ndarray:
        """An image uint8 [height, width, channels] brought to the network's size as the test images were."""
        return resize_image(image, self.image_shape, self.fit)

    @cached_property
    def _logits(self):
        return jax.jit(lambda variables, x: self.network.apply(variables, normalize(x, self.mean, self.std)))


def load(path: str | Path | Address, network: Any = None) -> Model:
    """Read a model folder, also at an address (gs://, s3://).

    Args:
        network: the code of a network that is not one of plq: its class, or "package.module:Network". A folder never
            makes plq import anything.
    Raises UserError for anything that is not a whole, stripped model of plq.
    """
    with staged_input(path) as folder:
        if (folder / "checkpoints").is_dir():
            store = open_store(folder)
            _require_stripped(nest(dict(store.leaves(store.choose(None)))), str(path))
        variables, description = read_model(folder)
    return from_variables(variables, description, str(path), network)


def from_variables(
    variables: Mapping[str, Any], description: dict[str, Any], source: str = "variables", network: Any = None
) -> Model:
    """The model of variables in hand. Raises UserError, naming the leaves, if they are unstripped or do not fit.

    ``network``: see `load`.
    """
    devices()
    _require_stripped(variables, source)
    try:
        architecture = from_json(description["architecture"], network)
    except KeyError as error:
        raise UserError(f"{source}: its description lacks or misstates {error}") from error
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    try:
        model = Model(
            network=architecture.plain(),
            variables=jax.tree.map(np.asarray, kept(as_dicts(variables))),
            image_shape=tuple(description["image_shape"]),
            mean=tuple(description["mean"]),
            std=tuple(description["std"]),
            class_names=tuple(description["class_names"]),
            fit=description["fit"],
            training=description["training"],
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{source}: its description lacks or misstates {error}") from error
    return _fitted(model, source)


def from_network(
    network: nn.Module,
    variables: Mapping[str, Any],
    image_shape: tuple[int, int, int],
    mean: Sequence[float],
    std: Sequence[float],
    class_names: Sequence[str] | None,
) -> Model:
    """The model of a network in hand. Raises UserError as `from_variables` does, and naming what else is wrong.

    ``class_names``: None numbers them.
    """
    instance("variables", variables, Mapping, "a Mapping of collections")
    shape = _image_shape(image_shape)
    mean, std = (_per_channel(field, value, shape[2]) for field, value in (("mean", mean), ("std", std)))
    if min(std) <= 0:
        raise UserError(f"std={std}: allowed numbers above 0")
    _require_stripped(variables, "variables")
    served, network = kept(as_dicts(variables)), in_evaluation(network)
    classes = _outputs(network, served, shape)
    names = tuple(map(str, range(classes)))
    if class_names is not None:
        names = typed("class_names", _plain(class_names), tuple[str, ...])
    if len(names) != classes:
        raise UserError(f"class_names: found {len(names)}, allowed {classes}, one per logit")
    return _fitted(Model(network, served, shape, mean, std, names, "square", {}), "variables")


def _plain(given: Any) -> Any:
    return given.tolist() if isinstance(given, np.ndarray) else given


def _image_shape(given: Any) -> tuple[int, int, int]:
    found = typed("image_shape", _plain(given), tuple[int, ...])
    if len(found) != 3 or min(found) < 1:
        raise UserError(f"image_shape={found}: allowed height, width and channels, each 1 or more")
    return found


def _per_channel(field: str, given: Any, channels: int) -> tuple[float, ...]:
    found = typed(field, _plain(given), tuple[float, ...])
    if len(found) not in (1, channels):
        raise UserError(f"{field}={found}: found {len(found)} numbers, allowed 1 or {channels}, one per channel")
    return found


def _outputs(network: nn.Module, variables: dict[str, Any], image_shape: tuple[int, int, int]) -> int:
    """How many numbers the network gives for an image. Raises UserError if it does not take the image or variables."""
    images = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
    name = type(network).__name__
    try:
        output = jax.eval_shape(network.apply, variables, images)
    except (FlaxError, AssertionError, AttributeError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        what = f"the network with these variables does not take images of {'x'.join(map(str, image_shape))}"
        raise UserError(f"image_shape, variables: {what} ({type(error).__name__}: {first_line(error)})") from error
    leaves = jax.tree.leaves(output)
    if not leaves or any(len(leaf.shape) < 1 for leaf in leaves):
        raise UserError(f"{name}: gives {len(leaves)} arrays, allowed arrays [batch, ..., classes], one at least")
    return leaves[0].shape[-1] if len(leaves[0].shape) > 1 else 1


def _require_stripped(tree: Any, source: str) -> None:
    unstripped = ancillary_leaves(tree)
    if unstripped:
        shown = ", ".join(unstripped[:4]) + (", ..." if len(unstripped) > 4 else "")
        found = f"not stripped, {len(unstripped)} ancillary leaves: {shown}"
        raise UserError(f"{source}: {found}; strip it first: plq prune --workdir DIR --out PATH")


def _fitted(model: Model, source: str) -> Model:
    """The model with its variables in the structure of the network's own.

    Raises UserError, naming the leaves, unless they are those of the network in name, shape and dtype.
    """
    images = jax.ShapeDtypeStruct((1, *model.image_shape), np.float32)
    with one_line(f"{source}: its network"):
        wanted = nn.meta.unbox(jax.eval_shape(model.network.init, jax.random.key(0), images))
    require_same_leaves(leaf_shapes(model.variables), leaf_shapes(wanted), source)
    found = flatten(model.variables)
    in_place = jax.tree_util.tree_map_with_path(lambda path, _: jnp.asarray(found[leaf_path(path)]), wanted)
    return dataclasses.replace(model, variables=kept(in_place))
