"""plq: low-precision convolutional networks by progressive learning (EXP-Net, arXiv 1905.11781)."""

from typing import Any

__version__ = "0.1.0"


def load(path: Any, engine: str = "jax", threads: int = 0) -> Any:
    """A frozen model, `plq.runtime.frozen.FrozenModel`: called with uint8 images it gives float32 logits.

    ``engine``: "jax", or "native": C compiled for this machine (`plq.exporters.c.engine.NativeModel`), which needs a C
    compiler; ``threads`` of that compute as many images at once, 0: one per core.
    Raises plq.errors.UserError for anything else. Needs nothing of the training framework.
    """
    from plq.errors import UserError, nearest

    if engine == "native":
        from plq.exporters.c.engine import load as load_native

        return load_native(path, threads)
    if engine != "jax":
        raise UserError(f"engine {engine!r}: unknown; {nearest(str(engine), ('jax', 'native'))}")
    if threads:
        raise UserError(f"threads {threads}: has no effect with engine 'jax'")
    from plq.runtime.frozen import load as load_frozen

    return load_frozen(path)
