"""The devices that JAX computes on."""

import logging
import os

import jax
from jax.extend.backend import clear_backends

from plq.errors import UserError

OPTION = "jax_platforms"


def devices() -> list[jax.Device]:
    """As `jax.devices`. Raises UserError, naming what there is, if JAX is told to use a platform that is not there."""
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter for a platform that JAX knows and has no plugin for
        asked = getattr(jax.config, OPTION)
        if not asked:
            raise
        where = "JAX_PLATFORMS" if os.environ.get("JAX_PLATFORMS") == asked else OPTION
        found = ", ".join(_platforms())
        raise UserError(f"{where}={asked}: JAX finds no such platform here; allowed: {found}, or none named") from error


def _platforms() -> list[str]:
    """Of the devices that JAX finds if it is not told where to look. JAX keeps no memory of the search."""
    asked = getattr(jax.config, OPTION)
    quiet = logging.getLogger("jax._src.xla_bridge")
    level = quiet.level
    quiet.setLevel(logging.CRITICAL)
    try:
        clear_backends()
        jax.config.update(OPTION, "")
        return sorted({device.platform for device in jax.devices()} | {"cpu"})
    finally:
        clear_backends()
        jax.config.update(OPTION, asked)
        quiet.setLevel(level)
