"""What a frozen network is made of: one class per operation, with its fields, tensors, and the shape it gives.

Shapes are without the batch axis: images are [height, width, channels], vectors [channels]. Here are the layers of
image networks; `plq.runtime.array_nodes` has what else JAX does with arrays.
"""

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from plq.runtime.array_nodes import ARRAY_NODES
from plq.runtime.grid import Grid
from plq.runtime.node import Node, Pads, Pair, Shape, Tensors, Value

LARGEST, SMALLEST = float(np.finfo(np.float32).max), float(np.finfo(np.float32).tiny)  # normal, not subnormal
NONLINEARITIES = ("identity", "relu", "clip", "abs", "abs_clip", "hard_swish")
ROUNDINGS = ("half_even", "half_up")


@dataclasses.dataclass(frozen=True)
class Normalize(Node):
    """uint8 pixels -> (x - mean) / std, float32; one number for all channels, or one per channel, in units of 0..255.

    The only node that reads "image", and the first.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    op: ClassVar[str] = "normalize"

    def result(self, inputs: Sequence[Value], tensors: Tensors) -> Value:
        channels = self.image(inputs[0])[2]
        for field, least in (("mean", -LARGEST), ("std", SMALLEST)):
            numbers = getattr(self, field)
            if len(numbers) not in (1, channels):
                raise self.fail(f"{len(numbers)} numbers in {field}", f"1 or {channels}")
            if not all(least <= number <= LARGEST for number in numbers):
                raise self.fail(f"{field} {list(numbers)}", f"{least:.2g} to {LARGEST:.2g}")
        return Value(inputs[0].shape)


@dataclasses.dataclass(frozen=True)
class Product(Node):
    """Convolution or dense layer, without bias: float32.

    Tensors: with a ``grid``, "kernel" uint8 codes and "scale" float32, of the kernel's rank and broadcastable to
    it, 1 along the input channels; weight = (level + offset) * scale. Without: "kernel" float32.

    If input and weights both have a grid, the sum over each scale's group of weights is one of integers.
    """

    features: int
    grid: Grid | None

    def roles(self) -> dict[str, type]:
        return {"kernel": np.float32} if self.grid is None else {"kernel": np.uint8, "scale": np.float32}

    @abc.abstractmethod
    def kernel_shape(self, channels: int) -> Shape:
        """The kernel's shape for this many input channels."""

    def check_kernel(self, shape: Shape, tensors: Tensors) -> None:
        """Raise UserError unless kernel and scale have the shapes they must have and codes are below the limit."""
        kernel = tensors[self.tensor("kernel")]
        if kernel.shape != shape:
            raise self.fail(f"a kernel of shape {list(kernel.shape)}", f"{list(shape)}")
        if self.grid is None:
            return
        self.grid.check(f"node {self.name} ({self.op})")
        scale = tensors[self.tensor("scale")].shape
        fits = len(scale) == len(shape) and all(a in (1, b) for a, b in zip(scale, shape, strict=True))
        if not fits or scale[-2] != 1:
            raise self.fail(f"scales of shape {list(scale)}", f"one broadcastable to {[*shape[:-2], 1, shape[-1]]}")
        if kernel.size and int(kernel.max()) >= self.grid.codes:
            raise self.fail(f"the code {int(kernel.max())}", f"0 to {self.grid.codes - 1}")


