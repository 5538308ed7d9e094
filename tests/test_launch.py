"""The launchers against stand-ins for gcloud, sbatch, srun, scontrol, scancel, kubectl and Python on PATH."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "launch"
SCRIPTS = sorted(path.name for path in LAUNCH.glob("*.sh"))
LAUNCHERS = ["kubernetes.sh", "local.sh", "slurm.sh", "tpu_pod.sh"]
CONFIG = "configs/digits_w1a2.py"
TRICKY = ["--config.optimizer.boundaries=(0.5,)", '--config.x=it\'s "a" \\ $HOME & more', "--config.y=two  words"]

# Notes its call, then does what the first answer that fits says, once: PATTERN, status, output.
STAND_IN = """#!/usr/bin/env bash
cd "$STAND_INS" || exit 99
tool=${0##*/}
printf '%q ' "$tool" "$@" >> calls
echo >> calls
cat > "$tool.stdin"
number=0
while IFS=$'\\t' read -r pattern status output; do
  number=$((number + 1))
  if [[ "$tool $*" == *"$pattern"* ]]; then
    sed -i "${number}d" answers
    [ -z "$output" ] || printf '%b\\n' "$output"
    exit "$status"
  fi
done < answers
"""


class Tools:
    """A folder of stand-ins, first on PATH."""

    def __init__(self, folder):
        self.folder = folder
        self.environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "STAND_INS": str(folder)}
        self.environment |= {"POLL": "0", "PAUSE": "0", "HOME": str(folder)}
        for name in ("gcloud", "sbatch", "srun", "scontrol", "scancel", "kubectl"):
            self.make(name, STAND_IN)
        (folder / "calls").touch()
        (folder / "answers").touch()

    def make(self, name, text):
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)
        return str(self.folder / name)

    def answer(self, *answers):
        """(a part of the call, status, output) each."""
        lines = [f"{pattern}\t{status}\t{output}" for pattern, status, output in answers]
        (self.folder / "answers").write_text("".join(f"{line}\n" for line in lines))

    def calls(self):
        return [shlex.split(line) for line in (self.folder / "calls").read_text().splitlines()]

    def run(self, script, *arguments, **environment):
        command = [str(LAUNCH / script), *map(str, arguments)]
        return self._run(command, {**self.environment, **environment})

    def job(self, text, **environment):
        (self.folder / "job").write_text(text)
        return self._run(["bash", str(self.folder / "job")], {**self.environment, "SLURM_JOB_ID": "7", **environment})

    def _run(self, command, environment):
        quiet = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 60}
        return subprocess.run(command, cwd=ROOT, env=environment, **quiet)

    def start(self, command, **environment):
        environment = {**self.environment, **environment}
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=ROOT, env=environment, **quiet)


@pytest.fixture
def tools(tmp_path):
    return Tools(tmp_path)


def until(true):
    limit = time.monotonic() + 30
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.01)


def wait_for(path, lines=1):
    """Until the file has so many lines."""
    until(lambda: path.exists() and path.read_text().count("\n") >= lines)


# All of them


def test_shellcheck_finds_nothing(tools):
    (tools.folder / "job.sh").write_text(tools.run("slurm.sh", "--dry-run", *TRAIN).stdout)
    files = [*(f"launch/{name}" for name in SCRIPTS), str(tools.folder / "job.sh")]
    shellcheck = str(Path(sys.executable).with_name("shellcheck"))  # of the test extra
    done = subprocess.run([shellcheck, "--external-sources", *files], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", LAUNCHERS)
def test_help(script, tools):
    done = tools.run(script, "--help")
    assert done.returncode == 0 and f"launch/{script}" in done.stdout and "--dry-run" in done.stdout and not done.stderr


POD = ["--name", "pod", "--zone", "us-west4-a"]
POD_RUN = ["run", *POD, "--type", "v5litepod-8"]
SET = ["run", "--name", "exp", "--image", "plq:1", "--claim", "runs"]
SET_TPU = [*SET, "--tpu", "tpu-v5-lite-podslice", "--topology", "4x4"]
TRAIN = ["--config", CONFIG, "--workdir", "/runs/a"]
MISTAKES = [
    ("local.sh", [], "--config FILE: missing"),
    ("local.sh", ["--config"], "--config FILE: missing"),
    ("local.sh", ["--config", "gone.py:x"], "--config gone.py: no such file"),
    ("local.sh", ["--config=gone.py"], "--config gone.py: no such file"),
    ("local.sh", ["--proceses", "2", *TRAIN], "--proceses: unknown option"),
    ("local.sh", ["--processes", "two", *TRAIN], "--processes two: allowed a whole number, 1 or more"),
    ("local.sh", ["--processes=0", *TRAIN], "--processes 0: allowed"),
    ("local.sh", ["--grace"], "--grace (nothing): allowed a whole number, 0 or more"),
    ("local.sh", [*TRAIN, "--dry-run"], "--dry-run: goes before --config"),
    ("slurm.sh", [*TRAIN, "--nodes=3"], "--nodes: goes before --config"),
    ("slurm.sh", ["--nodes", "-1", *TRAIN], "--nodes -1: allowed"),
    ("slurm.sh", ["--time", "soon", *TRAIN], "--time soon: allowed 90, 12:00:00"),
    ("slurm.sh", ["--gpus-per-node", "8:h100", *TRAIN], "--gpus-per-node 8:h100: allowed N or TYPE:N"),
    ("slurm.sh", ["--partition", "a; rm -rf b", *TRAIN], "--partition a; rm -rf b: allowed letters"),
    ("slurm.sh", ["--sbatch", "account=lab", *TRAIN], "--sbatch account=lab: allowed one option of sbatch"),
    ("slurm.sh", ["--grace=70000", *TRAIN], "--grace 70000: allowed 1 to 65535"),
    ("tpu_pod.sh", [], "(nothing): allowed run, logs, status, stop, delete"),
    ("tpu_pod.sh", ["start"], "start: allowed run"),
    ("tpu_pod.sh", ["run", *TRAIN], "--name NAME: missing"),
    ("tpu_pod.sh", ["stop", "--name", "pod"], "--zone ZONE: missing"),
    ("tpu_pod.sh", ["stop", *POD, *TRAIN], "--config: goes with run only"),
    ("tpu_pod.sh", ["run", *POD, *TRAIN], "--type TYPE: missing"),
    ("tpu_pod.sh", ["run", *POD, "--type", "v9x-8", *TRAIN], "--version VERSION: missing; there is no usual"),
    ("tpu_pod.sh", [*POD_RUN, *TRAIN, "--spot"], "--spot: goes before --config"),
    ("tpu_pod.sh", ["run", "--name", "Pod", *TRAIN], "--name Pod: allowed lower-case"),
    ("tpu_pod.sh", ["run", *POD, "--type", "tpu", *TRAIN], "--type tpu: allowed a type of slice"),
    ("tpu_pod.sh", [*POD_RUN, "--config", CONFIG], "--workdir : allowed an absolute path"),
    ("tpu_pod.sh", [*POD_RUN, "--config", CONFIG, "--workdir=runs/a"], "--workdir runs/a: allowed an absolute path"),
    ("tpu_pod.sh", [*POD_RUN, "--config", __file__, "--workdir=/a"], f"--config {__file__}: allowed a file below"),
    ("tpu_pod.sh", [*POD_RUN, "--preemptible", "--queued", *TRAIN], "--preemptible: not with --queued; use --spot"),
    ("kubernetes.sh", ["apply"], "apply: allowed run, logs, status, delete"),
    ("kubernetes.sh", ["run", *TRAIN], "--name NAME: missing"),
    ("kubernetes.sh", ["run", "--name", "exp", *TRAIN], "--image IMAGE: missing"),
    ("kubernetes.sh", ["run", "--name", "exp", "--image", "a b", *TRAIN], "--image a b: allowed the name of an image"),
    ("kubernetes.sh", ["run", "--name", "exp", "--image", "plq:1", *TRAIN], "--claim CLAIM: missing"),
    ("kubernetes.sh", [*SET, *TRAIN], "--tpu or --gpu: give one of them"),
    ("kubernetes.sh", [*SET_TPU, "--gpu", "nvidia-l4", *TRAIN], "--tpu or --gpu: give one of them"),
    ("kubernetes.sh", [*SET, "--tpu", "tpu-v5-lite-podslice", *TRAIN], "--topology AxB: missing"),
    ("kubernetes.sh", [*SET_TPU, "--hosts", "4", *TRAIN], "--hosts 4: follows from --topology"),
    ("kubernetes.sh", [*SET_TPU, "--chips", "3", *TRAIN], "--chips 3: does not divide the 16 chips of 4x4"),
    ("kubernetes.sh", [*SET, "--gpu", "nvidia-l4", "--topology", "4x4", *TRAIN], "--topology 4x4: goes with --tpu"),
    (
        "kubernetes.sh",
        [*SET_TPU, "--config", CONFIG, "--workdir", "/tmp/a"],
        "--workdir /tmp/a: allowed a folder below",
    ),
    (
        "kubernetes.sh",
        [*SET_TPU, "--config", CONFIG, "--workdir", "gs://b/a"],
        "--claim runs: has no use, --workdir gs://b/a is an address",
    ),
]


@pytest.mark.parametrize(("script", "arguments", "message"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_one_line_and_nothing_is_run(script, arguments, message, tools):
    done = tools.run(script, *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"{script}: {message}") and done.stderr.count("\n") == 1, done.stderr
    assert tools.calls() == []


@pytest.mark.parametrize(
    ("script", "arguments"),
    [("slurm.sh", []), ("tpu_pod.sh", POD_RUN), ("kubernetes.sh", SET_TPU), ("local.sh", ["--until-done"])],
)
def test_a_dry_run_runs_nothing(script, arguments, tools):
    python = tools.make("python", STAND_IN)
    done = tools.run(script, *arguments, "--dry-run", *TRAIN, PYTHON=python)
    assert done.returncode == 0 and done.stdout and not done.stderr
    assert tools.calls() == []


@pytest.mark.parametrize(
    ("script", "arguments", "program"),
    [("slurm.sh", [], "sbatch"), ("tpu_pod.sh", POD_RUN, "gcloud"), ("kubernetes.sh", SET_TPU, "kubectl")],
)
def test_a_missing_program_is_named(script, arguments, program, tools):
    for name in ("bash", "grep", "mktemp", "rm", "tail"):
        (tools.folder / name).symlink_to(shutil.which(name))
    (tools.folder / program).unlink()
    done = tools.run(script, *arguments, *TRAIN, PATH=str(tools.folder))
    assert (done.returncode, done.stderr) == (2, f"{script}: {program}: not found; install it, or put it on PATH\n")


# One machine


def test_local_hands_on_the_arguments_and_the_status(tools):
    tools.make("python", STAND_IN)
    tools.answer(("plq.main", 5, "hello"))
    done = tools.run("local.sh", *TRAIN, *TRICKY, PYTHON="python")
    assert (done.returncode, done.stdout, done.stderr) == (5, "hello\n", "")
    assert tools.calls() == [["python", "-m", "plq.main", *TRAIN, *TRICKY]]
    shown = tools.run("local.sh", "--dry-run", *TRAIN, *TRICKY, PYTHON="python").stdout
    assert [shlex.split(line) for line in shown.splitlines()] == tools.calls()


@pytest.mark.parametrize(
    ("statuses", "expected"), [([143, 137, 0], 0), ([134, 2, 0], 2), ([1, 0], 1), ([143, 130, 0], 130)]
)
def test_local_starts_again_after_a_signal_only(statuses, expected, tools):
    python = tools.make("python", STAND_IN)
    tools.answer(*(("plq.main", status, "") for status in statuses))
    done = tools.run("local.sh", "--until-done", *TRAIN, PYTHON=python)
    assert done.returncode == expected
    assert tools.calls() == [["python", "-m", "plq.main", *TRAIN]] * (statuses.index(expected) + 1)
    assert done.stderr.count("starting again") == statuses.index(expected)


def test_local_processes_have_a_place_each_and_numbered_lines(tools):
    python = tools.make("python", '#!/bin/sh\necho "$XLA_FLAGS $JAX_PLATFORMS" "$@"\nprintf "an error" >&2\n')
    done = tools.run("local.sh", "--processes=3", "--virtual-devices=2", *TRAIN, PYTHON=python, XLA_FLAGS="--a=b")
    assert done.returncode == 0 and done.stderr == ""
    lines = sorted(done.stdout.splitlines())
    port = re.search(r"127\.0\.0\.1:(\d+)", lines[0]).group(1)
    flags = "--a=b --xla_force_host_platform_device_count=2 cpu"
    place = f"--coordinator 127.0.0.1:{port} --num_processes 3 --process_id"
    expected = [f"[{i}] {flags} -m plq.main {' '.join(TRAIN)} {place} {i}" for i in range(3)]
    assert lines == sorted([*expected, *(f"[{i}] an error" for i in range(3))])


HEARS = """#!/usr/bin/env bash
# Process 1 ends with $ONE, if that is set; a process that is told to end does so, unless $DEAF.
trap 'echo "$$ TERM" >> told; [ -n "${DEAF-}" ] || exit 143' TERM
cd "$STAND_INS"
echo "$$" >> pids
case "$*" in *"process_id 1") [ -z "${ONE-}" ] || exit "$ONE" ;; esac
while true; do sleep 0.02; done
"""


def runs_still(pid):
    state = subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def nobody_is_left(tools):
    """The stand-ins for Python have ended, or do so at once."""
    until(lambda: not any(map(runs_still, (tools.folder / "pids").read_text().split())))
    return True


@pytest.mark.parametrize("deaf", ["", "yes"])
def test_local_ends_the_others_when_one_process_fails(deaf, tools):
    python = tools.make("python", HEARS)
    grace = "0" if deaf else "50"
    done = tools.run("local.sh", "--processes=3", "--grace", grace, *TRAIN, PYTHON=python, ONE="7", DEAF=deaf)
    assert done.returncode == 7 and nobody_is_left(tools)
    assert "local.sh: a process ended with status 7" in done.stderr
    assert ("killed" in done.stderr) == bool(deaf)


@pytest.mark.parametrize("arguments", [["--processes=2"], ["--until-done"]])
def test_local_hands_on_a_signal_once_and_does_not_start_again(arguments, tools):
    python = tools.make("python", HEARS)
    process = tools.start([str(LAUNCH / "local.sh"), *arguments, *TRAIN], PYTHON=python)
    wait_for(tools.folder / "pids", lines=2 if arguments == ["--processes=2"] else 1)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    pids = sorted((tools.folder / "pids").read_text().split())
    assert process.returncode == 143 and nobody_is_left(tools) and "again" not in errors
    assert sorted((tools.folder / "told").read_text().splitlines()) == [f"{pid} TERM" for pid in pids]


def test_local_trains(tmp_path):
    """The real program."""
    small = ["--config.model.width=0.05", "--config.train.epochs=0.1", "--config.factor.name=constant"]
    options = ["--until-done", "--virtual-devices", "1", "--config", CONFIG, "--workdir", str(tmp_path / "run")]
    environment = {**os.environ, "PYTHON": sys.executable, "XLA_FLAGS": ""}
    done = subprocess.run([str(LAUNCH / "local.sh"), *options, *small], cwd=ROOT, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model" / "model.json").is_file() and b"bit-equal" in done.stderr


# Slurm

JOB_OPTIONS = ["--nodes=2", "--gpus-per-node=h100:8", "--cpus-per-task=12", "--time=1-12:00:00", "--partition=gpu,big"]


def job(tools, *options):
    return tools.run("slurm.sh", *options, "--dry-run", *TRAIN, *TRICKY, PYTHON="/opt/my python").stdout


def test_slurm_writes_the_job(tools):
    text = job(tools, *JOB_OPTIONS, "--job-name=exp", "--sbatch=--account=lab", "--sbatch", "--exclusive", "--grace=99")
    header = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]
    assert header == [
        *["--job-name=exp", "--nodes=2", "--ntasks-per-node=8", "--gpus-per-node=h100:8", "--cpus-per-task=12"],
        *["--time=1-12:00:00", "--partition=gpu,big", "--requeue", "--open-mode=append", "--signal=B:USR1@99"],
        *["--account=lab", "--exclusive"],
    ]
    plain = job(tools, "--gpus-per-node=0")
    assert "--gpus" not in plain and "--ntasks-per-node=1\n" in plain and "cpus-per-task" not in plain


def test_slurm_submits_it_and_passes_on_the_status(tools):
    tools.answer(("sbatch", 0, "Submitted batch job 7"), ("sbatch", 3, ""))
    done = tools.run("slurm.sh", *JOB_OPTIONS, *TRAIN, *TRICKY, PYTHON="/opt/my python")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Submitted batch job 7\n", "")
    assert tools.calls() == [["sbatch"]]
    assert (tools.folder / "sbatch.stdin").read_text() == job(tools, *JOB_OPTIONS)
    assert tools.run("slurm.sh", *TRAIN).returncode == 3


SRUN = ["srun", "--kill-on-bad-exit=0", "--wait=180", "--label"]
REQUEUE = ["scontrol", "requeue", "Incomplete", "7"]


@pytest.mark.parametrize(
    ("status", "restarts", "again"),
    [(0, 0, False), (2, 0, False), (1, 0, False), (143, 0, True), (134, 19, True), (143, 20, False)],
)
def test_a_slurm_job_goes_back_to_the_queue_after_a_signal_only(status, restarts, again, tools):
    tools.answer(("srun", status, ""), ("scontrol", 1, ""))
    done = tools.job(job(tools), SLURM_RESTART_COUNT=str(restarts))
    assert done.returncode == status
    run = [*SRUN, "/opt/my python", "-m", "plq.main", *TRAIN, *TRICKY]
    assert tools.calls() == [run, REQUEUE] if again else [run]


SAVES = """#!/usr/bin/env bash
cd "$STAND_INS"
echo started > started
while ! grep -q "$UNTIL" calls; do sleep 0.02; done
exit "$STATUS"
"""


@pytest.mark.parametrize(("status", "calls"), [(143, [REQUEUE]), (0, [])])
def test_a_slurm_job_near_its_limit_saves_and_goes_back(status, calls, tools):
    tools.make("srun", SAVES)
    (tools.folder / "job").write_text(job(tools))
    command = ["bash", str(tools.folder / "job")]
    process = tools.start(command, SLURM_JOB_ID="7", STATUS=str(status), UNTIL="scancel --signal=TERM 7")
    wait_for(tools.folder / "started")
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=60)
    assert process.returncode == status
    assert tools.calls() == [["scancel", "--signal=TERM", "7"], *calls]


def test_a_preempted_slurm_job_does_not_tell_its_processes_twice(tools):
    """They get Slurm's SIGTERM themselves, as the script does."""
    tools.make("srun", SAVES)
    (tools.folder / "job").write_text(job(tools))
    process = tools.start(["bash", str(tools.folder / "job")], SLURM_JOB_ID="7", STATUS="143", UNTIL="saved")
    wait_for(tools.folder / "started")
    process.terminate()
    time.sleep(0.1)
    assert process.poll() is None
    (tools.folder / "calls").write_text("saved\n")
    process.communicate(timeout=60)
    assert process.returncode == 143 and tools.calls() == [["saved"], REQUEUE]


