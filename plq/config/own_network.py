"""What a configuration may say of somebody's own network."""

from typing import Any

from plq.errors import UserError
from plq.layers.config_rules import unused_fields
from plq.models.importing import require_where
from plq.models.registry import OPTIONS


def check_own_network(config: Any, usual: Any) -> None:
    """Raise UserError for a field that such a network does not use, or in which it has no choice.

    Args:
        config: a `plq.config.schema.Config`. usual: one with all fields at their defaults.
    """
    name = config.model.name
    require_where("model.name", name)
    config.quant.check()
    of_plq = {f"model.{field}": "model.options has the network's own fields" for field in OPTIONS}
    fixed = {f"expansion.{field}": "of networks of plq alone" for field in ("merge", "norm")}
    by_rule = {f"quant.{field}": "layers are as quant.rules say" for field in unused_fields(config.quant)}
    for field, why in {**of_plq, **fixed, **by_rule}.items():
        value, unset = config.value(field), usual.value(field)
        if value != unset:
            raise UserError(f"{field}={value}: has no effect on {name}, {why}; leave it at {unset}")
