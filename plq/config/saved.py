"""The settings of a run as its folder has them, for what runs its network."""

import dataclasses
from pathlib import Path

from plq.config.load import build_config, read_config
from plq.config.schema import Config
from plq.errors import UserError
from plq.models.importing import is_own


def saved_config(workdir: Path, network: str | None = None) -> Config:
    """The checked settings that a run saved, for what runs its network.

    Args:
        network: the code of somebody's own network, which a person names: what is written in a folder imports nothing.
    Raises UserError where it is missing, not wanted, or of another class than that of the run.
    """
    file = workdir / "config.json"
    config = build_config(read_config(workdir), str(file))
    return dataclasses.replace(config, model=dataclasses.replace(config.model, name=_named(config, network, file)))


def _named(config: Config, network: str | None, file: Path) -> str:
    saved = config.model.name
    if not is_own(saved):
        if network is not None:
            raise UserError(f"--network {network}: {file} is of {saved}, a network of plq; allowed none")
        return saved
    if network is None:
        found = f"its network is {saved}, not one of plq, and a folder imports no code"
        raise UserError(f"{file}: {found}; name it: --network {saved}")
    if network.partition(":")[2] != saved.partition(":")[2]:
        raise UserError(f"--network {network}: {file} is of {saved}, allowed that class")
    return network
