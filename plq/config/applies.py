"""When a field of a configuration has an effect."""

from collections.abc import Callable
from typing import Any

from plq.data.folder import FOLDER
from plq.models.importing import is_own

# Fields that only some choices use: a value that would be ignored is refused.
APPLIES: dict[str, Callable[[Any], bool]] = {
    "data.pad": lambda config: not config.data.crop,
    "data.threads": lambda config: bool(config.data.crop),
    "data.corrupt_share": lambda config: bool(config.data.crop) or config.data.name == FOLDER,
    "data.labels": lambda config: config.data.name == FOLDER,
    "data.holdout": lambda config: config.data.name == FOLDER,
    "model.options": lambda config: is_own(config.model.name),
    "quant.rules": lambda config: is_own(config.model.name),
    "quant.granularity": lambda config: config.quant.has_granularity(),
    "quant.eta": lambda config: config.quant.weights == "syq" and config.quant.weight_bits == 2,
    "factor.rate": lambda config: config.factor.name == "staircase",
    "factor.cutoff": lambda config: config.factor.name == "staircase",
    "factor.power": lambda config: config.factor.name == "polynomial",
    "factor.value": lambda config: config.factor.name == "constant",
    "factor.order": lambda config: config.factor.name != "constant",
    "optimizer.beta2": lambda config: config.optimizer.name == "adam",
    "optimizer.epsilon": lambda config: config.optimizer.name == "adam",
    "optimizer.nesterov": lambda config: config.optimizer.momentum > 0,
    "optimizer.boundaries": lambda config: config.optimizer.schedule in ("step", "staircase"),
    "optimizer.multipliers": lambda config: config.optimizer.schedule in ("step", "staircase"),
}
