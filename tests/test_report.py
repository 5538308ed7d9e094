"""What a person sees and what is written down: the line, the files, the folder's lock."""

import io
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plq.errors import UserError
from plq.report.log import RunLog
from plq.report.metrics import MetricsFile, read_metrics
from plq.report.progress import Progress
from plq.report.table import format_table, human_bytes
from plq.report.tensorboard import EventWriter
from plq.report.workdir import lock, prepare_workdir, require_shared
from plq.storage.output import write_text_atomic

METRICS = {"loss": 0.41273, "accuracy": 0.8812, "lr": 1e-3, "factor": 0.4271}


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_the_line_says_where_a_run_is():
    clock, stream = Clock(), io.StringIO()
    progress = Progress(8000, 200, 64, stream=stream, clock=clock)
    clock.now += 12
    progress.update(1200, METRICS)
    assert stream.getvalue() == (
        "epoch 6/40  step 1,200/8,000  ETA 01:08  6,400 images/s  loss 0.4127  acc 88.12%  lr 1.0e-03  f 0.427\n"
    )


def test_speed_and_eta_after_a_resume_count_from_where_it_went_on():
    clock, stream = Clock(), io.StringIO()
    progress = Progress(8000, 200, 64, start_step=7000, stream=stream, clock=clock)
    clock.now += 10
    progress.update(7100, METRICS)
    assert "ETA 01:30  640 images/s" in stream.getvalue()


def test_where_it_cannot_be_rewritten_lines_are_few():
    clock, stream = Clock(), io.StringIO()
    progress = Progress(100, 10, 1, stream=stream, clock=clock)
    for step in range(1, 101):
        clock.now += 1
        progress.update(step, METRICS)
    assert stream.getvalue().count("\n") == 11
    assert "step 100/100" in stream.getvalue()


@pytest.mark.parametrize("columns", [20, 60, 160])
def test_on_a_terminal_it_is_one_line_that_fits(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    clock, stream = Clock(), Terminal()
    progress = Progress(100, 10, 1, stream=stream, clock=clock)
    for step in (1, 2):
        clock.now += 1
        progress.update(step, METRICS)
    progress.note("a note")
    progress.close()
    shown = stream.getvalue().split("\r\x1b[K")
    assert all(len(part.rstrip("\n")) < columns for part in shown)
    assert "a note\n" in shown and stream.getvalue().endswith("\n")
    assert stream.getvalue().count("\n") == 2


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
@settings(max_examples=200)
def test_float32_values_read_back_the_same(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("metrics") / "metrics.jsonl"
    file = MetricsFile(path)
    file.write({"step": 1, "loss": np.float32(value)})
    assert np.float32(read_metrics(path)[0]["loss"]) == np.float32(value)
    file.close()


def write(path, steps):
    file = MetricsFile(path)
    for step in steps:
        file.write({"step": step, "loss": 1 / (step + 1), "bad": math.nan})
    file.close()


def test_every_line_is_json(tmp_path):
    write(tmp_path / "m", range(3))
    lines = [json.loads(line) for line in (tmp_path / "m").read_text().splitlines()]
    assert lines[2] == {"step": 2, "loss": 1 / 3, "bad": None}


def test_rewind_takes_back_what_came_after_and_a_torn_line(tmp_path):
    write(tmp_path / "long", range(10))
    write(tmp_path / "short", range(5))
    with (tmp_path / "long").open("a") as file:
        file.write('{"step": 10, "lo')
    MetricsFile(tmp_path / "long").rewind(4)
    assert (tmp_path / "long").read_bytes() == (tmp_path / "short").read_bytes()
    MetricsFile(tmp_path / "none").rewind(4)


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    write(tmp_path / "m", range(3))
    (tmp_path / "m").write_text((tmp_path / "m").read_text().replace('{"step": 1', "oops"))
    with pytest.raises(UserError, match="m line 2: not a record"):
        read_metrics(tmp_path / "m")


def events(folder):
    """(step, tag, value) of all event files, in the order of writing; purges as ("purge", step)."""
    import struct

    from tensorboardX.proto.event_pb2 import Event

    for file in sorted(folder.glob("*.events.*"), key=lambda path: path.stat().st_mtime_ns):
        data, position = file.read_bytes(), 0
        while position < len(data):
            (length,) = struct.unpack_from("<Q", data, position)
            event = Event.FromString(data[position + 12 : position + 12 + length])
            position += 12 + length + 4
            if event.HasField("session_log"):
                yield "purge", event.step
            for value in event.summary.value:
                yield event.step, value.tag, round(value.simple_value, 4)


def test_events_read_back_and_a_resumed_run_purges(tmp_path):
    first = EventWriter(tmp_path)
    first.scalars(5, {"train/loss": 0.5, "train/factor": 1.0})
    first.close()
    second = EventWriter(tmp_path, purge_step=3)
    second.scalars(3, {"train/loss": 0.25})
    second.close()
    found = list(events(tmp_path))
    assert found[:2] == [(5, "train/loss", 0.5), (5, "train/factor", 1.0)]
    assert ("purge", 3) in found and found[-1] == (3, "train/loss", 0.25)
    assert "tensorflow" not in sys.modules


def test_tables_are_aligned():
    text = format_table(["name", "n"], [["a", 1234], ["bcd", 5]], ["total", 1239])
    assert text.splitlines() == [
        "name       n",
        "-----  -----",
        "a      1,234",
        "bcd        5",
        "-----  -----",
        "total  1,239",
    ]


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 * 2**30, "3.0 GiB")])
def test_sizes(size, text):
    assert human_bytes(size) == text


