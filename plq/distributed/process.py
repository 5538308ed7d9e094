"""Which of how many processes this one is: by flags, or by the system that started it."""

import dataclasses
import os
from collections.abc import Mapping

from plq.errors import UserError


@dataclasses.dataclass(frozen=True)
class ProcessInfo:
    """Where process 0 listens ("host:port"), how many processes there are, and which one this is."""

    coordinator: str
    num_processes: int
    process_id: int


ALONE = ProcessInfo("", 1, 0)


def process_from_flags(coordinator: str, num_processes: int | None, process_id: int | None) -> ProcessInfo | None:
    """The place that flags give, None if they give none. ``--num_processes 1`` is enough to run alone.

    Raises UserError for half of a place, and for one that cannot be.
    """
    given = {"--coordinator": coordinator or None, "--num_processes": num_processes, "--process_id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return None
    if num_processes is not None and num_processes < 1:
        raise UserError(f"--num_processes {num_processes}: allowed 1 or more")
    if num_processes == 1 and not process_id:
        return ALONE
    if num_processes is None or process_id is None or not coordinator:
        present = ", ".join(name for name in given if name not in missing)
        raise UserError(f"{present}: given without {', '.join(missing)}; allowed all three, or none of them")
    if not 0 <= process_id < num_processes:
        raise UserError(f"--process_id {process_id}: allowed 0 to {num_processes - 1}, --num_processes less one")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator {coordinator}: allowed HOST:PORT of process 0, such as 10.0.0.1:1234")
    return ProcessInfo(coordinator, num_processes, process_id)


def launcher(environment: Mapping[str, str] = os.environ) -> str:
    """The system that started this process as one of several, by the variables it sets; "" if none did.

    Only that there is one: JAX finds out where process 0 is. On a Cloud TPU machine, which JAX's import notes in the
    variables, the number of processes is asked of Google's metadata service, and may be 1.
    """
    several = lambda name: environment.get(name, "1") != "1"
    named = lambda name: name in environment
    hosts = environment.get("TPU_PROCESS_ADDRESSES", environment.get("TPU_WORKER_HOSTNAMES", ""))
    signs = {
        "Slurm": several("SLURM_NTASKS") and named("SLURM_STEP_NODELIST"),
        "Open MPI": several("OMPI_COMM_WORLD_SIZE"),
        "Kubernetes": named("KUBERNETES_SERVICE_HOST") and named("JOB_COMPLETION_INDEX"),
        "Cloud TPU": "," in hosts or (named("TPU_ML_PLATFORM") and not named("TPU_SKIP_MDS_QUERY")),
    }
    return next((name for name, present in signs.items() if present), "")
