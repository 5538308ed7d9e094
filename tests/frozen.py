"""Frozen networks that several tests share."""

import dataclasses
import io
import json
from functools import cache
from typing import Any

import jax
import numpy as np
from networks import digit_images, used_variables

from plq.frozen import container
from plq.frozen.file import Frozen, decode, encode
from plq.frozen.graph import Graph
from plq.frozen.record import record
from plq.layers.kit import Precision
from plq.models.registry import Architecture

CLASSES = tuple(f"digit {index}" for index in range(10))


def some_variables(network, image_shape, seed=0) -> dict[str, Any]:
    """Variables of any values, none of them computed by the network."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), np.zeros((1, *image_shape), np.float32))
    generator = np.random.default_rng(seed)
    leaf = lambda shape: generator.uniform(0.1, 0.9, shape.shape).astype(np.float32)
    return jax.tree.map(leaf, shapes)


def written(architecture: Architecture, image_shape=(40, 40, 1)) -> Graph:
    """The graph of a network with such variables."""
    network = architecture.plain()
    return record(network, some_variables(network, image_shape), image_shape, (0.0,), (256.0,))


@cache
def small() -> Frozen:
    """The SVHN network, 2-bit weights and activations, as narrow as it gets."""
    precision = Precision("dorefa", 2, "clip", 2)
    return Frozen(written(Architecture("svhn", 10, precision, width=0.02)), CLASSES, "square", {"step": 7})


def resealed(frozen: Frozen, change) -> bytes:
    """A file with a valid checksum whose description was changed: ``change(model, tensors)``, in place."""
    data = encode(frozen)
    tensors, metadata = container.load(io.BytesIO(data), len(data))
    model = json.loads(metadata["model"])
    change(model, tensors)
    return container.dump(tensors, {**metadata, "model": json.dumps(model)})


@cache
def used(architecture: Architecture, count: int = 32):
    """A plain network, variables as if trained, the frozen model as read from a file, and real images."""
    from plq.frozen.model import from_frozen

    images = digit_images(count)
    network = architecture.plain()
    variables = jax.device_get(used_variables(network, images))
    graph = record(network, variables, images.shape[1:], (0.0,), (256.0,))
    return network, variables, from_frozen(decode(encode(Frozen(graph, CLASSES, "square", {})))), images


def with_graph(model, **fields):
    """A frozen model whose graph has other fields."""
    from plq.frozen.model import from_frozen

    return from_frozen(dataclasses.replace(model.frozen, graph=dataclasses.replace(model.frozen.graph, **fields)))
