"""Networks by name, and the one function that builds any of them, plain or expanded."""

import dataclasses
from typing import Any

import flax.linen as nn
from jax import Array

from plq.errors import UserError, nearest
from plq.layers.kit import Kit, Precision, expanded_kit, plain_kit
from plq.models.svhn import SVHNNet

NETWORKS: dict[str, Any] = {"svhn": SVHNNet}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network's name, its own arguments, and the precision of its layers, as plain values."""

    name: str
    num_classes: int
    precision: Precision
    width: float = 1.0
    dropout: float = 0.5

    def check(self) -> None:
        """Raise UserError unless every field is legal."""
        if self.name not in NETWORKS:
            raise UserError(f"model.name={self.name}: unknown; {nearest(self.name, NETWORKS)}")
        if not 0 < self.width <= 16:
            raise UserError(f"model.width={self.width}: allowed above 0, up to 16")
        if not 0 <= self.dropout < 1:
            raise UserError(f"model.dropout={self.dropout}: allowed 0 <= dropout < 1")
        self.precision.check()

    def _network(self, kit: Kit) -> nn.Module:
        self.check()
        return NETWORKS[self.name](self.num_classes, kit, self.width, self.dropout)

    def plain(self) -> nn.Module:
        """The low-precision network alone; it has no code for a branch."""
        return self._network(plain_kit(self.precision))

    def expanded(self, merge: str, factor: Array | float) -> nn.Module:
        """The same network with the ancillary branches, merged by ``merge`` and scaled by ``factor``."""
        return self._network(expanded_kit(self.precision, merge, factor))

    def to_json(self) -> dict[str, Any]:
        """Plain nested dict, read back by `from_json`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Architecture":
        """Raises UserError for missing or unknown fields."""
        try:
            architecture = cls(**{**fields, "precision": Precision(**fields["precision"])})
        except (TypeError, KeyError) as error:
            raise UserError(f"network description: {error}") from error
        architecture.check()
        return architecture
