"""Steps that stay whole when a network is traced, so that `plq.runtime.lowering` sees what they are.

A quantizer is dozens of primitives in a jaxpr. Inside `recording` each call of `step` is one equation instead, which
carries its kind, its path and its options; elsewhere `step` calls the function and leaves no mark.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.core import ShapedArray
from jax.extend.core import Primitive

_recording: contextvars.ContextVar[str] = contextvars.ContextVar("recording", default="")
step_p = Primitive("plq_step")


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """What an equation stands for.

    kind      "activation", "kernel", "batch_norm", or the name of an operation in `plq.layers.operations`
    path      of the module that takes the step, or empty
    options   a quantizer, or a dict of an operation's options
    tree      of the operands
    function  what computes it, of the operands
    output    shape and dtype of the result
    """

    kind: str
    path: str
    options: Any
    tree: Any
    function: Callable[..., Any]
    output: jax.ShapeDtypeStruct


@step_p.def_abstract_eval
def _abstract(*operands: Any, step: Step) -> ShapedArray:
    return ShapedArray(step.output.shape, step.output.dtype)


def is_lowering() -> bool:
    """Whether a network is being traced to be written down, and speed does not matter."""
    return _recording.get() == "lowering"


@contextlib.contextmanager
def recording(lowering: bool = False) -> Iterator[None]:
    """Steps inside are equations of their own.

    The precision is set because it is a part of the key of `jax.jit`: what was traced before is traced anew.
    """
    token = _recording.set("lowering" if lowering else "steps")
    try:
        with jax.default_matmul_precision("highest" if lowering else "float32"):
            yield
    finally:
        _recording.reset(token)


def step(kind: str, path: str, options: Any, function: Callable[..., Any], *operands: Any) -> Any:
    """``function(*operands)``, an array; while recording, one equation in its place.

    Args:
        operands: arrays, or trees of them.
    """
    if not _recording.get():
        return function(*operands)
    output = jax.eval_shape(function, *operands)
    leaves, tree = jax.tree.flatten(operands)
    return step_p.bind(*leaves, step=Step(kind, path, options, tree, function, output))