@dataclasses.dataclass(frozen=True)
class Conv(Product):
    """2-D convolution of [height, width, in]; "kernel" is [*kernel_size, in / groups, features].

    ``padding``: zeros before and after height and width, as in ((1, 1), (1, 1)); they stand for real zeros, whatever
    the grid. ``dilation``: of the kernel. As everywhere in deep learning the kernel is not flipped.
    """

    kernel_size: Pair
    strides: Pair = (1, 1)
    padding: Pads = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1
    op: ClassVar[str] = "conv"

    def kernel_shape(self, channels: int) -> Shape:
        return (*self.kernel_size, channels // self.groups, self.features)

    def result(self, inputs: Sequence[Value], tensors: Tensors) -> Value:
        *size, channels = self.image(inputs[0])
        for field in ("kernel_size", "strides", "dilation"):
            self.require(field, getattr(self, field), 1)
        self.require("features", (self.features,), 1)
        self.require("groups", (self.groups,), 1)
        if channels % self.groups or self.features % self.groups:
            raise self.fail(f"{self.groups} groups", f"a divisor of {channels} and {self.features} channels")
        self.check_kernel(self.kernel_shape(channels), tensors)
        spans = [(k - 1) * d + 1 for k, d in zip(self.kernel_size, self.dilation, strict=True)]
        return Value((*windows(self, size, spans, self.strides, self.padding), self.features))


@dataclasses.dataclass(frozen=True)
class Dense(Product):
    """[in] times "kernel" [in, features]."""

    op: ClassVar[str] = "dense"

    def kernel_shape(self, channels: int) -> Shape:
        return (channels, self.features)

    def result(self, inputs: Sequence[Value], tensors: Tensors) -> Value:
        if len(inputs[0].shape) != 1:
            raise self.fail(f"an input of shape {list(inputs[0].shape)}", "[channels]")
        self.require("features", (self.features,), 1)
        self.check_kernel(self.kernel_shape(inputs[0].shape[0]), tensors)
        return Value((self.features,))


@dataclasses.dataclass(frozen=True)
class Affine(Node):
    """y = x * scale + shift per channel, float32: batch norm with its statistics folded in, or a bias (scale 1).

    Tensors: "scale" and "shift", float32 [channels].
    """

    op: ClassVar[str] = "affine"

    def roles(self) -> dict[str, type]:
        return {"scale": np.float32, "shift": np.float32}

    def result(self, inputs: Sequence[Value], tensors: Tensors) -> Value:
        for role in self.roles():
            found = tensors[self.tensor(role)].shape
            if found != inputs[0].shape[-1:]:
                raise self.fail(f"{role} of shape {list(found)}", f"{list(inputs[0].shape[-1:])}")
        return Value(inputs[0].shape)


@dataclasses.dataclass(frozen=True)
class Add(Node):
    """The sum of two values of one shape, float32: a residual connection."""

    op: ClassVar[str] = "add"
    arity: ClassVar[int] = 2

    def result(self, inputs: Sequence[Value], tensors: Tensors) -> Value:
        if inputs[0].shape != inputs[1].shape:
            raise self.fail(f"shapes {list(inputs[0].shape)} and {list(inputs[1].shape)}", "equal ones")
        return Value(inputs[0].shape)


@dataclasses.dataclass(frozen=True)
class Activation(Node):
    """A non-linearity h, and with a ``grid`` the quantization of what it gives.

        v = h(x) / divisor * factor                                     float32, in this order
        code = clip(round(v) - offset, 0, codes - 1)                    uniform grid
        code = how many midpoints of neighbouring levels are <= v       with levels
        value = (level + offset) * scale

    | nonlinearity | h(x)                       |
    |--------------|----------------------------|
    | identity     | x                          |
    | relu         | max(0, x)                  |
    | clip         | clip(x, 0, 1)              |
    | abs          | |x|                        |
    | abs_clip     | min(1, |x|)                |
    | hard_swish   | x * clip(x + 3, 0, 6) / 6  |

    ``rounding``: "half_even", or "half_up" (floor(v + 1/2)). The offset of an activation is an integer, and scale is
    divisor / factor but for the last bit (divisor and factor are kept apart so that codes are those of training).
    All three are float32 numbers. Without a grid they must be 1, and rounding "half_even".
    """

    nonlinearity: str
    grid: Grid | None = None
    scale: float = 1.0
    divisor: float = 1.0
    factor: float = 1.0
    rounding: str = "half_even"
    op: ClassVar[str] = "activation"

    def result(self, inputs: Sequence[Value], tensors: Tensors) -> Value:
        self.one_of("nonlinearity", self.nonlinearity, NONLINEARITIES)
        self.one_of("rounding", self.rounding, ROUNDINGS)
        numbers = (self.scale, self.divisor, self.factor)
        if self.grid is None:
            if numbers != (1, 1, 1) or self.rounding != "half_even":
                raise self.fail("scale, divisor, factor or rounding without a grid", "the defaults")
            return Value(inputs[0].shape)
        self.grid.check(f"node {self.name} ({self.op})")
        if self.grid.multiple != 1:
            raise self.fail(f"offset {self.grid.offset}", "an integer")
        if not all(0 < number <= LARGEST and float(np.float32(number)) == number for number in numbers):
            raise self.fail(f"scale, divisor and factor {list(numbers)}", "float32 numbers above 0")
        if not math.isclose(self.scale, self.divisor / self.factor, rel_tol=1e-6):
            raise self.fail(f"scale {self.scale}", f"divisor / factor = {self.divisor / self.factor}")
        return Value(inputs[0].shape, self.grid, self.scale)


@dataclasses.dataclass(frozen=True)
class MaxPool2x2(Node):
    """2x2 max pooling, stride 2; an odd last row or column is dropped. Keeps the grid."""

    op: ClassVar[str] = "halve"

    def result(self, inputs: Sequence[Value], tensors: Tensors) -> Value:
        height, width, channels = self.image(inputs[0])
        if min(height, width) < 2:
            raise self.fail(f"{height}x{width} pixels", "2x2 or more")
        return dataclasses.replace(inputs[0], shape=(height // 2, width // 2, channels))


@dataclasses.dataclass(frozen=True)
class MaxPool(Node):
    """The largest of each window x window pixels, every ``stride`` pixels; padding never wins. Keeps the grid."""

    window: int
    stride: int
    padding: Pads
    op: ClassVar[str] = "max_pool"

    def result(self, inputs: Sequence[Value], tensors: Tensors) -> Value:
        *size, channels = self.image(inputs[0])
        self.require("window", (self.window,), 1)
        self.require("stride", (self.stride,), 1)
        self.require("padding", [n for pair in self.padding for n in pair], 0, self.window - 1)
        sizes = windows(self, size, [self.window] * 2, (self.stride,) * 2, self.padding)
        return dataclasses.replace(inputs[0], shape=(*sizes, channels))


@dataclasses.dataclass(frozen=True)
class GlobalMean(Node):
    """[height, width, channels] -> [channels], float32: the mean over all pixels."""

    op: ClassVar[str] = "global_mean"

    def result(self, inputs: Sequence[Value], tensors: Tensors) -> Value:
        return Value(self.image(inputs[0])[2:])


@dataclasses.dataclass(frozen=True)
class Flatten(Node):
    """[height, width, channels] -> [values], the last axis fastest. Keeps the grid."""

    op: ClassVar[str] = "flatten"

    def result(self, inputs: Sequence[Value], tensors: Tensors) -> Value:
        return dataclasses.replace(inputs[0], shape=(math.prod(inputs[0].shape),))


@dataclasses.dataclass(frozen=True)
class ZeroPadShortcut(Node):
    """Every stride-th pixel, from the first, and ``channels`` channels: (channels - in) // 2 of zeros before, the rest
    after. Keeps the grid: a zero is a real zero, also where the grid has no code for it.
    """

    stride: int
    channels: int
    op: ClassVar[str] = "shrink"

    def result(self, inputs: Sequence[Value], tensors: Tensors) -> Value:
        height, width, channels = self.image(inputs[0])
        self.require("stride", (self.stride,), 1)
        self.require("channels", (self.channels,), channels)
        shape = (-(-height // self.stride), -(-width // self.stride), self.channels)
        return dataclasses.replace(inputs[0], shape=shape)


def windows(node: Node, size: Sequence[int], spans: Sequence[int], strides: Sequence[int], padding: Pads) -> Shape:
    """How many windows of these spans there are along height and width. Raises UserError if there is none."""
    node.require("padding", [n for pair in padding for n in pair], 0)
    rooms = [n + sum(pads) - span for n, pads, span in zip(size, padding, spans, strict=True)]
    if min(rooms) < 0:
        raise node.fail(f"{size[0]}x{size[1]} pixels", f"as many as the window of {spans[0]}x{spans[1]}, padded")
    return tuple(room // stride + 1 for room, stride in zip(rooms, strides, strict=True))


IMAGE_NODES: tuple[type[Node], ...] = (
    Normalize, Conv, Dense, Affine, Add, Activation, MaxPool2x2, MaxPool, GlobalMean, Flatten, ZeroPadShortcut,
)  # fmt: skip
NODES: dict[str, type[Node]] = {kind.op: kind for kind in (*IMAGE_NODES, *ARRAY_NODES)}
