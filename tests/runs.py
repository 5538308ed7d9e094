"""Very short trainings on the digits that several tests share."""

import os
import signal

from plq.config.load import build_config, default
from plq.trainer.setup import Setup, assemble
from plq.trainer.trainer import Run


def tiny_config(**fields):
    """22 steps per epoch at batch 64; 2 epochs; f reaches 0 at step 22. ``fields``: data__pad=2 sets data.pad."""
    config = default()
    config.data.name, config.data.image_size, config.data.batch_size = "digits", 40, 64
    config.model.width, config.model.dropout = 0.05, 0.3
    config.factor.end, config.train.epochs = 0.5, 2.0
    config.report.every_steps, config.report.tensorboard = 5, False
    for name, value in fields.items():
        section, field = name.split("__")
        config[section][field] = value
    return config


def tiny(**fields) -> Setup:
    return assemble(build_config(tiny_config(**fields)))


def trained(setup: Setup, steps: int | None = None):
    """The state after ``steps`` (all of them by default), by the bare step without files."""
    state = setup.initial_state()
    for step in range(setup.total_steps if steps is None else steps):
        state = setup.pruned(setup.step(state, *setup.batch(step)), step + 1)
    return state


def to_the_end(run: Run, stop_at: int | None = None) -> Run:
    """Train, write the model and close; with ``stop_at`` SIGTERM comes during that step."""
    advance = run._advance

    def advance_and_signal(batch):
        advance(batch)
        if run.step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    run._advance = advance_and_signal
    try:
        run.train()
        run.finish()
    finally:
        run.close()
    return run
