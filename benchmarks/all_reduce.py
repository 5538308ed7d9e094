"""Time of one all-reduce between two processes of one device each, by size.

    python benchmarks/all_reduce.py [--repeats 200]

As in `scaling.py`: CPU devices, one processor core for each process (where taskset is there), gloo between them.
"""

import argparse
import statistics
import time

from pinned import run_pinned

SIZES = (1, 64, 1024, 16 * 1024, 256 * 1024)  # float32 values
PROCESSES = 2


def child(process_id: int, coordinator: str, repeats: int) -> None:
    import jax
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec

    from plq.distributed.process import ProcessInfo
    from plq.distributed.session import is_primary, session

    with session(ProcessInfo(coordinator, PROCESSES, process_id), 60):
        mesh = jax.make_mesh((PROCESSES,), ("data",))
        split, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
        add = jax.jit(lambda x: x.sum(0), out_shardings=whole)
        for size in SIZES:
            x = jax.make_array_from_process_local_data(split, np.ones((1, size), np.float32))
            jax.block_until_ready(add(x))
            times = []
            for _ in range(repeats):
                begin = time.perf_counter()
                jax.block_until_ready(add(x))
                times.append(1000 * (time.perf_counter() - begin))
            if is_primary():
                low, _, high = statistics.quantiles(times)
                figures = f"{statistics.median(times):.2f} ({low:.2f} to {high:.2f}) | {min(times):.2f}"
                print(f"| {4 * size:,} | {figures} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--coordinator", help=argparse.SUPPRESS)
    parser.add_argument("--process_id", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.coordinator:
        child(given.process_id, given.coordinator, given.repeats)
        return
    print("| bytes | ms, median (quartiles) | least |\n|---|---|---|", flush=True)
    run_pinned(__file__, PROCESSES, ["--repeats", str(given.repeats)])


if __name__ == "__main__":
    main()