# TPU pods


def tpu(*arguments):
    return ["gcloud", "compute", "tpus", *arguments, "--zone=us-west4-a"]


def on(worker, command):
    return tpu("tpu-vm", "ssh", "pod", f"--worker={worker}", f"--command={command}")


LOOK = tpu("tpu-vm", "list", "--filter=name~/pod$", "--format=value(state)")
CREATE = tpu("tpu-vm", "create", "pod", "--accelerator-type=v5litepod-8", "--version=v2-alpha-tpuv5-lite", "--spot")
DELETE = tpu("tpu-vm", "delete", "pod", "--quiet")
COPY = tpu("tpu-vm", "scp", "ARCHIVE", "pod:plq.tar.gz", "--worker=all")
UNPACK = on("all", "mkdir -p plq && tar -xzf plq.tar.gz -C plq && plq/launch/tpu_worker.sh install")
START = on("all", f"plq/launch/tpu_worker.sh start {' '.join(TRAIN)}")
FOLLOW = on(0, "plq/launch/tpu_worker.sh follow")
STATE = on(0, "[ ! -x plq/launch/tpu_worker.sh ] || plq/launch/tpu_worker.sh state")
BEGIN = [COPY, UNPACK, START]
is_look, is_state = ("tpu-vm list", 0), ("tpu_worker.sh state", 0)


