"""Small frozen networks, as if trained, that are quick to make: no training, and nothing compiled."""

import dataclasses
from functools import cache

import flax.traverse_util
import jax
import numpy as np

from plq.data.digits import load_digits
from plq.data.images import resize
from plq.layers.factory import QuantConfig
from plq.models.registry import Architecture
from plq.runtime.file_format import Frozen
from plq.runtime.frozen import FrozenModel, from_frozen
from plq.runtime.graph import Graph
from plq.runtime.grid import Grid
from plq.runtime.lowering import lower as record
from plq.runtime.nodes import Activation, Add, Affine, Conv, Dense, GlobalMean, MaxPool, Normalize, Product

CHANNELS = 8
BINARY, TWO_BITS = Grid(1, -0.5), Grid(2)
SPREAD, MIDDLE = 0.35, 0.45  # mean square and mean of what a layer gets, more or less


@cache
def frozen_model(name: str, size: int, width: float, weights: str, weight_bits: int, activations: str,
                 activation_bits: int, **options) -> FrozenModel:  # fmt: skip
    """A network on grey images: random weights, batch norms fit to them, of either sign, scales all different."""
    precision = QuantConfig(weights, weight_bits, activations, activation_bits)
    network = Architecture(name, 10, precision, width, **options).plain()
    shapes = jax.eval_shape(network.init, jax.random.key(0), np.zeros((1, size, size, 1), np.float32))
    variables = filled(shapes, weight_bits, activation_bits)
    graph = record(network, variables, (size, size, 1), (0.0,), (256.0,))
    return from_frozen(Frozen(normalized(graph), tuple(map(str, range(10))), "square", {}))


def filled(shapes: dict, weight_bits: int, activation_bits: int) -> dict:
    """Random numbers in the shapes of variables; dense layers without a bias towards any class."""
    generator = np.random.default_rng(0)
    flat = flax.traverse_util.flatten_dict(shapes)
    kernels = {path[:-1]: shape.shape for path, shape in flat.items() if path[-1] == "kernel"}
    clip = {"alpha": 1.5, "offset": -0.3, "step": 1.5 / (2**activation_bits - 1)}  # of activations

    def leaf(path: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
        spread = 1 / np.sqrt(np.prod(kernels.get(path[:-1], (1, 1))[:-1]))
        if path[-1] == "kernel":
            kernel = generator.normal(0, spread, shape)
            return np.float32(kernel - (kernel.mean(0) if len(shape) == 2 else 0))
        if path[-1] in ("bias", "mean"):
            return np.zeros(shape, np.float32)
        scales = {"alpha": 2.5, "step": 2.5 * spread / max(1, 2 ** (weight_bits - 1) - 1), "scale": spread}
        usual = clip if "act" in path else scales if path[:-1] in kernels else {}
        return np.float32(usual.get(path[-1], 1.0) * generator.uniform(0.8, 1.25, shape))

    return flax.traverse_util.unflatten_dict({path: leaf(path, shape.shape) for path, shape in flat.items()})


def normalized(graph: Graph) -> Graph:
    """The graph with batch norms that bring what they get to a mean of about 0.3 and a deviation of about 1/2."""
    generator, tensors = np.random.default_rng(1), dict(graph.tensors)
    products = {node.name: node for node in graph.nodes if isinstance(node, Product)}
    for node in graph.nodes:
        if not isinstance(node, Affine) or node is graph.nodes[-1]:
            continue
        kernel = graph.kernel(products[node.inputs[0]]).reshape(-1, products[node.inputs[0]].features)
        signs = generator.choice([-1, 1], kernel.shape[1]) * generator.uniform(0.4, 0.6, kernel.shape[1])
        scale = signs / np.sqrt(SPREAD * np.square(kernel).sum(0) + 1e-3)
        shift = generator.uniform(0.2, 0.4, kernel.shape[1]) - MIDDLE * kernel.sum(0) * scale
        tensors[node.tensor("scale")], tensors[node.tensor("shift")] = np.float32(scale), np.float32(shift)
    return dataclasses.replace(graph, tensors=tensors)


def digits(count: int, size: int) -> np.ndarray:
    """Real digits, uint8 [count, size, size, 1]."""
    return np.stack([resize(image, (size, size)) for image in load_digits()[0][:count]])


def small_graph(weights=BINARY, activation=None, residual=False, inputs=TWO_BITS, scale_shape=(1, 1, 1, 1)) -> Graph:
    """Image -> codes -> 3x3 convolution, batch norm, [residual], pooling -> codes -> mean -> dense."""
    generator = np.random.default_rng(0)
    last = {"grid": TWO_BITS, "scale": 0.5, "divisor": 0.5, **(activation or {})}
    scale = last["scale"] if residual else float(np.float32(0.75 / (inputs.codes - 1)))
    nodes = [
        Normalize("normalize", ("image",), (0.0,), (256.0,)),
        Conv("stem", ("normalize",), CHANNELS, None, (1, 1)),
        Activation("codes", ("stem",), "relu", inputs, scale, scale),
        Conv("conv", ("codes",), CHANNELS, weights, (3, 3), padding=((1, 1), (1, 1))),
        Affine("norm", ("conv",)),
        *([Add("add", ("codes", "norm"))] if residual else []),
        MaxPool("pool", ("add" if residual else "norm",), 3, 2, ((1, 1), (1, 1))),
        Activation("act", ("pool",), **{"nonlinearity": "identity", **last}),
        GlobalMean("mean", ("act",)),
        Dense("dense", ("mean",), 10, None),
    ]
    tensors = {
        "stem/kernel": generator.uniform(0.3, 1.5, (1, 1, 1, CHANNELS)),
        "conv/kernel": generator.integers(0, weights.codes, (3, 3, CHANNELS, CHANNELS)).astype(np.uint8),
        "conv/scale": generator.uniform(0.8, 1.6, scale_shape) / weights.largest * weights.multiple / 2,
        "norm/scale": generator.choice([-1, 1], CHANNELS) * generator.uniform(0.5, 1.5, CHANNELS),
        "norm/shift": generator.normal(0, 0.5, CHANNELS),
        "dense/kernel": generator.normal(size=(CHANNELS, 10)),
    }
    tensors = {name: t if t.dtype == np.uint8 else t.astype(np.float32) for name, t in tensors.items()}
    found = Graph((9, 9, 1), tuple(nodes), tensors)
    found.check()
    return found


def small_model(training: dict | None = None, **fields) -> FrozenModel:
    """The model of `small_graph`."""
    return from_frozen(Frozen(small_graph(**fields), tuple(map(str, range(10))), "square", training or {}))
