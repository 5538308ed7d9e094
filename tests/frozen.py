"""Frozen networks that several tests share."""

import dataclasses
import io
import json
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from networks import digit_images

from plq.layers.factory import QuantConfig, plain_factory
from plq.layers.operations import flatten, global_mean, max_pool, max_pool_2x2, zero_pad_shortcut
from plq.models.registry import Architecture
from plq.runtime import container
from plq.runtime.file_format import Frozen, decode, encode
from plq.runtime.frozen import FrozenModel, from_frozen
from plq.runtime.graph import Graph
from plq.runtime.lowering import lower as record
from plq.runtime.verification import Reference

CLASSES = tuple(f"digit {index}" for index in range(10))


def some_variables(network, image_shape, seed=0) -> dict[str, Any]:
    """Variables of any values, none of them computed by the network: kernels of both signs, all else above 0."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), np.zeros((1, *image_shape), np.float32))
    generator = np.random.default_rng(seed)

    def leaf(path, shape):
        low, high = (-0.5, 0.5) if path[-1].key == "kernel" else (0.1, 0.4)
        return generator.uniform(low, high, shape.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def written(architecture: Architecture, image_shape=(40, 40, 1)) -> Graph:
    """The graph of a network with such variables."""
    network = architecture.plain()
    return record(network, some_variables(network, image_shape), image_shape, (0.0,), (256.0,))


@cache
def small() -> Frozen:
    """The SVHN network, 2-bit weights and activations, as narrow as it gets."""
    precision = QuantConfig("dorefa", 2, "clip", 2)
    return Frozen(written(Architecture("svhn", 10, precision, width=0.02)), CLASSES, "square", {"step": 7})


def resealed(frozen: Frozen, change) -> bytes:
    """A file with a valid checksum whose description was changed: ``change(model, tensors)``, in place."""
    data = encode(frozen)
    tensors, metadata = container.load(io.BytesIO(data), len(data))
    model = json.loads(metadata["model"])
    change(model, tensors)
    return container.dump(tensors, {**metadata, "model": json.dumps(model)})


class Mixed(nn.Module):
    """A small network that has every operation: groups, dilation, strides, residual, pooling, a dense inner layer."""

    kit: Any

    @nn.compact
    def __call__(self, x, train=False):
        inner = self.kit.inner
        pool = partial(max_pool, window=3, stride=2, padding=((1, 1), (0, 1)))
        x = self.kit.first(6, (5, 5), (2, 2), pool=pool, name="stem")(x, train)
        y = inner(6, (3, 3), groups=6, dilation=(2, 1), name="depthwise")(x, train)
        y = inner(6, (3, 3), padding=((2, 0), (1, 1)), name="uneven")(y, train, x)
        y = inner(12, (3, 3), (2, 2), "SAME", groups=2, name="grouped")(
            y, train, zero_pad_shortcut(y, stride=2, channels=12)
        )
        y = inner(16, (2, 3), pool=max_pool_2x2, use_bias=True, name="wide")(y, train)
        z = self.kit.unexpanded(10, (), use_bias=True, use_norm=False, name="dense")(flatten(y), train)
        y = inner(10, (1, 1), padding="VALID", activation=self.kit.float_activation, name="top")(y, train)
        return self.kit.last(10, (), use_bias=True, name="last")(global_mean(y) + z, train)


def used(precision: QuantConfig, count: int = 16) -> tuple[FrozenModel, Reference, np.ndarray]:
    """`Mixed` with variables as if trained: as read from a frozen file, as it is, and real images."""
    images = digit_images(count)
    network = Mixed(plain_factory(precision))
    variables = with_statistics(network, some_variables(network, images.shape[1:]), images)
    graph = record(network, variables, images.shape[1:], (0.0,), (256.0,))
    frozen = decode(encode(Frozen(graph, CLASSES, "square", {})))
    return from_frozen(frozen), Reference(network, variables, (0.0,), (256.0,)), images


def with_statistics(network: nn.Module, variables: dict[str, Any], images: np.ndarray) -> dict[str, Any]:
    """The variables with batch statistics of these images."""
    run = lambda variables, images: network.apply(variables, images / np.float32(256), True, mutable=["batch_stats"])
    updated = jax.jit(run)(variables, images)[1]["batch_stats"]
    whole = lambda new, old: np.asarray((new - 0.9 * old) / 0.1)  # the running average moves by a tenth
    return {**variables, "batch_stats": jax.tree.map(whole, updated, variables["batch_stats"])}


def with_node(model: FrozenModel, name: str, **fields: Any) -> FrozenModel:
    """The model with other fields of a node."""
    graph = model.frozen.graph
    nodes = tuple(dataclasses.replace(node, **fields) if node.name == name else node for node in graph.nodes)
    return from_frozen(dataclasses.replace(model.frozen, graph=dataclasses.replace(graph, nodes=nodes)))


def with_tensor(model: FrozenModel, name: str, change: Callable[[np.ndarray], np.ndarray]) -> FrozenModel:
    """The model with another tensor."""
    graph = model.frozen.graph
    tensors = {**graph.tensors, name: change(graph.tensors[name].copy())}
    return from_frozen(dataclasses.replace(model.frozen, graph=dataclasses.replace(graph, tensors=tensors)))
