"""What the trainer can train: a network of plq by its name, or somebody's own."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import flax.linen as nn

from plq.errors import UserError
from plq.layers.expanded import LayerFactor
from plq.models import own
from plq.models.registry import Architecture


class Trainable(Protocol):
    """A network, plain and expanded; both are called as ``network(images, train=False)`` and give logits.

    Where they are trained all collections but ``params`` and ``ancillary`` are mutable, and what is in ``ancillary``
    and ``ancillary_stats`` leaves with the branch.
    """

    @property
    def name(self) -> str:
        """As a configuration has it."""

    @property
    def code(self) -> Callable[..., nn.Module] | None:
        """The class of somebody's own network, which a person names; None for a network of plq."""

    def __hash__(self) -> int:
        """Of a value that does not change."""

    def plain(self) -> nn.Module:
        """The low-precision network alone: the one that is served."""

    def expanded(self, merge: str, factor: LayerFactor, norm: bool = True) -> nn.Module:
        """The same with the ancillary branches."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, read back by `from_json`."""

    def starts_from(self, fields: Mapping[str, Any]) -> str:
        """What the model of this description is, in words. Raises UserError if weights of it are of no use here."""


def from_json(fields: Any, network: Any = None) -> Trainable:
    """The network of a model's description.

    Args:
        network: the code of somebody's own: a Linen class, or "package.module:Network".
    Raises UserError for a description that is not right, and where ``network`` is missing or not wanted.
    """
    if not isinstance(fields, Mapping):
        raise UserError("network description: found none")
    if "network" not in fields:
        if network is not None:
            raise UserError(f"network={network}: found {fields.get('name')}, a network of plq; allowed none")
        return Architecture.from_json(dict(fields))
    if network is None:
        named = str(fields["network"])
        found = f"its network is {named}, not one of plq, and a model's folder imports no code"
        raise UserError(f"{found}; name it: --network {named} (in Python network={named!r} or the class)")
    return own.from_json(fields, network)
