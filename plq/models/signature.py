"""How a network is told that it is trained: by an argument of its ``__call__``, or not at all."""

import inspect
from collections.abc import Callable

import flax.linen as nn

from plq.errors import UserError
from plq.models.importing import class_of
from plq.models.options import fields_of_network

# Arguments that say whether a network is trained, with their value then; in evaluation it is the other one.
TRAINING = {"train": True, "training": True, "is_training": True, "deterministic": False, "use_running_average": False}
Flags = tuple[tuple[str, bool], ...]


def training_flags(network: Callable[..., nn.Module]) -> Flags:
    """The arguments of ``__call__`` among `TRAINING`, each with its value in training.

    Raises UserError unless it is called with images, and at will with these alone.
    """
    cls = class_of(network)
    allowed = f"allowed images, and arguments named {', '.join(TRAINING)}"
    if "__call__" not in {name for base in cls.__mro__ if base is not type for name in vars(base)}:
        raise UserError(f"{cls.__name__}: has no __call__, {allowed}")
    _, *parameters = inspect.signature(cls.__call__).parameters.values()
    images = parameters[0] if parameters else None
    if images is None or images.kind in (images.KEYWORD_ONLY, images.VAR_KEYWORD) or images.name in TRAINING:
        raise UserError(f"{cls.__name__}.__call__: takes no images first, {allowed}")
    named = {parameter.name: parameter for parameter in parameters[1:]}
    by_name = (images.KEYWORD_ONLY, images.POSITIONAL_OR_KEYWORD)
    flags = tuple((name, TRAINING[name]) for name in named if name in TRAINING and named[name].kind in by_name)
    other = [name for name, parameter in named.items() if name not in dict(flags) and _required(parameter)]
    if other:
        raise UserError(f"{cls.__name__}.__call__: wants {', '.join(other)} too, {allowed}")
    fixed = [name for name in fields_of_network(network) if name in TRAINING]
    if fixed and not flags:
        found = f"has a field {fixed[0]}, which cannot change between training and evaluation"
        raise UserError(f"{cls.__name__}: {found}, allowed an argument of __call__ of that name")
    return flags


def _required(parameter: inspect.Parameter) -> bool:
    variable = (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and parameter.kind not in variable