def looks(*states):
    return [(*is_look, state) for state in states]


def runs(*states):
    return [(*is_state, state) for state in states]


def pod_calls(tools):
    """With the name of the archive, which is new each time, left out."""
    return [["ARCHIVE" if word.endswith("/plq.tar.gz") else word for word in call] for call in tools.calls()]


def test_a_pod_is_made_trained_on_and_deleted(tools):
    tools.answer(*looks("", "READY", "READY"), *runs("", "ended 0"), ("follow", 0, "step 1"))
    done = tools.run("tpu_pod.sh", *POD_RUN, "--spot", "--delete-when-done", *TRAIN)
    assert (done.returncode, done.stdout) == (0, "step 1\n"), done.stderr
    assert pod_calls(tools) == [LOOK, CREATE, LOOK, STATE, *BEGIN, FOLLOW, LOOK, STATE, DELETE]


def test_what_is_copied_to_a_pod(tools):
    """The archive holds the code and no run, no history, no environment."""
    keep = STAND_IN.replace("cd ", 'case "$*" in *scp*) cp "$5" "$STAND_INS/kept.tar.gz" ;; esac\ncd ', 1)
    tools.make("gcloud", keep)
    tools.answer(*looks("READY", "READY"), *runs("", "ended 0"))
    assert tools.run("tpu_pod.sh", *POD_RUN, *TRAIN).returncode == 0
    listed = subprocess.run(["tar", "-tzf", str(tools.folder / "kept.tar.gz")], capture_output=True, text=True)
    names = set(listed.stdout.split())
    assert {"./plq/main.py", "./launch/tpu_worker.sh", f"./{CONFIG}", "./pyproject.toml"} <= names
    assert not [name for name in names if name.split("/")[1] in (".git", ".venv", "runs") or "__pycache__" in name]


