"""Networks by where their code is: "package.module:Network", as a person names it; nothing else is imported."""

import contextlib
import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn

from plq.errors import UserError, one_line

WHERE = "package.module:Network"


def is_own(name: str) -> bool:
    """Whether the name of a network says where its code is; the others are names of networks of plq."""
    return ":" in name


def require_where(field: str, name: str) -> None:
    """Raise UserError unless the name can be that of a network in a module."""
    module, _, attribute = name.partition(":")
    if module.endswith(".py") or not all(part.isidentifier() for part in f"{module}.{attribute}".split(".")):
        raise UserError(f"{field}={name}: allowed {WHERE}, with dots, and without .py, as in own.networks:Small")


@contextlib.contextmanager
def importable(folder: str) -> Iterator[None]:
    """In here, modules of this folder can be imported, as by a program that lies there."""
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def network_class(given: Any, field: str = "network") -> Callable[..., nn.Module]:
    """A Linen class, or a partial of one, by "package.module:Network", or as it is.

    A module of the working directory is found. Raises UserError, naming it, for what cannot be imported, is not there,
    or is something else.

    Args:
        field: what it was given as.
    """
    found, named = given, f"{field}={given}"
    if isinstance(given, str):
        require_where(field, given)
        module, _, attribute = given.partition(":")
        with importable(os.getcwd()), one_line(f"{named}: cannot import {module}"):
            importlib.invalidate_caches()
            found = importlib.import_module(module)
        for part in attribute.split("."):
            if not hasattr(found, part):
                where = getattr(found, "__file__", None) or "a folder without such a module"
                raise UserError(f"{named}: {module} ({where}) has no {attribute}")
            found = getattr(found, part)
    if not (inspect.isclass(class_of(found)) and issubclass(class_of(found), nn.Module)):
        what = f"a {type(found).__name__}" if not inspect.isclass(found) else f"the class {found.__name__}"
        raise UserError(f"{named}: found {what}, allowed a subclass of flax.linen.Module, or a functools.partial of it")
    return found


def class_of(network: Any) -> Any:
    """The class, where it is given as a partial."""
    return class_of(network.func) if isinstance(network, functools.partial) else network