def test_workdirs(tmp_path):
    prepare_workdir(tmp_path / "new" / "deep")
    write_text_atomic(tmp_path / "new" / "deep" / "config.json", "{}")
    prepare_workdir(tmp_path / "new" / "deep")
    assert [path.name for path in (tmp_path / "new" / "deep").iterdir()] == ["config.json"]
    with pytest.raises(UserError, match="a file is in the way"):
        prepare_workdir(tmp_path / "new" / "deep" / "config.json" / "x")


def test_the_lock_ends_with_its_process(tmp_path):
    hold = f"from plq.report.workdir import lock\nfrom pathlib import Path\nwith lock(Path({str(tmp_path)!r})):\n"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{hold} print('held', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"another run is using it .process {process.pid} on"), lock(tmp_path):
        pass
    process.kill()
    process.wait()
    with lock(tmp_path):
        pass


def test_the_speed_does_not_count_the_first_report_which_compiled():
    clock, stream = Clock(), Terminal()
    progress = Progress(1000, 100, 10, stream=stream, clock=clock)
    for seconds, step in ((60, 10), (1, 20), (1, 30)):
        clock.now += seconds
        progress.update(step, METRICS)
    assert (
        "step 30/1,000  ETA 01:37  100 images/s" in stream.getvalue() or "ETA 01:37 100 images/s" in stream.getvalue()
    )


def test_what_cannot_be_written_is_one_line(tmp_path):
    """/dev/full is a disk without room."""
    log = RunLog(tmp_path, Progress(10, 10, 1, stream=io.StringIO()), 0, tensorboard=False)
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"metrics.jsonl: cannot be written to \(No space left on device\)"):
        log.train(1, METRICS)
    with pytest.raises(UserError, match="is/no/folder: cannot be written to"):
        write_text_atomic(tmp_path / "is/no/folder", "text")


def test_a_disk_that_fills_up_ends_the_events_too(tmp_path):
    """tensorboardX's own thread would die, and the run wait for it without end."""
    log = RunLog(tmp_path, Progress(10, 10, 1, stream=io.StringIO()), 0, tensorboard=True)
    full = pytest.raises(UserError, match=r"tensorboard: cannot be written to \(No space left on device\)")
    with Path("/dev/full").open("wb", buffering=0) as log.events._writer._py_recordio_writer._writer, full:
        log.train(1, METRICS)


def test_events_are_read_in_the_order_of_steps_whatever_the_clock_says(tmp_path, monkeypatch):
    for hours_back, step in ((0, 1), (5, 21), (9, 1001)):
        monkeypatch.setattr(time, "time", lambda hours_back=hours_back: 1.8e9 - 3600 * hours_back)
        EventWriter(tmp_path, step).close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert [int(name.split(".")[0]) for name in names] == [1, 21, 1001]
    assert all("tfevents" in name for name in names)


def test_a_folder_that_is_not_shared_is_refused(tmp_path):
    with pytest.raises(UserError, match="not the folder of process 0; allowed one that all processes see"):
        require_shared(tmp_path, seconds=0.3)
    write_text_atomic(tmp_path / "config.json", "{}")
    require_shared(tmp_path, seconds=0)