def test_a_dry_run_shows_what_a_pod_would_be_asked(tools):
    options = ["--spot", "--project=my-project", "--setup", "sudo mount 10.0.0.2:/runs '/runs'"]
    shown = tools.run("tpu_pod.sh", *POD_RUN, *options, "--dry-run", *TRAIN, *TRICKY).stdout
    calls = [shlex.split(line) for line in shown.splitlines()]
    assert [call[3:5] for call in calls] == [["tpu-vm", verb] for verb in ("create", "scp", "ssh", "ssh", "ssh")]
    assert all(call[-2:] == ["--zone=us-west4-a", "--project=my-project"] for call in calls)
    setup, start = (shlex.split(call[-3].removeprefix("--command=")) for call in calls[2:4])
    assert setup[-2:] == ["install", "sudo mount 10.0.0.2:/runs '/runs'"]
    assert start == ["plq/launch/tpu_worker.sh", "start", *TRAIN, *TRICKY]


@pytest.mark.parametrize(
    ("options", "version"),
    [
        (["--type=v5litepod-8"], "v2-alpha-tpuv5-lite"),
        (["--type=v5p-8"], "v2-alpha-tpuv5"),
        (["--type=v6e-8"], "v2-alpha-tpuv6e"),
        (["--type=v4-8"], "tpu-ubuntu2204-base"),
        (["--type=v6e-8", "--version=v2-alpha-tpuv5"], "v2-alpha-tpuv5"),
    ],
)
def test_the_software_of_a_pod(options, version, tools):
    shown = tools.run("tpu_pod.sh", "run", *POD, *options, "--dry-run", *TRAIN).stdout
    assert f" --version={version} " in shown.splitlines()[0]


