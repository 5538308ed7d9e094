"""SIGKILL at random moments, again and again; then the same bits as a run that was left alone?

    python benchmarks/soak.py --out runs/soak [--kills 20] [--kills_of_two 10] [--seed 0]

The SVHN network (width 0.05, W1A2) on scikit-learn's digits, f = 0 from a twentieth of the steps, a checkpoint every
20. First one process is killed --kills times, then a run of two processes (one of them or both) --kills_of_two times,
each time at a moment drawn uniformly from the time that a start and 100 steps take, but after 80 new steps at the
latest; the same command is given again each time. Compares the model, the metrics and every leaf of the last
checkpoint, and prints a Markdown table.
"""

import argparse
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from plq.checkpoint.store import open_store
from plq.report.metrics import read_metrics

CONFIG = """
from plq.config.load import default

def get_config():
    config = default()
    config.data.name, config.data.image_size, config.data.batch_size = "digits", 40, 64
    config.data.pad, config.model.width, config.model.dropout = 2, 0.05, 0.3
    config.train.epochs, config.factor.end = {epochs}, 0.05
    config.checkpoint.every_steps, config.report.every_steps = 20, 5
    return config
"""


class Kill(NamedTuple):
    """What a SIGKILL hit. ``reached``: the last step written down; ``kept``: the newest checkpoint that can be read."""

    victims: str
    seconds: float
    saving: bool
    reached: int
    kept: int
    statuses: list[int]
    ended: float


def command(given: argparse.Namespace, workdir: Path, processes: int) -> list[list[str]]:
    base = [sys.executable, "-m", "plq.main", "--config", str(given.out / "config.py"), "--workdir", str(workdir)]
    if processes == 1:
        return [base]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        base += ["--coordinator", f"127.0.0.1:{free.getsockname()[1]}", "--num_processes", str(processes)]
    return [[*base, "--patience", "5", "--process_id", str(index)] for index in range(processes)]


def start(given: argparse.Namespace, workdir: Path, processes: int) -> list[subprocess.Popen]:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PJRT_NPROC": "16", "XLA_FLAGS": ""}
    environment["JAX_COMPILATION_CACHE_DIR"] = str(given.out / "compiled")
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
    log = (given.out / f"{workdir.name}.log").open("a")
    pipes = {"stdout": subprocess.DEVNULL, "stderr": log}
    return [subprocess.Popen(each, env=environment, **pipes) for each in command(given, workdir, processes)]


def undisturbed(given: argparse.Namespace, processes: int) -> tuple[Path, float]:
    """The folder of a whole run, and the seconds to its 100th step once all is compiled."""
    workdir = given.out / f"undisturbed-{processes}"
    if not (workdir / "model").exists():
        finish(given, workdir, processes)
    trial, begin = given.out / f"trial-{processes}", time.monotonic()
    running = start(given, trial, processes)
    while reached(trial) < 100:
        time.sleep(0.05)
    seconds = time.monotonic() - begin
    for process in running:
        process.kill()
        process.wait()
    return workdir, seconds


def finish(given: argparse.Namespace, workdir: Path, processes: int) -> None:
    statuses = [process.wait() for process in start(given, workdir, processes)]
    if any(statuses):
        sys.exit(f"{workdir}: ended with {statuses}; see {workdir}.log")


def reached(workdir: Path) -> int:
    file = workdir / "metrics.jsonl"
    return max((record["step"] for record in read_metrics(file)), default=0) if file.exists() else 0


def newest(workdir: Path) -> int:
    """The newest finished checkpoint."""
    steps = [int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdecimal()]
    return max(steps, default=0)


def kill(given: argparse.Namespace, workdir: Path, processes: int, longest: float, rng: random.Random) -> Kill:
    """Start the run, kill it, wait until all its processes have ended."""
    running, seconds = start(given, workdir, processes), rng.uniform(0, longest)
    victims = rng.choice([[0], [1], [0, 1]]) if processes == 2 else [0]
    begin, before = time.monotonic(), reached(workdir)
    while time.monotonic() < begin + seconds and reached(workdir) < before + 80:
        time.sleep(0.02)
    seconds = time.monotonic() - begin
    if any(process.poll() is not None for process in running):
        sys.exit(f"{workdir}: ended by itself; more --epochs are needed for so many kills")
    saving = any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))
    for victim in victims:
        running[victim].kill()
    begin = time.monotonic()
    statuses = [process.wait(timeout=120) for process in running]
    names = " and ".join(map(str, victims))
    ended = time.monotonic() - begin
    return Kill(names, seconds, saving, reached(workdir), newest(workdir), statuses, ended)


def differences(workdir: Path, other: Path) -> list[str]:
    """What is not the same bits in the two folders."""
    files = ["model/variables.safetensors", "metrics.jsonl"]
    found = [name for name in files if (workdir / name).read_bytes() != (other / name).read_bytes()]
    keys = ("weights", "statistics", "moments", "step", "tally")
    mine, theirs = (open_store(folder).restore_plain(newest(folder), keys) for folder in (workdir, other))
    same = jax.tree.map(lambda left, right: np.asarray(left).tobytes() == np.asarray(right).tobytes(), mine, theirs)
    return found + ([] if all(jax.tree.leaves(same)) else ["the last checkpoint"])


def soak(given: argparse.Namespace, processes: int, kills: int) -> None:
    rng, (other, longest) = random.Random(given.seed), undisturbed(given, processes)
    workdir = given.out / f"killed-{processes}"
    print(f"\n{processes} process(es), {kills} kills within {longest:.0f} s of a start\n")
    print("| kill | of process | after s | step reached | newest checkpoint | while saving | statuses | all ended, s |")
    print("|" + 8 * "---|", flush=True)
    for number in range(1, kills + 1):
        hit = kill(given, workdir, processes, longest, rng)
        saving, statuses = "yes" if hit.saving else "", ", ".join(map(str, hit.statuses))
        cells = [number, hit.victims, f"{hit.seconds:.1f}", hit.reached, hit.kept, saving, statuses, f"{hit.ended:.1f}"]
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    finish(given, workdir, processes)
    steps, different = newest(workdir), differences(workdir, other)
    verdict = f"differs in {', '.join(different)}" if different else "the same bits as undisturbed"
    print(f"\n{steps} steps: {verdict} (model, metrics, every leaf of the last checkpoint)", flush=True)
    given.failed |= bool(different)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kills_of_two", type=int, default=10)
    parser.add_argument("--epochs", type=float, default=100.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "config.py").write_text(CONFIG.format(epochs=given.epochs))
    given.failed = False
    soak(given, 1, given.kills)
    soak(given, 2, given.kills_of_two)
    sys.exit(given.failed)


if __name__ == "__main__":
    main()
