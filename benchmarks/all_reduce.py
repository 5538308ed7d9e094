"""Time of one all-reduce between two processes of one device each, by size.

    python benchmarks/all_reduce.py [--repeats 200]

As in `scaling.py`: CPU devices, one processor core for each process (where taskset is there), gloo between them.
"""

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time

SIZES = (1, 64, 1024, 16 * 1024, 256 * 1024)  # float32 values
PROCESSES = 2


def child(process_id: int, coordinator: str, repeats: int) -> None:
    import jax
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec

    from plq.hosts.place import Place
    from plq.hosts.together import is_first, together

    with together(Place(coordinator, PROCESSES, process_id), 60):
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
            if is_first():
                low, _, high = statistics.quantiles(times)
                figures = f"{statistics.median(times):.2f} ({low:.2f} to {high:.2f}) | {min(times):.2f}"
                print(f"| {4 * size:,} | {figures} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(int(given.child[0]), given.child[1], given.repeats)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    print("| bytes | ms, median (quartiles) | least |\n|---|---|---|", flush=True)
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    running = []
    for index in range(PROCESSES):
        pinned = ["taskset", "--cpu-list", str(index)] if shutil.which("taskset") else []
        command = [*pinned, sys.executable, __file__, "--repeats", str(given.repeats), "--child", str(index), address]
        running.append(subprocess.Popen(command, env=environment))
    statuses = [process.wait() for process in running]
    if any(statuses):
        sys.exit(f"{PROCESSES} processes: ended with {statuses}")


if __name__ == "__main__":
    main()