def test_a_preempted_pod_is_made_again(tools):
    tools.answer(
        *looks("READY", "PREEMPTED", "PREEMPTED", "", "CREATING", "READY", "READY"),
        *runs("", "none", "ended 0"),
        ("follow", 255, ""),
    )
    done = tools.run("tpu_pod.sh", *POD_RUN, "--spot", *TRAIN)
    assert done.returncode == 0 and "preempted" in done.stderr
    again = [LOOK, DELETE, LOOK, CREATE, LOOK, LOOK, STATE, *BEGIN, FOLLOW, LOOK, STATE]
    assert pod_calls(tools) == [LOOK, STATE, *BEGIN, FOLLOW, LOOK, *again]


def test_a_pod_can_be_waited_for_in_the_queue(tools):
    entries = [("queued-resources list", 0, state) for state in ("", "WAITING_FOR_RESOURCES", "SUSPENDED", "")]
    tools.answer(*looks("", "", "READY", "", "", "", "READY", "READY"), *entries, *runs("", "", "ended 0"))
    done = tools.run("tpu_pod.sh", *POD_RUN, "--spot", "--queued", *TRAIN)
    assert done.returncode == 0, done.stderr
    queue = [call[4:6] for call in tools.calls() if call[3] == "queued-resources" and call[4] != "list"]
    assert queue == [["create", "pod"], ["delete", "pod"], ["create", "pod"]]
    kind = ["--accelerator-type=v5litepod-8", "--runtime-version=v2-alpha-tpuv5-lite", "--spot"]
    assert tpu("queued-resources", "create", "pod", "--node-id=pod", *kind) in tools.calls()
    assert tpu("queued-resources", "delete", "pod", "--force", "--quiet") in tools.calls()


