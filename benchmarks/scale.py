"""One training on 1 to 8 devices, fully sharded or not, in one process and in two: do they compute the same?

    python benchmarks/scale.py [--steps 50] [--batch_size 64] --out runs/scale

The SVHN network (width 0.125) on scikit-learn's digits, f to 0 at half of the steps, Adam. Each layout is trained
freely, and is also given the state of the run on one device before every step, to compute that one step. Virtual CPU
devices; prints a Markdown table and leaves one JSON file and one model for each layout in --out.
"""

import argparse
import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Layout(NamedTuple):
    """Processes, devices of each, and the mesh."""

    processes: int
    devices: int
    data: int
    fsdp: int

    def __str__(self) -> str:
        mesh = " x ".join(f"{axis} {size}" for axis, size in (("data", self.data), ("fsdp", self.fsdp)) if size > 1)
        return f"{self.processes} x {self.devices}: {mesh or 'one device'}"


LAYOUTS = [
    Layout(1, 1, 1, 1),
    Layout(1, 2, 2, 1),
    Layout(1, 4, 4, 1),
    Layout(1, 8, 8, 1),
    Layout(1, 2, 1, 2),
    Layout(1, 4, 1, 4),
    Layout(1, 8, 1, 8),
    Layout(1, 8, 2, 4),
    Layout(2, 2, 4, 1),
    Layout(2, 2, 2, 2),
    Layout(2, 2, 1, 4),
]
PRECISIONS = {
    "float": {"weight_bits": 32, "activation_bits": 32, "activations": "relu"},
    "w1a2": {"weight_bits": 1, "activation_bits": 2, "activations": "clip"},
}


