"""Models to serve by their path, on an engine of choice."""

from pathlib import Path
from typing import Any

from plq.checks import integer
from plq.errors import UserError, nearest
from plq.runtime.loading import Servable, open_model
from plq.storage.address import Address, place_given

ENGINES = ("jax", "native")


def load(path: str | Path | Address, *, network: Any = None, engine: str = "jax", threads: int = 0) -> Servable:
    """A model to serve: of a frozen file, or of a stripped folder; also at an address (gs://, s3://).

    It is called with uint8 images [batch, height, width, channels] and gives float32 logits [batch, classes].

    Args:
        network: of a folder whose network is not one of plq: its Linen class, or "package.module:Network". What the
            folder says of fields and rules is applied to it; a folder never makes plq import anything.
        engine: "jax", or "native": a frozen file as C compiled for this machine, which needs a C compiler.
        threads: of "native", how many images are computed at once; 0: one for each core.
    Raises UserError for anything that is neither, naming what was found.
    """
    if not isinstance(engine, str) or engine not in ENGINES:
        raise UserError(f"engine={engine!r}: unknown; {nearest(str(engine), ENGINES)}")
    given = place_given("path", path)
    if engine == "native":
        if network is not None:
            raise UserError("network: has no effect with engine='native', allowed a frozen file, which needs no code")
        from plq.exporters.c.engine import load as load_native

        return load_native(given, threads)
    if integer("threads", threads):
        raise UserError(f"threads={threads}: has no effect with engine='jax'")
    return open_model(given, network)