def test_a_run_that_goes_on_is_looked_at_only(tools):
    tools.answer(*looks("READY", "READY", "READY", "READY"), *runs("running", "running", "running", "ended 0"))
    assert tools.run("tpu_pod.sh", *POD_RUN, *TRAIN).returncode == 0
    assert pod_calls(tools) == [LOOK, STATE, FOLLOW, LOOK, STATE] * 2


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        (["ended 2"], 2),
        (["stopped 143"], 143),
        (["ended 134", "ended 0"], 0),
        (["lost", "ended 0"], 0),
        (["ended 1", "ended 1", "ended 1"], 1),
    ],
)
def test_how_a_run_on_a_pod_ends(ends, expected, tools):
    tools.answer(*looks(*["READY"] * 6), *runs(*(state for end in ends for state in ("none", end))))
    assert tools.run("tpu_pod.sh", *POD_RUN, "--restarts=2", *TRAIN).returncode == expected
    assert pod_calls(tools).count(START) == len(ends)


@pytest.mark.parametrize("failing", ["tpu-vm list", "tpu-vm create", "tpu-vm scp", "tpu_worker.sh start"])
def test_a_failure_of_gcloud_is_passed_on(failing, tools):
    tools.answer((failing, 9, ""), *looks("", "READY"))
    assert tools.run("tpu_pod.sh", *POD_RUN, *TRAIN).returncode == 9
    assert failing in " ".join(tools.calls()[-1])


