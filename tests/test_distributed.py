"""One run in several processes: found, joined, the same figures, and an end that all hear of."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import stores
from networks import digit_images
from safetensors.numpy import load_file
from tfds_sets import noise, write_set

from plq.checkpoint.model_file import VARIABLES
from plq.checkpoint.store import open_store
from plq.cli import train as main
from plq.config.load import build_config, default
from plq.data.loader import ArrayLoader
from plq.data.sets import Split
from plq.distributed.process import ALONE, ProcessInfo, launcher, process_from_flags
from plq.distributed.session import session
from plq.errors import UserError
from plq.layers.variables import flatten
from plq.report.metrics import read_metrics
from plq.storage.address import place
from plq.storage.mirror import PARTS
from plq.storage.staging import staged_input
from plq.trainer.evaluation import all_logits, open_loader
from plq.trainer.trainer import Run

# In full precision, where rounding cannot turn a difference in the last bit into a whole step of a quantizer.
# At 3e-4 a change of 1e-7 in the first weights grew to 1e-3 of the loss within 40 steps, at 3e-5 to 1e-5.
CONFIG = """
from runs import tiny_config

def get_config():
    return tiny_config(checkpoint__every_steps=11, report__every_steps=1, data__pad=2, model__dropout=0.0,
        model__width=0.125, quant__weight_bits=32, quant__activation_bits=32, quant__activations="relu",
        optimizer__learning_rate=3e-5)
"""


def test_flags_give_a_place_or_none():
    assert process_from_flags("", None, None) is None
    assert process_from_flags("", 1, None) == ALONE
    assert process_from_flags("[::1]:1234", 2, 1) == ProcessInfo("[::1]:1234", 2, 1)


@pytest.mark.parametrize(("flags", "message"), [
    (("h:1", None, None), "--coordinator: given without --num_processes, --process_id"),
    (("", None, 0), "--process_id: given without --coordinator, --num_processes"),
    (("", 2, 1), "--num_processes, --process_id: given without --coordinator"),
    (("h:1", 2, 2), "--process_id 2: allowed 0 to 1"),
    (("h:1", 2, -1), "--process_id -1: allowed 0 to 1"),
    (("h:1", 0, 0), "--num_processes 0: allowed 1 or more"),
    (("host", 2, 0), "--coordinator host: allowed HOST:PORT"),
    (("host:99999", 2, 0), "--coordinator host:99999: allowed HOST:PORT"),
])  # fmt: skip
def test_half_a_place_is_refused(flags, message):
    with pytest.raises(UserError, match=message):
        process_from_flags(*flags)


@pytest.mark.parametrize(("variables", "found"), [
    ({}, ""),
    ({"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"}, ""),  # allocated, not started by srun
    ({"SLURM_NTASKS": "1", "SLURM_STEP_NODELIST": "a"}, ""),
    ({"SLURM_NTASKS": "4", "SLURM_STEP_NODELIST": "a[1-4]"}, "Slurm"),
    ({"OMPI_COMM_WORLD_SIZE": "1"}, ""),
    ({"OMPI_COMM_WORLD_SIZE": "2"}, "Open MPI"),
    ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, ""),
    ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"}, "Kubernetes"),
    ({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_ML_PLATFORM": "JAX", "TPU_SKIP_MDS_QUERY": "1"}, ""),
    ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_SKIP_MDS_QUERY": "1"}, "Cloud TPU"),
    ({"TPU_ML_PLATFORM": "JAX"}, "Cloud TPU"),
])  # fmt: skip
def test_the_system_that_started_several_is_known_by_its_variables(variables, found):
    assert launcher(variables) == found


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("photographs"), {"train": noise(26), "test": noise(21, seed=1)})


def feeds(kind, photographs, split, count):
    """The feeds of ``count`` processes, at batch 8, and that of one."""
    shards = [(0, 1)] + [(index, count) for index in range(count)]
    if kind == "arrays":
        images = Split(digit_images(26 if split == "train" else 21), np.arange(26 if split == "train" else 21))
        return [ArrayLoader(images, 8, 5, shard) for shard in shards]
    config = default()
    config.data.name, config.data.data_dir, config.data.batch_size = "tiny_set", str(photographs), 8
    config.data.crop, config.data.image_size = "resized", 8
    return [open_loader(build_config(config).data, split, 5, shard) for shard in shards]


@pytest.mark.parametrize("kind", ["arrays", "records"])
@pytest.mark.parametrize("count", [2, 4])
def test_the_processes_rows_together_are_the_batch_of_one(kind, count, photographs):
    """Disjoint, complete, in order, cropped alike; and the last batch of an evaluation, which is not full."""
    whole, *parts = feeds(kind, photographs, "train", count)
    for one, *others in zip(whole.batches(2, 5), *(part.batches(2, 5) for part in parts), strict=True):
        assert [len(labels) for _, labels in others] == [8 // count] * count
        for left, right in zip(one, zip(*others, strict=True), strict=True):
            np.testing.assert_array_equal(left, np.concatenate(right))
    whole, *parts = feeds(kind, photographs, "test", count)
    batches = list(zip(whole.eval_batches(), *(part.eval_batches() for part in parts), strict=True))
    for one, *others in batches:
        for left, right in zip(one, zip(*others, strict=True), strict=True):
            np.testing.assert_array_equal(left, np.concatenate(right))
    assert len(batches) == 3 and sum(mask.sum() for (_, _, mask), *_ in batches) == 21


def test_an_evaluation_counts_each_image_once(photographs):
    feed = feeds("arrays", photographs, "test", 1)[0]
    logits, labels = all_logits(lambda images: images.reshape(len(images), -1).sum(1, keepdims=True), feed)
    np.testing.assert_array_equal(labels, np.arange(21))
    np.testing.assert_array_equal(logits[:, 0], feed.split.images.reshape(21, -1).sum(1))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    file = tmp_path_factory.mktemp("config") / "config.py"
    file.write_text(CONFIG)
    return file


@pytest.fixture(scope="module")
def alone(tmp_path_factory, config):
    """The folder of the run in one process on one device."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    main.main(["--config", str(config), "--workdir", str(workdir), "--config.mesh.data=1"])
    return workdir


