"""Activation quantizers as nodes: the numbers that stand in their formulas."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from plq.errors import UserError
from plq.quant.activations import AbsActivation, ClipActivation, ReluActivation
from plq.quant.apot import APoTActivation
from plq.quant.base import FLOAT_BITS, ActivationQuantizer, Scales
from plq.quant.learned import positive
from plq.quant.lsq import LSQActivation
from plq.quant.lsq_plus import LSQPlusActivation
from plq.quant.pact import PACTActivation
from plq.runtime.arithmetic import before_rounding, on_grid
from plq.runtime.grid import Grid
from plq.runtime.nodes import Activation

BESIDE = 1e-3  # of a step: nearer to a boundary the last bit of a quotient decides, and compilers differ in it


@dataclasses.dataclass(frozen=True)
class Formula:
    """How a quantizer gets from x to what it rounds; see `Activation`.

    ``in_float``: the non-linearity at 32 bits. ``clip``: what x is divided by before it is multiplied by the grid's
    last level, 1 or the name of a learned scale; empty: x is divided by the grid's scale, and that is all.
    """

    in_float: str
    nonlinearity: str = "identity"
    clip: str = ""
    rounding: str = "half_even"


FORMULAS: dict[type[ActivationQuantizer], Formula] = {
    AbsActivation: Formula("abs_clip", "abs", clip="1"),
    ClipActivation: Formula("clip", clip="1", rounding="half_up"),
    ReluActivation: Formula("relu"),
    PACTActivation: Formula("relu", clip="alpha"),
    LSQActivation: Formula("relu"),
    LSQPlusActivation: Formula("hard_swish", "hard_swish"),
    APoTActivation: Formula("relu"),
}


def activation_fields(quantizer: ActivationQuantizer, scales: Scales) -> dict[str, Any]:
    """The fields of the `Activation` that computes the codes of this quantizer with these learned scales.

    Raises UserError if it is not known here how to write it down, or if what was written down gives other codes.
    """
    formula = FORMULAS.get(type(quantizer))
    if formula is None:
        raise UserError(f"activation {type(quantizer).__name__}: cannot be written down; see plq.runtime.activations")
    if quantizer.bits == FLOAT_BITS:
        return {"nonlinearity": formula.in_float}
    like = quantizer.quantize(jnp.zeros((1, 1)), scales)
    levels = None if like.levels is None else tuple(map(int, like.levels))
    grid, scale = Grid(quantizer.bits, float(like.offset), levels), float(like.scale)
    learned = {name: float(positive(value)) for name, value in scales.items()}
    fields: dict[str, Any] = {
        "nonlinearity": formula.nonlinearity,
        "grid": grid,
        "scale": scale,
        "divisor": {"1": 1.0, "": scale, **learned}[formula.clip],
        "factor": float(grid.integers[-1]) if formula.clip else 1.0,
        "rounding": formula.rounding,
    }
    _require_same_codes(quantizer, scales, Activation("activation", ("x",), **fields))
    return fields


def _require_same_codes(quantizer: ActivationQuantizer, scales: Scales, node: Activation) -> None:
    """In the middle and on both sides of every boundary between two codes, and far outside."""
    assert node.grid is not None
    integers = node.grid.integers.astype(np.float32)
    middles = (integers[1:] + integers[:-1]) / 2
    v: Any = [integers, middles - BESIDE, middles + BESIDE, 2 * integers[[0, -1]] - 3, 2 * integers[[0, -1]] + 3]
    x = (np.concatenate(v) * node.divisor / node.factor).astype(np.float32)
    like = dataclasses.replace(node, scale=1.0, divisor=1.0, factor=1.0)  # so that units share a compilation
    found = _integers(like, x, np.float32(node.divisor), np.float32(node.factor)) * np.float32(node.scale)
    if not np.array_equal(found, _values(quantizer, x, scales)):
        raise UserError(f"activation {type(quantizer).__name__}: its formula in plq.runtime.activations is out of date")


@partial(jax.jit, static_argnums=0)
def _integers(node: Activation, x: Any, divisor: Any, factor: Any) -> Array:
    return on_grid(node, before_rounding(node, x, divisor, factor))


@partial(jax.jit, static_argnums=0)
def _values(quantizer: ActivationQuantizer, x: Any, scales: Scales) -> Array:
    return quantizer.quantize(x, scales).dequantize()