def test_the_other_actions_on_a_pod(tools):
    for action, expected in (
        (["logs", "--worker=3"], [on(3, "plq/launch/tpu_worker.sh follow")]),
        (["status"], [LOOK, STATE]),
        (["stop"], [on("all", "plq/launch/tpu_worker.sh stop")]),
        (["delete"], [DELETE]),
    ):
        (tools.folder / "calls").write_text("")
        assert tools.run("tpu_pod.sh", action[0], *POD, *action[1:]).returncode == 0
        assert tools.calls() == expected


@pytest.fixture
def worker(tools):
    """Calls the script of a pod's worker; its home is the folder of the stand-ins."""
    (tools.folder / "plq").mkdir()
    shutil.copytree(LAUNCH, tools.folder / "plq" / "launch")
    python = tools.make("python", HEARS)
    return lambda *arguments: tools._run(
        [str(tools.folder / "plq" / "launch" / "tpu_worker.sh"), *arguments], {**tools.environment, "PYTHON": python}
    )


def states(worker, wanted):
    until(lambda: worker("state").stdout == f"{wanted}\n")
    return True


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks into /proc")
def test_a_worker_trains_in_the_background(tools, worker):
    assert states(worker, "none")
    assert worker("start", *TRAIN, *TRICKY).returncode == 0 and states(worker, "running")
    worker("start", *TRAIN)  # a second one is none
    wait_for(tools.folder / "pids")
    worker("stop")
    assert states(worker, "stopped 143") and nobody_is_left(tools)
    assert len((tools.folder / "pids").read_text().split()) == 1
    tools.make("python", '#!/bin/sh\necho "$@"\nexit 5\n')
    assert worker("start", *TRAIN, *TRICKY).returncode == 0 and states(worker, "ended 5")
    assert worker("follow").stdout == " ".join(["-m plq.main", *TRAIN, *TRICKY]) + "\n"


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks into /proc")
def test_a_worker_that_went_down_is_lost(tools, worker):
    (tools.folder / "plq-run").mkdir()
    (tools.folder / "plq-run" / "pid").write_text(f"{os.getpid()}")  # somebody else's by now
    assert states(worker, "lost")


def test_a_worker_installs(tools, worker):
    for name in ("python3", ".local/bin/uv"):
        (tools.folder / name).parent.mkdir(parents=True, exist_ok=True)
        tools.make(name, STAND_IN)
    assert worker("install", "echo done > it; touch /nowhere/else").returncode == 1  # the status of the last command
    assert tools.calls() == [
        ["python3", "-m", "pip", "install", "--quiet", "--user", "uv"],
        ["uv", "venv", "--quiet", "--python", "3.11", ".venv"],
        ["uv", "pip", "install", "--quiet", "--python", ".venv/bin/python", ".[jpeg,remote]", "jax[tpu]"],
    ]
    assert (tools.folder / "plq" / "it").read_text() == "done\n"


# Kubernetes


def manifest(tools, *options, train=TRAIN):
    return yaml.safe_load(tools.run("kubernetes.sh", *options, "--dry-run", *train, *TRICKY).stdout)


def job_of(manifest):
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    return manifest["spec"]["replicatedJobs"][0]["template"]["spec"]


def as_kubernetes_reads(words):
    """$$ is $ there; $(NAME) would be a variable."""
    assert not [word for word in words if re.search(r"(?<!\$)\$[^$]", word.replace("$$", ""))]
    return [word.replace("$$", "$") for word in words]