def setup(given: argparse.Namespace, layout: Layout, precision: dict[str, Any]):
    from plq.config.load import default, settings
    from plq.trainer.setup import assemble

    config = default()
    config.data.name, config.data.image_size, config.data.batch_size = "digits", 40, given.batch_size
    config.data.pad, config.model.width, config.model.dropout = 2, 0.125, 0.0
    config.quant.update(precision)
    config.optimizer.learning_rate, config.factor.end = 3e-4, 0.5
    config.mesh.data, config.mesh.fsdp = layout.data, layout.fsdp
    config.train.epochs = given.steps / (1437 // given.batch_size)
    return assemble(settings(config))


def train(run, folder: Path, first: bool, reference: bool) -> dict[str, Any]:
    """Losses of the free run, and of single steps from the reference's states, which the reference leaves here."""
    import jax

    from plq.checkpoint.prune import prune
    from plq.layers.variables import KEPT, flatten
    from plq.train.mesh import place

    state, losses, single = run.initial_state(), [], {"loss": [], "weights": []}
    for step in range(run.total_steps):
        batch = run.batch(step)
        if reference:
            save(folder / f"{step}.npz", state)
        state = advance(run, state, batch, step)
        losses.append(loss(state))
        if not reference:
            structure = jax.tree.structure(run.abstract_state(step))
            given = place(run.mesh, jax.tree.unflatten(structure, load(folder / f"{step}.npz")))
            after = advance(run, given, batch, step)
            single["loss"].append(loss(after))
            single["weights"].append(apart(after.weights, folder / f"{step + 1}.npz", run, step + 1))
    if reference:
        save(folder / f"{run.total_steps}.npz", state)
    test, variables = run.evaluate(state), jax.device_get(run.replicate(prune(state.variables)))
    if first:
        kept = flatten({name: variables[name] for name in KEPT})
        np.savez(folder / f"model-{run.settings.mesh.data}-{run.settings.mesh.fsdp}-{jax.process_count()}.npz", **kept)
    return {"losses": losses, "single": single, "test": test, "end_step": run.task.factor.end_step}


def advance(run, state, batch, step: int):
    """One step, with a tally of its own."""
    state = run.step(dataclasses.replace(state, tally=run.fresh_tally()), *batch)
    return run.pruned(state, step + 1)


def loss(state) -> float:
    return float(state.tally.loss / state.tally.examples)


def apart(weights, file: Path, run, step: int) -> float:
    """The largest difference of a weight from the reference's of this step."""
    import jax

    reference = jax.tree.unflatten(jax.tree.structure(run.abstract_state(step)), load(file)).weights
    pairs = zip(jax.tree.leaves(jax.device_get(run.replicate(weights))), jax.tree.leaves(reference), strict=True)
    return max(float(np.abs(mine - theirs).max()) for mine, theirs in pairs)


def save(file: Path, state) -> None:
    import jax

    np.savez(file, *jax.tree.leaves(jax.device_get(state)))


def load(file: Path) -> list[np.ndarray]:
    with np.load(file) as saved:
        return [saved[name] for name in saved.files]


def child(given: argparse.Namespace) -> None:
    from plq.distributed.process import ProcessInfo
    from plq.distributed.session import is_primary, session

    layout = LAYOUTS[given.child]
    place = ProcessInfo(given.coordinator, layout.processes, given.process_id) if layout.processes > 1 else None
    with session(place, 60):
        for name, precision in PRECISIONS.items():
            folder = given.out / name
            found = train(setup(given, layout, precision), folder, is_primary(), given.child == 0)
            if is_primary():
                (folder / f"layout-{given.child}.json").write_text(json.dumps(found))


def launch(given: argparse.Namespace, index: int) -> None:
    """The processes of a layout, to their end."""
    layout = LAYOUTS[index]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PJRT_NPROC": "16"}
    environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={layout.devices}"
    command = [sys.executable, __file__, "--steps", str(given.steps), "--batch_size", str(given.batch_size)]
    command += ["--out", str(given.out), "--child", str(index), "--coordinator", address, "--process_id"]
    running = [subprocess.Popen([*command, str(i)], env=environment) for i in range(layout.processes)]
    statuses = [process.wait() for process in running]
    if any(statuses):
        sys.exit(f"{layout}: a process failed")


def results(given: argparse.Namespace, name: str, index: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    layout, folder = LAYOUTS[index], given.out / name
    with np.load(folder / f"model-{layout.data}-{layout.fsdp}-{layout.processes}.npz") as model:
        variables = dict(model)
    return json.loads((folder / f"layout-{index}.json").read_text()), variables


def row(given: argparse.Namespace, index: int) -> str:
    """Largest differences from the run on one device."""
    cells = [str(LAYOUTS[index])]
    for name in PRECISIONS:
        (one, model), (this, mine) = results(given, name, 0), results(given, name, index)
        relative = lambda losses, one=one: np.abs(np.divide(losses, one["losses"]) - 1)
        free, single = relative(this["losses"]), relative(this["single"]["loss"] or one["losses"])
        cells += [f"{single.max():.1e}", f"{max(this['single']['weights'], default=0.0):.1e}", f"{free.max():.1e}"]
        cells += (
            [f"{max(float(np.abs(mine[leaf] - model[leaf]).max()) for leaf in model):.1e}"] if name == "float" else []
        )
        cells += [f"{100 * this['test']['accuracy']:.2f}"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--out", type=Path, required=True)
    for name in ("--child", "--process_id"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--coordinator", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        child(given)
        return
    for name in PRECISIONS:
        (given.out / name).mkdir(parents=True, exist_ok=True)
    for index, layout in enumerate(LAYOUTS):
        done = all((given.out / name / f"layout-{index}.json").exists() for name in PRECISIONS)
        if not done:
            print(f"{layout}", file=sys.stderr, flush=True)
            launch(given, index)
    one = results(given, "float", 0)[0]
    print(f"{given.steps} steps, batch {given.batch_size}, f = 0 from step {one['end_step']}; float loss", end=" ")
    print(f"{one['losses'][0]:.3f} to {one['losses'][-1]:.3f}\n")
    print(
        "| processes x devices: mesh | float: loss of a step | weights after it | loss, run freely | model | test % |",
        end="",
    )
    print(" W1A2: loss of a step | weights after it | loss, run freely | test % |\n|---|" + 9 * "---|")
    for index in range(len(LAYOUTS)):
        print(row(given, index))


if __name__ == "__main__":
    main()
