"""Networks by name, and the one function that builds any of them, plain or expanded."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn

from plq.checks import at_least, choice, require_types, shown
from plq.errors import UserError, nearest
from plq.layers.expanded import LayerFactor
from plq.layers.factory import LayerFactory, QuantConfig, expanded_factory, plain_factory
from plq.models.alexnet import AlexNet
from plq.models.importing import WHERE
from plq.models.mobilenet import STRIDES, MobileNetV1, MobileNetV2
from plq.models.resnet import BLOCKS, SHORTCUTS, ResNet
from plq.models.svhn import SVHNNet
from plq.models.vgg import VGGSmall

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "svhn": SVHNNet,
    "alexnet": AlexNet,
    "vgg_small": VGGSmall,
    "mobilenet_v1": MobileNetV1,
    "mobilenet_v2": MobileNetV2,
    "resnet18": partial(ResNet, stages=(2, 2, 2, 2)),
    "resnet34": partial(ResNet, stages=(3, 4, 6, 3)),
    "resnet50": partial(ResNet, stages=(3, 4, 6, 3), bottleneck=True),
    **{f"resnet{6 * n + 2}": partial(ResNet, stages=(n, n, n), small_images=True) for n in (3, 5, 7, 9)},
}
OPTIONS = ("width", "dropout", "shortcut", "block", "stride")
FREE = ("precision", "num_classes", "dropout")  # in these a network may differ from the one that it starts from


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network's name, its own options, and the precision of its layers, as plain values.

    An option that the network does not have must be left as it is here.
    """

    name: str
    num_classes: int
    precision: QuantConfig
    code: ClassVar[None] = None
    width: float = 1.0
    dropout: float = 0.0
    shortcut: str = "projection"
    block: str = "post"
    stride: int = 32

    def check(self) -> None:
        """Raise UserError unless every field has its type and is legal."""
        require_types("model", self)
        if self.name not in NETWORKS:
            raise UserError(f"model.name={self.name}: unknown; {nearest(self.name, NETWORKS)}, or {WHERE}")
        at_least("model.num_classes", self.num_classes, 1)
        if not 0 < self.width <= 16:
            raise UserError(f"model.width={self.width}: allowed above 0, up to 16")
        if not 0 <= self.dropout < 1:
            raise UserError(f"model.dropout={self.dropout}: allowed 0 <= dropout < 1")
        for field, names in (("shortcut", SHORTCUTS), ("block", BLOCKS)):
            choice(f"model.{field}", getattr(self, field), names)
        if not isinstance(self.precision, QuantConfig):
            found = type(self.precision).__name__
            raise UserError(f"precision={shown(self.precision)}: found {found}, allowed a Precision")
        if self.stride not in STRIDES:
            raise UserError(f"model.stride={self.stride}: allowed {', '.join(map(str, STRIDES))}")
        self.precision.check()
        self._options()

    def _options(self) -> dict[str, Any]:
        """Those that the network has. Raises UserError for another one that is set."""
        network: Any = NETWORKS[self.name]
        legal = {field.name for field in dataclasses.fields(getattr(network, "func", network))}
        fields = [field for field in dataclasses.fields(self) if field.name in OPTIONS]
        for field in fields:
            value = getattr(self, field.name)
            if field.name not in legal and value != field.default:
                found = f"{self.name} has no {field.name}"
                raise UserError(f"model.{field.name}={value}: {found}; leave it at {field.default}")
        return {field.name: getattr(self, field.name) for field in fields if field.name in legal}

    def _network(self, kit: LayerFactory) -> nn.Module:
        self.check()
        return NETWORKS[self.name](self.num_classes, kit, **self._options())

    def plain(self) -> nn.Module:
        """The low-precision network alone; it has no code for a branch."""
        return self._network(plain_factory(self.precision))

    def expanded(self, merge: str, factor: LayerFactor, norm: bool = True) -> nn.Module:
        """The same network with the ancillary branches: the arguments are those of `expanded_factory`."""
        return self._network(expanded_factory(self.precision, merge, factor, norm))

    def to_json(self) -> dict[str, Any]:
        """Plain nested dict, read back by `from_json`."""
        fields = dataclasses.asdict(self)
        del fields["precision"]["rules"]  # of somebody's own network alone
        return fields

    def starts_from(self, fields: Mapping[str, Any]) -> str:
        """What the model of this description is, in words. Raises UserError if it is another network."""
        if "network" in fields:
            raise UserError(f"found the network {fields['network']}, this one is {self.name}")
        found = Architecture.from_json(dict(fields))
        for field in dataclasses.fields(Architecture):
            theirs, ours = getattr(found, field.name), getattr(self, field.name)
            if field.name not in FREE and theirs != ours:
                raise UserError(f"has {field.name}={theirs}, this network {field.name}={ours}")
        return f"W{found.precision.weight_bits}/A{found.precision.activation_bits} {found.name}"

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Architecture":
        """Raises UserError for missing or unknown fields."""
        try:
            architecture = cls(**{**fields, "precision": QuantConfig(**fields["precision"])})
        except (TypeError, KeyError) as error:
            raise UserError(f"network description: {error}") from error
        architecture.check()
        return architecture