def test_a_set_of_tpu_hosts(tools):
    found = manifest(tools, *SET_TPU, "--spot", "--restarts=9", "--grace=33")
    job = job_of(found)
    pod = job["template"]["spec"]
    assert found["metadata"]["name"] == "exp" and found["spec"]["failurePolicy"]["maxRestarts"] == 9
    assert (job["parallelism"], job["completions"], job["completionMode"], job["backoffLimit"]) == (4, 4, "Indexed", 0)
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
        "cloud.google.com/gke-spot": "true",
    }
    container = pod["containers"][0]
    assert container["image"] == "plq:1" and container["command"] == ["python", "-m", "plq.main"]
    assert container["resources"] == {"limits": {"google.com/tpu": 4}} and "env" not in container
    assert as_kubernetes_reads(container["args"]) == [*TRAIN, *TRICKY]
    assert pod["terminationGracePeriodSeconds"] == 33
    assert pod["volumes"] == [{"name": "runs", "persistentVolumeClaim": {"claimName": "runs"}}]


def test_a_set_whose_run_is_at_an_address_needs_no_volume(tools):
    options = [option for option in SET_TPU if option not in ("--claim", "runs")]
    found = manifest(tools, *options, train=["--config", CONFIG, "--workdir", "gs://bucket/a"])
    pod = job_of(found)["template"]["spec"]
    assert "volumes" not in pod and "volumeMounts" not in pod["containers"][0]
    assert "--workdir gs://bucket/a" in " ".join(as_kubernetes_reads(pod["containers"][0]["args"]))


def test_wrong_input_ends_a_set_and_everything_else_starts_it_again(tools):
    found = manifest(tools, *SET_TPU)
    [rule] = found["spec"]["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    [pod_rule] = job_of(found)["podFailurePolicy"]["rules"]
    container = job_of(found)["template"]["spec"]["containers"][0]["name"]
    assert pod_rule == {
        "action": "FailJob",
        "onExitCodes": {"containerName": container, "operator": "In", "values": [2]},
    }
    assert job_of(found)["template"]["spec"]["restartPolicy"] == "Never"  # podFailurePolicy asks for it


def test_a_set_of_gpu_hosts(tools):
    found = manifest(tools, *SET, "--gpu=nvidia-h100-80gb", "--hosts=2", "--data=sets")
    assert "annotations" not in found["metadata"]
    pod = job_of(found)["template"]["spec"]
    container = pod["containers"][0]
    assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"}
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 8}}
    assert container["env"] == [{"name": "TFDS_DATA_DIR", "value": "/data"}]
    assert {"name": "data", "mountPath": "/data", "readOnly": True} in container["volumeMounts"]
    place = ["--coordinator", "exp-hosts-0-0.exp:8476", "--num_processes", "2"]
    assert container["args"][-6:] == [*place, "--process_id", "$(JOB_COMPLETION_INDEX)"]


@pytest.mark.parametrize("options", [["--gpu=nvidia-l4", "--chips=1"], ["--tpu=tpu-v6e-slice", "--topology=2x2"]])
def test_a_set_of_one_host_is_alone(options, tools):
    job = job_of(manifest(tools, *SET, *options))
    assert job["parallelism"] == 1
    assert job["template"]["spec"]["containers"][0]["args"][-2:] == ["--num_processes", "1"]


def test_kubectl_is_handed_the_set_and_its_status_passed_on(tools):
    tools.answer(("create", 0, "created"), ("create", 4, ""))
    done = tools.run("kubernetes.sh", *SET_TPU, "--namespace=lab", *TRAIN)
    assert (done.returncode, done.stdout) == (0, "created\n")
    assert tools.calls() == [["kubectl", "--namespace=lab", "create", "--filename=-"]]
    shown = tools.run("kubernetes.sh", *SET_TPU, "--namespace=lab", "--dry-run", *TRAIN).stdout
    assert (tools.folder / "kubectl.stdin").read_text() == shown
    assert tools.run("kubernetes.sh", *SET_TPU, *TRAIN).returncode == 4


def test_the_other_actions_on_a_set(tools):
    pods = "--selector=jobset.sigs.k8s.io/jobset-name=exp"
    first = f"{pods},batch.kubernetes.io/job-completion-index=0"
    for action, expected in (
        ("logs", [["logs", "--follow", "--tail=-1", first]]),
        ("status", [["get", "jobset", "exp"], ["get", "pods", pods, "--output=wide"]]),
        ("delete", [["delete", "jobset", "exp"]]),
    ):
        (tools.folder / "calls").write_text("")
        assert tools.run("kubernetes.sh", action, "--name=exp").returncode == 0
        assert tools.calls() == [["kubectl", *call] for call in expected]
