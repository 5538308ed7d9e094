"""A comparison as a person runs it: stopped, gone on with, with a training that fails, and reported."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plq.errors import UserError

CONFIG = """
from runs import tiny_config

def get_config():
    return tiny_config(train__epochs=0.2, report__every_steps=1, optimizer__name="sgd", mesh__data=1)
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Three variants, four steps each; where the last should go lies something else."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "config.py").write_text(CONFIG)
    (folder / "out" / "cells" / "float_0").mkdir(parents=True)
    (folder / "out" / "cells" / "float_0" / "cat.png").write_text("cat")
    (folder / "out" / ".lock").write_text("process 1 on this machine")
    options = ["--config", str(folder / "config.py"), "--seeds", "1", "--variants", "plain,expanded,float"]
    return [sys.executable, "-m", "plq", "compare", *options, "--out", str(folder / "out")]


def environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])}


@pytest.fixture(scope="module")
def finished(command):
    """Ctrl-C during the second training, then the same command again."""
    out = Path(command[-1])
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    first, second = out / "cells" / "plain_0", out / "cells" / "expanded_0"
    limit = time.monotonic() + 300
    while not (second / "config.json").exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stopped = process.communicate(timeout=120)[1]
    assert process.returncode == 130, stopped
    assert "stopped by SIGINT; the same command goes on" in stopped and "Traceback" not in stopped
    assert (first / "done.json").exists() and not (second / "done.json").exists()
    assert not (out / "report.html").exists()
    before = (first / "metrics.jsonl").stat().st_mtime_ns
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert (first / "metrics.jsonl").stat().st_mtime_ns == before
    return out, done


def test_the_same_command_goes_on_and_a_failure_stops_nothing(finished):
    out, done = finished
    assert done.returncode == 1, done.stderr
    lines = done.stderr.splitlines()
    assert [line.split("]")[0] for line in lines if line.startswith("[")] == [f"[{i}/3" for i in range(1, 4)]
    assert "report: looking into 2 models" in lines
    failed = [line for line in lines if line.startswith("failed: ")]
    assert [line.split(": ")[1].split("/")[-1] for line in failed] == ["float_0"]
    assert "holds other things and no run" in failed[0]
    assert "| as configured | 1 |" in done.stdout and "report: " in done.stdout
    good = out / "cells" / "expanded_0"
    assert json.loads((good / "done.json").read_text()) == {} and (good / "model" / "model.json").exists()


def test_what_a_comparison_leaves(finished):
    out, _ = finished
    assert {path.name for path in out.iterdir()} == {".lock", "cells", "compare.json", "figures", "report.html"}
    found = json.loads((out / "compare.json").read_text())
    assert found["command"].startswith("plq compare --config")
    assert found["overall"] == {}  # of a single point
    point = found["points"][""]
    assert point["difference"]["expanded"]["n"] == 1 and point["final"]["plain"]["by_seed"].keys() == {"0"}
    assert "Failed: cells/float_0" in (out / "report.html").read_text()


def test_another_config_or_a_busy_folder_is_refused(finished, monkeypatch):
    from plq.cli.compare import main
    from plq.report.workdir import lock

    out, done = finished
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    arguments = [str(argument) for argument in done.args[4:]]
    with pytest.raises(
        UserError, match=rf"another config \(data.pad: saved 0, now 1\); choose another folder than {out}"
    ):
        main([*arguments, "--config.data.pad=1"])
    with lock(out), pytest.raises(UserError, match=f"--out {out}: another run is using it"):
        main(arguments)


def test_a_single_training_has_a_report(finished, monkeypatch, capsys):
    from plq.cli.report import main

    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    workdir = finished[0] / "cells" / "expanded_0"
    main(["--workdir", str(workdir)])
    assert capsys.readouterr().out == f"report: {workdir / 'report.html'}\n"
    page = (workdir / "report.html").read_text()
    assert "EXP-Net: " in page and "One network: nothing is compared." in page and "Codes of weights" in page
    assert (workdir / "figures" / "accuracy.svg").exists()
    with pytest.raises(UserError, match="config.json: cannot be read"):
        main(["--workdir", str(workdir.parent)])
