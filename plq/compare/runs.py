"""The trainings of a comparison, one after another, each a run of ``python -m plq.main`` in its own folder."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from plq.compare.history import final_test
from plq.compare.plan import RunConfig
from plq.config.load import differences, read_config
from plq.distributed.preemption import caught_signals
from plq.errors import UserError
from plq.storage.output import write_text_atomic

DONE = "done.json"
COMPILED = "compiled"
POLL_SECONDS = 0.2


class Stopped(Exception):
    """A signal ended the comparison; the training in progress has saved. ``signum``: which signal."""

    def __init__(self, signum: int):
        super().__init__(f"stopped by {signal.Signals(signum).name}; the same command goes on")
        self.signum = signum


@dataclasses.dataclass(frozen=True)
class Training:
    """A cell and how it is run. ``command``: as given to a shell; ``directory``: of the whole comparison."""

    cell: RunConfig
    command: tuple[str, ...]
    directory: Path

    @property
    def folder(self) -> Path:
        return self.directory / self.cell.folder

    @property
    def log(self) -> Path:
        """What the program printed, beside the folder: a new run wants an empty one."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def done(self) -> bool:
        return (self.folder / DONE).exists()

    def finish(self, **how: object) -> None:
        """Mark as done; ``how`` is kept with the mark."""
        write_text_atomic(self.folder / DONE, json.dumps(how) + "\n")

    def how(self) -> dict[str, Any]:
        """What `finish` kept: empty for a run of its own."""
        return json.loads((self.folder / DONE).read_text("utf-8"))


def share_compiled(directory: Path) -> None:
    """What one training compiles the others find, and this process, unless the caller has set another place for it."""
    place = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str((directory / COMPILED).resolve()))
    jax.config.update("jax_compilation_cache_dir", place or None)


def require_same_configs(trainings: Sequence[Training]) -> None:
    """Raise UserError if a folder holds a training that computes something else than the cell would."""
    for training in trainings:
        if not (training.folder / "config.json").exists():
            continue
        changed = differences(read_config(training.folder), training.cell.config.to_json())
        if changed:
            found = f"{training.folder} holds a training with another config ({'; '.join(changed)})"
            raise UserError(f"{found}; choose another folder than {training.directory}")


def run_all(trainings: Sequence[Training]) -> dict[str, str]:
    """Run what is not done. Returns why, in one line, by folder, for those that failed. Raises Stopped."""
    failed = {}
    with caught_signals() as received:
        for number, training in enumerate(trainings, 1):
            title = f"[{number}/{len(trainings)}] {training.cell.folder.removeprefix('cells/')}"
            status = 0 if training.done else _run(training, title, received)
            if received:
                raise Stopped(received[0])
            if status == 0:
                if not training.done:
                    training.finish()
                say(f"{title}: test accuracy {100 * final_test(training.folder)['accuracy']:.2f} %")
            else:
                failed[training.cell.folder] = _reason(training.log, status)
                say(f"{title}: failed: {failed[training.cell.folder]}")
    return failed


def _run(training: Training, title: str, received: list[int]) -> int:
    """Exit status of the training. A signal that was sent to us is handed on, once, so that it saves."""
    training.folder.parent.mkdir(parents=True, exist_ok=True)
    with training.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *training.command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,  # so that Ctrl-C reaches us alone, and the training exactly one signal
        )
    try:
        while process.poll() is None and not received:
            time.sleep(POLL_SECONDS)
            show(f"{title}: {_last_line(training.log)}")
        if received:
            process.send_signal(received[0])
        return process.wait()
    finally:
        process.kill()
        process.wait()


def _reason(log: Path, status: int) -> str:
    """The last line that the program wrote, or the signal that killed it."""
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return _last_line(log).removeprefix("plq: ") or f"exit status {status}"


def _last_line(log: Path) -> str:
    size = log.stat().st_size
    with log.open("rb") as file:
        file.seek(max(0, size - 2000))
        lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def show(line: str) -> None:
    """One line that rewrites itself, on a terminal; nothing elsewhere."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\x1b[K{line[:width]}", end="", file=sys.stderr, flush=True)


def say(line: str) -> None:
    """A line that stays."""
    show("")
    print(line, file=sys.stderr, flush=True)
