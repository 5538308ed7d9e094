"""Time of a step in one process and in two at equal work for each, and the bytes a step sends.

    python benchmarks/scaling.py [--width 0.25] [--batch_size 64] [--repeats 3] [--steps 20]

The SVHN network on scikit-learn's digits, W1A2; --batch_size is that of each process. One device in each process, one
processor core for each (where taskset is there), gloo between them. One and two processes take turns. Bytes are read
off the collective operations of the compiled step, for each device, as a ring sends them: (n - 1) / n of what an
all-gather or a reduce-scatter has, twice that for an all-reduce. The minimum is one all-reduce of one gradient for
each trained value. "In flight" is the share of profiled steps in which a collective operation of process 0 was under
way, its waiting for the other process included; "exposed" the part of that in which nothing else was computed.
"""

import argparse
import json
import math
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from collective_share import COLLECTIVES, SHARES, STEP, events, shares
from pinned import run_pinned

SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
STAGES = ("expanded", "after removal")


def child(given: argparse.Namespace) -> None:
    import jax

    from plq.config.load import default, settings
    from plq.distributed.process import ProcessInfo
    from plq.distributed.session import is_primary, session
    from plq.trainer.setup import assemble

    config = default()
    config.data.name, config.data.image_size = "digits", 40
    config.data.batch_size = given.batch_size * given.processes
    config.model.width, config.model.dropout = given.width, 0.0
    setattr(config.mesh, given.mesh, given.processes)
    if given.mesh == "fsdp":
        config.mesh.data = 1
    place = ProcessInfo(given.coordinator, given.processes, given.process_id) if given.processes > 1 else None
    with session(place, 60):
        run = assemble(settings(config))
        zero, state, found = run.task.factor.end_step, run.initial_state(), {}
        for stage, at in zip(STAGES, (0, zero), strict=True):
            batch = run.batch(at)
            state = run.pruned(state, at)
            step = run.step.lower(state, *batch).compile()
            weights = sum(leaf.size for leaf in jax.tree.leaves(state.weights))
            state = jax.block_until_ready(step(state, *batch))
            times = []
            for _ in range(given.steps):
                begin = time.perf_counter()
                state = jax.block_until_ready(step(state, *batch))
                times.append(time.perf_counter() - begin)
            found[stage] = {"seconds": times, "weights": weights, "collectives": collectives(step.as_text())}
            with tempfile.TemporaryDirectory() as folder:
                with jax.profiler.trace(folder):
                    for _ in range(given.steps):
                        with jax.profiler.TraceAnnotation(STEP):
                            state = jax.block_until_ready(step(state, *batch))
                found[stage] |= shares(events(Path(folder)))
        if is_primary():
            given.out.write_text(json.dumps(found))


def collectives(text: str) -> dict[str, list[int]]:
    """Bytes of each collective operation in the text of a compiled program, by kind."""
    found: dict[str, list[int]] = {}
    for line in text.splitlines():
        match = re.search(r" = (\(?[a-z].*?) (" + "|".join(COLLECTIVES) + r")(?:-start)?\(", line)
        if match:
            shapes = re.findall(r"([a-z]+[0-9]*)\[([0-9,]*)\]", match[1])
            sizes = [SIZES[dtype] * math.prod(int(n) for n in shape.split(",") if n) for dtype, shape in shapes]
            found.setdefault(match[2], []).append(sum(sizes))
    return found


def measure(given: argparse.Namespace, processes: int, mesh: str) -> dict[str, Any]:
    """What process 0 finds in one start."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        arguments = ["--processes", str(processes), "--mesh", mesh, "--out", str(out)]
        for name in ("width", "batch_size", "steps"):
            arguments += [f"--{name}", str(getattr(given, name))]
        run_pinned(__file__, processes, arguments, PJRT_NPROC="16")
        return json.loads(out.read_text())


def sent(found: dict[str, Any], processes: int) -> float:
    """Bytes that each device sends in a step."""
    share = (processes - 1) / processes
    return share * sum(COLLECTIVES[kind] * sum(sizes) for kind, sizes in found["collectives"].items())


def row(name: str, stage: str, one: list[dict[str, Any]], several: list[dict[str, Any]], processes: int) -> str:
    """Medians of each start; the ratio of each pair of starts."""
    medians = [[statistics.median(found[stage]["seconds"]) for found in each] for each in (one, several)]
    ratios = sorted(two / alone for alone, two in zip(*medians, strict=True))
    found = several[0][stage]
    bytes_sent, least = sent(found, processes), 2 * (processes - 1) / processes * 4 * found["weights"]
    counts = ", ".join(f"{len(sizes)} {kind}" for kind, sizes in found["collectives"].items())
    cells = [name, stage, *(f"{1000 * statistics.median(each):.1f}" for each in medians)]
    cells += [f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"]
    cells += [f"{100 * statistics.median(each[stage][share] for each in several):.0f} %" for share in SHARES]
    cells += [f"{bytes_sent:,.0f}", f"{least:,.0f}", f"{bytes_sent / least:.2f}", counts]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    for name in ("--processes", "--process_id"):
        parser.add_argument(name, type=int, default=1, help=argparse.SUPPRESS)
    for name in ("--coordinator", "--mesh"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.coordinator:
        child(given)
        return
    starts: dict[str, list[dict[str, Any]]] = {"one": [], "data": [], "fsdp": []}
    for _ in range(given.repeats):
        for name, found in starts.items():
            found.append(measure(given, 1 if name == "one" else 2, "data" if name == "one" else name))
    times = ("one process, ms", "two, ms", "ratio", *SHARES)
    columns = ("mesh of two", "step", *times, "bytes sent", "minimum", "ratio", "operations")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name in ("data", "fsdp"):
        for stage in STAGES:
            print(row(name, stage, starts["one"], starts[name], 2))


if __name__ == "__main__":
    main()
