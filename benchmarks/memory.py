"""Whether a run holds on to memory: live arrays and the size of the process over 1,000 steps.

    python benchmarks/memory.py [--steps 1000] [--every 100] [--width 0.125]

A whole run as `plq.main` makes it, on scikit-learn's digits: an evaluation and a checkpoint in each epoch, f = 0 and
the branch gone from the middle on. Every row is taken after a report, when the device has caught up.
"""

import argparse
import gc
import os
import platform
import tempfile
from pathlib import Path

import jax

from plq.config.load import default, settings
from plq.trainer.setup import assemble
from plq.trainer.trainer import Run

EXAMPLES, BATCH = 1437, 64


def resident() -> float:
    """MiB of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Measured(Run):
    """Prints a row of the table after each report."""

    def _report(self) -> None:
        super()._report()
        gc.collect()
        arrays = jax.live_arrays()
        size = sum(array.nbytes for array in arrays) / 2**20
        branch = "yes" if self.state.expanded else "no"
        print(f"| {self.step:,} | {branch} | {len(arrays)} | {size:.2f} | {resident():.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--width", type=float, default=0.125)
    given = parser.parse_args()
    config = default()
    config.data.name, config.data.image_size, config.data.batch_size = "digits", 40, BATCH
    config.model.width, config.mesh.data = given.width, 1
    config.factor.end, config.train.epochs = 0.5, given.steps / (EXAMPLES // BATCH)
    config.report.every_steps = given.every
    device = jax.devices()[0]
    print(f"{device.device_kind} ({platform.machine()}), jax {jax.__version__}, width {given.width}, batch {BATCH}\n")
    print("| step | branch | live arrays | their MiB | process, MiB |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        run = Measured(assemble(settings(config)), Path(folder))
        try:
            run.train()
        finally:
            run.close()


if __name__ == "__main__":
    main()
