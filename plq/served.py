"""A model to serve by its path: a stripped one is a folder, a frozen one a file."""

from pathlib import Path

from plq import inference
from plq.frozen import model as frozen
from plq.remote.address import Address
from plq.remote.opened import reading

Served = inference.Model | frozen.FrozenModel


def open_model(given: Path | Address) -> Served:
    """Raises UserError for anything that is neither."""
    with reading(given) as path:
        return frozen.load(path) if path.is_file() else inference.load(path)
