"""A model to serve by its path: a stripped one is a folder, a frozen one a file."""

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from plq.frozen import model as frozen
from plq.remote.address import Address
from plq.remote.opened import reading

if TYPE_CHECKING:
    from plq import inference

Served: TypeAlias = "inference.Model | frozen.FrozenModel"


def open_model(given: Path | Address) -> Served:
    """Raises UserError for anything that is neither."""
    with reading(given) as path:
        if path.is_file():
            return frozen.load(path)
        from plq import inference  # needs Flax, which a frozen model does without

        return inference.load(path)
