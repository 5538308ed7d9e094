"""The folder of a run: who holds it, and which config it belongs to."""

import contextlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import jax

from plq.checkpoint.mirrored import MirroredStore
from plq.checkpoint.model_file import require_place
from plq.checkpoint.store import Store
from plq.config.load import FREE_PER_PROCESS, differences, read_config
from plq.config.schema import Config
from plq.distributed.session import broadcast_from_primary, is_primary
from plq.errors import UserError
from plq.report.workdir import lock, prepare_workdir, require_shared
from plq.storage.address import Address
from plq.storage.mirror import copied, mirrored
from plq.storage.output import write_text_atomic
from plq.trainer.setup import Setup

MakeStore = Callable[[Path, int, int], Store]  # from folder, keep_latest and keep_best


def claim(workdir: Path, chosen: Config) -> None:
    """Save the resolved config, or, where one is saved, refuse a run that would compute something else."""
    file = workdir / "config.json"
    require_place(workdir / "model")
    if not file.exists():
        write_text_atomic(file, json.dumps(chosen.to_json(), indent=1) + "\n")
        return
    changed = differences(read_config(workdir), chosen.to_json())
    if changed:
        raise UserError(f"--workdir {workdir}: holds a run with another config ({'; '.join(changed)}); choose another")


def require_start(setup: Setup, workdir: Path | Address) -> None:
    """Before a run makes a folder: raise UserError if it cannot start from ``model.init_from``."""
    if isinstance(workdir, Path) and not (workdir / "config.json").exists():
        _ = setup.warm_start


@contextlib.contextmanager
def claimed(workdir: Path | Address, chosen: Config) -> Iterator[tuple[Path, MakeStore]]:
    """The folder of the run, held by process 0, and how to open its checkpoints.

    For an address each process has a local copy as its folder, and process 0 sends what is written. Raises UserError
    where another process was given something else.
    """
    with contextlib.ExitStack() as held:
        folder = workdir if isinstance(workdir, Path) else workdir.copy(f"run-{jax.process_index()}")
        if is_primary() or folder != workdir:
            prepare_workdir(folder)
            held.enter_context(lock(folder))
        mirror = (
            held.enter_context(mirrored(workdir, folder)) if is_primary() and isinstance(workdir, Address) else None
        )
        if is_primary():
            claim(folder, chosen)
        if mirror is not None:
            mirror.send()
        first = json.loads(broadcast_from_primary("config", json.dumps(chosen.to_json())))
        changed = differences(first, chosen.to_json(), FREE_PER_PROCESS, "process 0 has")
        if changed:
            raise UserError(f"--config: not that of process 0 ({'; '.join(changed)}); allowed one command for all")
        if mirror is None and isinstance(workdir, Address):
            held.enter_context(copied(workdir, folder))
        require_shared(folder)
        yield folder, Store if isinstance(workdir, Path) else partial(MirroredStore, mirror=mirror)
