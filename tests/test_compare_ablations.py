"""The script of ablations: what it asks for is legal, and it goes on after a failed training only."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from plq.cli.compare import parse

ROOT = Path(__file__).parents[1]
SCRIPT, CONFIG = ROOT / "launch" / "ablations.sh", str(ROOT / "configs" / "digits_w1a2.py")
STAND_IN = (
    '#!/bin/sh\nprintf "%s " "$@" >> calls\necho >> calls\nread status < statuses\nsed -i 1d statuses\nexit $status\n'
)


@pytest.fixture
def run(tmp_path):
    """The script with a stand-in for Python that ends with these statuses; exit status and the calls."""
    (tmp_path / "python").write_text(STAND_IN)
    (tmp_path / "python").chmod(0o755)

    def run(statuses, *arguments):
        (tmp_path / "statuses").write_text("".join(f"{status}\n" for status in statuses))
        (tmp_path / "calls").write_text("")
        environment = {**os.environ, "PYTHON": str(tmp_path / "python")}
        done = subprocess.run([SCRIPT, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True)
        return done, (tmp_path / "calls").read_text().splitlines()

    return run


def test_every_ablation_is_a_legal_grid(run):
    done, calls = run([0] * 6, CONFIG, "out", "--seeds", "2")
    assert done.returncode == 0 and len(calls) == 6
    cells = {}
    for call in calls:
        module, name, command, *arguments = shlex.split(call)
        assert (module, name, command) == ("-m", "plq", "compare")
        given = parse(arguments)
        assert given.config == CONFIG and given.seeds == 2
        assert given.cells == Path("out") == given.out.parent
        cells |= {cell.folder: cell.config for cell in given.plan().trainings()}
    plain = [folder for folder in cells if "/plain" in folder]
    assert plain == ["cells/plain_0", "cells/plain_1"] and len(cells) == 2 * (1 + 1 + 2 + 2 + 4 + 1 + 2)


@pytest.mark.parametrize(
    ("statuses", "expected", "calls"), [([0, 1, 0, 0, 0, 0], 1, 6), ([0, 130], 130, 2), ([2], 2, 1)]
)
def test_only_a_failed_training_is_passed_over(run, statuses, expected, calls):
    done, made = run(statuses, "config.py", "out")
    assert done.returncode == expected and len(made) == calls


def test_without_arguments_it_says_how(run):
    done, made = run([], "config.py")
    assert done.returncode == 2 and "launch/ablations.sh configs/" in done.stdout and not made
