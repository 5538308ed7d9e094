"""Accuracy of a checkpoint, or of a stripped or frozen model, in one line."""

import dataclasses
import math
from pathlib import Path

from plq.checkpoint.store import open_store
from plq.config.saved import saved_config
from plq.config.schema import MeshConfig
from plq.data.sets import default_splits
from plq.distributed.devices import devices
from plq.errors import printable
from plq.runtime.loading import open_model
from plq.storage.address import Address, named
from plq.storage.staging import RUN, staged_input
from plq.trainer.evaluation import all_logits, evaluation
from plq.trainer.image_comparison import open_labelled, trained_on
from plq.trainer.setup import assemble


def evaluate_checkpoint(given: Path | Address, step: int | None, data_dir: str, network: str | None = None) -> str:
    """A line with the accuracy of a run's checkpoint, with its branch at the f of its step if it has one.

    ``network``: see `plq.config.saved.saved_config`.
    """
    with staged_input(given, RUN) as workdir:
        return named(_evaluate_checkpoint(workdir, step, data_dir, network))


def _evaluate_checkpoint(workdir: Path, step: int | None, data_dir: str, network: str | None) -> str:
    chosen = saved_config(workdir, network)
    data = dataclasses.replace(chosen.data, data_dir=data_dir or chosen.data.data_dir)
    count = math.gcd(data.batch_size // chosen.train.accumulate, len(devices()))  # of those that are here
    chosen = dataclasses.replace(chosen, data=data, mesh=MeshConfig(data=count))
    store = open_store(workdir)
    step = store.choose(step)
    setup = assemble(chosen)
    state = store.restore(step, setup.abstract_state(step))
    found = setup.evaluate(state)
    factor = float(setup.task.factor(step))
    branch = f"with its branch, f {factor:.3g}" if state.expanded else "without a branch"
    return _line(f"{workdir} step {step:,} ({branch})", found, len(setup.test))


def evaluate_model(path: Path | Address, split: str, data_dir: str, batch_size: int, network: str | None = None) -> str:
    """A line with the accuracy of a stripped or frozen model on a split of the set it was trained on.

    ``network``: see `plq.runtime.stripped_model.load`.
    """
    model = open_model(path, network)
    data = trained_on(model, str(path))
    data = dataclasses.replace(data, data_dir=data_dir or data.data_dir, batch_size=batch_size)
    split = split or data.test_split or default_splits(data.name)[1]
    logits, labels = all_logits(model, open_labelled(model, data, split))
    return _line(f"{path} on {data.name} {split}", evaluation(logits, labels), len(labels))


def _line(what: str, found: dict[str, float], examples: int) -> str:
    return f"{printable(what)}: accuracy {100 * found['accuracy']:.2f} %, loss {found['loss']:.4f}, {examples:,} images"
