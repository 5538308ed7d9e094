"""A model to serve by its path: a stripped one is a folder, a frozen one a file."""

from pathlib import Path

from plq import inference
from plq.frozen import model as frozen

Served = inference.Model | frozen.FrozenModel


def open_model(path: Path) -> Served:
    """Raises UserError for anything that is neither."""
    return frozen.load(path) if path.is_file() else inference.load(path)
