"""plq: low-precision convolutional networks by progressive learning (EXP-Net, arXiv 1905.11781).

The names in ``__all__`` are the public ones. Each is imported on first use, so that ``import plq`` imports nothing
else, and serving a frozen model needs nothing of the training framework.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plq.checkpoint.prune import prune as prune
    from plq.errors import UserError as UserError
    from plq.exporters.export import export as export
    from plq.layers.convert import convert as convert
    from plq.layers.rule import Rule as Rule
    from plq.layers.scales import calibrate as calibrate
    from plq.quant.quantized import Quantized as Quantized
    from plq.quant.registry import activation_quantizer as activation_quantizer
    from plq.quant.registry import weight_quantizer as weight_quantizer
    from plq.runtime.freezing import freeze as freeze
    from plq.runtime.loading import Servable as Servable
    from plq.serving import load as load
    from plq.train.factor import FactorSchedule as FactorSchedule

__version__ = "0.2.0"

_MODULES = {
    "FactorSchedule": "plq.train.factor",
    "Quantized": "plq.quant.quantized",
    "Rule": "plq.layers.rule",
    "Servable": "plq.runtime.loading",
    "UserError": "plq.errors",
    "activation_quantizer": "plq.quant.registry",
    "calibrate": "plq.layers.scales",
    "convert": "plq.layers.convert",
    "export": "plq.exporters.export",
    "freeze": "plq.runtime.freezing",
    "load": "plq.serving",
    "prune": "plq.checkpoint.prune",
    "weight_quantizer": "plq.quant.registry",
}
__all__ = [*_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'plq' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
