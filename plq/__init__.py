"""plq: low-precision convolutional networks by progressive learning (EXP-Net, arXiv 1905.11781)."""

from typing import Any

__version__ = "0.1.0"


def load(path: Any) -> Any:
    """A frozen model, `plq.runtime.frozen.FrozenModel`: called with uint8 images it gives float32 logits.

    Raises plq.errors.UserError for anything else. Needs nothing of the training framework.
    """
    from plq.runtime.frozen import load as load_frozen

    return load_frozen(path)
