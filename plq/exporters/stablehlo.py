"""StableHLO by `jax.export`: the whole frozen model, from uint8 pixels to logits, in one file that needs JAX alone.

    exported = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
    logits = exported.call(images)                    # uint8 [batch, height, width, channels], batch 0 or more

It is one program for CPU, CUDA and TPU, with a way to convolve for each. Weights on a grid are constants of as many
bits as the grid has, without gaps, which the program takes apart; what a compiler makes of that once and for all is its
own affair. Whichever JAX writes the file, all from 0.10.0 on read it: it is in an old version of StableHLO.
"""

import contextlib
import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxlib.mlir.dialects import stablehlo

from plq.modes import in_32_bits
from plq.runtime.executor import Runner
from plq.runtime.graph import Graph
from plq.runtime.nodes import Product
from plq.runtime.pack import pack

PLATFORMS = ("cpu", "cuda", "tpu")
STABLEHLO = "1.13.0"  # JAX 0.10.0 reads up to 1.16; JAX 0.11 would by itself write 1.18
SETTINGS = {
    "jax_traceback_in_locations_limit": 0,  # no paths of source files beside every operation
    "jax_export_calling_convention_version": 10,  # JAX 0.10.0 reads 9 and 10
}
FUNCTION = "plq_logits"  # the name that a file gives to what is in it


def serialized(runner: Runner) -> bytes:
    """The model as bytes for `jax.export.deserialize`."""
    products = [node for node in runner.graph.nodes if isinstance(node, Product) and node.grid is not None]
    packed = {node.name: packed_codes(runner.graph, node) for node in products}

    def logits(images: Array) -> Array:
        kernels = {node.name: _kernel(runner, node, jnp.asarray(packed[node.name])) for node in products}
        return runner.logits({**runner.arrays, **kernels}, images)

    logits.__name__ = FUNCTION
    (batch,) = jax.export.symbolic_shape("batch - 1")  # a variable is 1 or more, and a batch may be of 0 images
    images = jax.ShapeDtypeStruct((batch, *runner.graph.image_shape), np.uint8)
    with in_32_bits(), _settings():
        exported = jax.export.export(jax.jit(logits), platforms=PLATFORMS)(images)
        module = stablehlo.serialize_portable_artifact_str(exported.mlir_module(), STABLEHLO)
        return bytes(dataclasses.replace(exported, mlir_module_serialized=module).serialize())


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    try:
        for name, value in SETTINGS.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def packed_codes(graph: Graph, node: Product) -> np.ndarray:
    """The codes of a kernel as a stream of bits, uint8; filled up with zeros to whole groups of eight codes."""
    assert node.grid is not None
    data = pack(graph.tensors[node.tensor("kernel")], node.grid.bits)
    return np.pad(data, (0, -len(data) % node.grid.bits))


def unpacked(data: Array, bits: int, shape: tuple[int, ...]) -> Array:
    """The uint8 codes of `packed_codes`, in JAX: eight codes are as many bytes as a code has bits."""
    groups = data.reshape(-1, bits)
    columns = []
    for first, shift in (divmod(index * bits, 8) for index in range(8)):
        code = groups[:, first] >> shift
        if shift + bits > 8:
            code = code | (groups[:, first + 1] << (8 - shift))
        columns.append(code & (2**bits - 1))
    return jnp.stack(columns, 1).reshape(-1)[: np.prod(shape, dtype=int)].reshape(shape)


def _kernel(runner: Runner, node: Product, data: Array) -> Array | tuple:
    """What a runner takes as the array of this node, from the packed codes of its kernel."""
    grid, tensors = node.grid, runner.graph.tensors
    assert grid is not None
    codes = unpacked(data, grid.bits, tensors[node.tensor("kernel")].shape)
    integers = jnp.asarray(grid.integers)[codes]
    if node.name in runner.products:
        return integers, runner.arrays[node.name][1]
    return (integers / grid.multiple).astype(jnp.float32) * tensors[node.tensor("scale")]