def assert_same_run(workdir, other):
    """Every loss and accuracy, and the model, to float tolerance."""
    mine, theirs = (read_metrics(folder / "metrics.jsonl") for folder in (workdir, other))
    assert [(line["step"], line["kind"]) for line in mine] == [(line["step"], line["kind"]) for line in theirs]
    assert [line["factor"] for line in mine] == [line["factor"] for line in theirs]
    np.testing.assert_allclose([line["loss"] for line in mine], [line["loss"] for line in theirs], rtol=1e-4)
    np.testing.assert_allclose([line["accuracy"] for line in mine], [line["accuracy"] for line in theirs], atol=0.004)
    variables, others = (load_file(folder / "model" / "variables.safetensors") for folder in (workdir, other))
    assert set(variables) == set(others)
    for name, leaf in variables.items():
        np.testing.assert_allclose(leaf, others[name], rtol=1e-3, atol=3e-5, err_msg=name)


def test_fully_sharded_trains_as_one_device(alone, config, tmp_path, capsys):
    main.main(["--config", str(config), "--workdir", str(tmp_path), "--config.mesh.fsdp=2"])
    assert "(data 1, fsdp 2)" in capsys.readouterr().out
    assert_same_run(tmp_path, alone)


def started(config, workdir, *arguments, second=()):
    """Two processes of two devices each; ``second``: arguments of process 1 alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "plq.main", "--config", str(config), "--workdir", str(workdir), "--patience", "4"]
    command += ["--coordinator", address, "--num_processes", "2", *arguments, "--process_id"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen([*command, *given], env=environment, **pipes) for given in (["0"], ["1", *second])]


def ended(processes, workdir, step, act):
    """Exit statuses and what was said, after ``act`` at this step."""
    limit = time.monotonic() + 400
    try:
        while time.monotonic() < limit and all(process.poll() is None for process in processes):
            metrics = workdir / "metrics.jsonl"
            if metrics.exists() and any(line["step"] >= step for line in read_metrics(metrics)):
                act()
                break
            time.sleep(0.01)
        said = [process.communicate(timeout=60)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [process.returncode for process in processes], said


def test_two_processes_then_two_on_another_mesh_then_one(alone, config, tmp_path):
    """Fully sharded over both processes until one hears SIGTERM; then half so until one is killed; then one process."""
    both = started(config, tmp_path, "--config.mesh.data=1", "--config.mesh.fsdp=4")
    statuses, said = ended(both, tmp_path, 13, both[1].terminate)
    assert statuses == [143, 143], said
    step = open_store(tmp_path).steps()[-1]
    assert f"stopped by SIGTERM at step {step}; saved" in said[0] and "stopped" not in said[1]
    assert 13 <= step < 22

    both = started(config, tmp_path, "--config.mesh.data=2", "--config.mesh.fsdp=2")
    statuses, said = ended(both, tmp_path, 25, both[1].kill)
    assert statuses == [134, -signal.SIGKILL], said
    assert f"going on from step {step} of 44" in said[0] and "step 22: f is 0, the branch is removed" in said[0]
    assert f"plq: process 1 on {socket.gethostname()} gave no sign of life for 4 s and is lost; the same" in said[0]

    main.main(["--config", str(config), "--workdir", str(tmp_path)])
    assert json.loads((tmp_path / "config.json").read_text())["mesh"] == {"data": 1, "fsdp": 4}
    assert_same_run(tmp_path, alone)


def test_one_process_at_an_address_then_two(alone, config, tmp_path, monkeypatch):
    """Stopped by SIGTERM, it goes on fully sharded over two processes, each with a copy of its own."""
    advance = Run._advance

    def advance_and_signal(run, batch):
        advance(run, batch)
        if run.step == 13:
            os.kill(os.getpid(), signal.SIGTERM)

    with stores.s3() as store:
        address = store.address("hosts")
        monkeypatch.setenv("PLQ_CACHE_DIR", str(tmp_path / "machine"))
        monkeypatch.setattr(Run, "_advance", advance_and_signal)
        with pytest.raises(SystemExit, match="143"):
            main.main(["--config", str(config), "--workdir", address, "--config.mesh.data=1"])
        monkeypatch.setenv("PLQ_CACHE_DIR", str(tmp_path / "machines"))
        both = started(config, address, "--config.mesh.data=1", "--config.mesh.fsdp=4")
        statuses, said = ended(both, place(address).copy("run-0"), 99, lambda: None)
        assert statuses == [0, 0] and "going on from step 13 of 44" in said[0] and "step" not in said[1], said
        with staged_input(address, PARTS) as copy:
            assert_same_run(copy, alone)
            weights, model = open_store(copy).restore_plain(44, ("weights",)), load_file(copy / "model" / VARIABLES)
        for name, leaf in flatten(weights["weights"]).items():
            np.testing.assert_array_equal(leaf, model[name])


def test_an_error_of_one_process_ends_the_other(config, tmp_path):
    both = started(config, tmp_path, second=["--config.train.seed=3"])
    statuses, said = ended(both, tmp_path, 44, lambda: None)
    assert statuses == [2, 2], said
    why = "--config: not that of process 0 (train.seed: process 0 has 0, now 3)"
    assert f"plq: process 1 on {socket.gethostname()} ended the run: {why}" in said[0] and f"plq: {why}" in said[1]


def test_alone_nothing_is_joined(monkeypatch):
    """--num_processes 1 is alone also where a launcher's variables say otherwise."""
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with session(ALONE, 60):
        assert not jax.distributed.is_initialized()
    refused = pytest.raises(UserError, match="started by Open MPI: the processes did not come together")
    with refused, session(None, 60):
        pass
