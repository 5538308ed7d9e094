"""A script in processes of one CPU device each, one processor core for each (where taskset is there)."""

import os
import shutil
import socket
import subprocess
import sys


def run_pinned(script: str, processes: int, arguments: list[str], **environment: str) -> None:
    """All processes, to their end. Each gets the arguments, then --coordinator and its --process_id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, script, *arguments, "--coordinator", coordinator, "--process_id"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", **environment}
    running = []
    for index in range(processes):
        pinned = ["taskset", "--cpu-list", str(index)] if shutil.which("taskset") else []
        running.append(subprocess.Popen([*pinned, *command, str(index)], env=environment))
    statuses = [process.wait() for process in running]
    if any(statuses):
        sys.exit(f"{processes} processes: ended with {statuses}")
