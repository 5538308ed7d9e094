"""Checkpoints: bit for bit, one line on a mismatch, and what damaged, half-written or killed saves leave."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from plq.checkpoint.match import leaf_shapes, require_same_leaves
from plq.checkpoint.store import Store
from plq.errors import UserError

OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))


def sharding(*axes):
    return NamedSharding(jax.make_mesh((2,), ("data",)), PartitionSpec(*axes))


def make_state(fill=1.0):
    """Weights over both devices, the rest on both; with bfloat16, scalars and empty dicts."""
    kernel = fill + jnp.arange(4096.0).reshape(64, 64)
    params = {"conv": {"kernel": kernel, "bias": jnp.full(4, fill, jnp.bfloat16)}}
    weights = {"params": params, "ancillary": {}}
    state = {"weights": weights, "statistics": {}, "moments": OPTIMIZER.init(weights), "step": jnp.int32(7)}
    state = jax.device_put(state, sharding())
    params = state["weights"]["params"]
    params["conv"]["kernel"] = jax.device_put(params["conv"]["kernel"], sharding("data"))
    return state


def abstract(state):
    like = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    return jax.tree.map(like, state)


def require_identical(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert (left.dtype, left.shape) == (right.dtype, right.shape)
        assert np.asarray(left).tobytes() == np.asarray(right).tobytes()


def filled(directory, steps=(1, 2), **config):
    store = Store(directory, **config)
    for step in steps:
        store.save(step, make_state(float(step)), {"step": step})
    store.wait()
    return store


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved") / "checkpoints"
    filled(directory).close()
    return directory


@pytest.fixture
def copied(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "checkpoints"))


def usable(store):
    """`newest_usable` and its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = store.newest_usable(lambda record: abstract(make_state()))
    return found, [str(warning.message) for warning in caught]


def data_file(step_folder):
    """The file that holds the arrays."""
    return max(step_folder.rglob("d/*"), key=lambda path: path.stat().st_size)


def test_round_trip_over_two_devices(saved):
    store, wanted = Store(saved), make_state(2.0)
    restored = store.restore(2, abstract(wanted))
    require_identical(restored, wanted)
    for left, right in zip(jax.tree.leaves(restored), jax.tree.leaves(wanted), strict=True):
        assert left.sharding == right.sharding
    assert type(restored["moments"][1][0]) is type(wanted["moments"][1][0])
    assert store.record(2) == {"step": 2}
    assert store.leaves(2) == leaf_shapes(wanted)


def test_what_was_sharded_restores_on_one_device(saved):
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one), make_state())
    require_identical(Store(saved).restore(2, like), make_state(2.0))


def test_restore_plain_reads_only_the_wanted_keys(saved):
    plain = Store(saved).restore_plain(2, ("weights", "statistics"))
    assert set(plain) == {"weights", "statistics"}
    assert plain["statistics"] == {}
    wanted = make_state(2.0)["weights"]["params"]["conv"]
    for name, leaf in plain["weights"]["params"]["conv"].items():
        assert isinstance(leaf, np.ndarray)
        assert leaf.tobytes() == np.asarray(wanted[name]).tobytes()


def test_mismatch_is_one_line_from_both_sides(saved):
    like = abstract(make_state())
    conv = like["weights"]["params"]["conv"]
    conv["scale"] = conv.pop("bias")
    conv["kernel"] = jax.ShapeDtypeStruct((64, 32), jnp.float32, sharding=sharding())
    with pytest.raises(UserError) as caught:
        Store(saved).restore(2, like)
    message = str(caught.value)
    assert "\n" not in message
    assert "only in the file: weights/params/conv/bias" in message
    assert "only in the model: weights/params/conv/scale" in message
    assert "weights/params/conv/kernel float32[64, 64] in the file, float32[64, 32] in the model" in message


def test_mismatch_message_is_short():
    found = {f"layer{index}/kernel": ((1,), "float32") for index in range(10)}
    with pytest.raises(UserError, match=r"only in the file: layer0/kernel.*layer5/kernel and 4 more$"):
        require_same_leaves(found, {}, "here")


def test_mismatch_is_not_unreadable(copied):
    with pytest.raises(UserError, match="does not fit the model"):
        Store(copied).newest_usable(lambda record: {"weights": abstract(make_state())["weights"]})
    assert Store(copied).steps() == [1, 2]


def test_state_may_be_overwritten_after_save(tmp_path):
    step = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)
    store = Store(tmp_path / "checkpoints", keep_latest=5)
    tree = {"a": jnp.zeros((1000, 1000)), "b": jnp.zeros(3)}
    like = jax.eval_shape(lambda: tree)
    for number in range(4):
        store.save(number, tree, {})
        for _ in range(10):
            tree = step(tree)
    store.wait()
    for number in range(4):
        assert all((leaf == 10 * number).all() for leaf in jax.tree.leaves(store.restore(number, like)))
    store.close()


def test_latest_and_best_are_kept_across_a_restart(tmp_path):
    directory, state = tmp_path / "checkpoints", {"a": jnp.ones(2)}
    store = Store(directory, keep_latest=2, keep_best=1)
    for step, accuracy in enumerate([None, 0.9, 0.5, None]):
        store.save(step, state, {"step": step}, accuracy)
    store.close()
    assert (store.steps(), store.best_step()) == ([1, 2, 3], 1)
    store = Store(directory, keep_latest=2, keep_best=1)
    assert store.best_step() == 1
    store.save(4, state, {}, 0.9)
    store.save(5, state, {})
    store.save(5, state, {"again": True})
    store.wait()
    assert (store.steps(), store.best_step(), store.record(5)) == ([4, 5], 4, {})
    store.close()


def test_no_checkpoints(tmp_path):
    store = Store(tmp_path / "checkpoints")
    assert (store.steps(), store.best_step(), usable(store)) == ([], None, (None, []))


DAMAGE = {
    "truncated arrays": lambda folder: os.truncate(data_file(folder), data_file(folder).stat().st_size // 2),
    "deleted arrays": lambda folder: data_file(folder).unlink(),
    "flipped bytes in arrays": lambda folder: flip(data_file(folder)),
    "deleted tree": lambda folder: (folder / "state/_METADATA").unlink(),
    "truncated tree": lambda folder: os.truncate(folder / "state/_METADATA", 50),
    "deleted database": lambda folder: (folder / "state/manifest.ocdbt").unlink(),
    "flipped record": lambda folder: change(folder / "_CHECKPOINT_METADATA", b'step\\": 2', b'step\\": 3'),
    "empty record": lambda folder: os.truncate(folder / "_CHECKPOINT_METADATA", 0),
    "deleted record": lambda folder: (folder / "_CHECKPOINT_METADATA").unlink(),
    "deleted state": lambda folder: shutil.rmtree(folder / "state"),
}


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def change(path, old, new):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_checkpoint_is_skipped_and_its_step_can_be_saved_again(copied, damage, capfd):
    DAMAGE[damage](copied / "2")
    store = Store(copied)
    (step, state, record), messages = usable(store)
    assert (step, record) == (1, {"step": 1})
    require_identical(state, make_state(1.0))
    assert len(messages) == 2
    assert all(str(copied) in message and "\n" not in message for message in messages)
    store.save(2, make_state(3.0), {"step": 2})
    store.wait()
    require_identical(store.restore(2, abstract(make_state())), make_state(3.0))
    store.close()
    assert capfd.readouterr() == ("", "")


def test_damage_to_what_is_not_needed_does_no_harm(copied):
    os.truncate(copied / "2/state/_sharding", 0)
    (step, state, _), messages = usable(Store(copied))
    assert (step, messages) == (2, [])
    require_identical(state, make_state(2.0))


def test_restore_plain_notices_flipped_bytes(copied):
    flip(data_file(copied / "2"))
    with pytest.raises(UserError, match=r"checkpoints/2: cannot be read"):
        Store(copied).restore_plain(2, ("weights", "moments", "step"))


def test_none_readable_stays_an_error(copied):
    for step in ("1", "2"):
        flip(data_file(copied / step))
    for _ in range(2):
        with pytest.raises(UserError, match=r"checkpoints: none of the checkpoints \[1, 2\] can be read"):
            usable(Store(copied))


def test_leftovers_of_a_killed_save_are_removed_once(copied):
    leftover = copied / "3.orbax-checkpoint-tmp"
    shutil.copytree(copied / "2", leftover)
    store = Store(copied)
    assert store.steps() == [1, 2]
    found, messages = usable(store)
    assert found[0] == 2
    assert len(messages) == 1
    assert leftover.name in messages[0]
    assert not leftover.exists()
    assert usable(store)[1] == []


SAVES = """
import sys
from pathlib import Path
import jax.numpy as jnp
from plq.checkpoint.store import Store
store = Store(Path(sys.argv[1]))
step = (store.steps() or [0])[-1]
while True:
    step += 1
    state = {"a": jnp.full(200_000, step), "b": {str(index): jnp.ones(9) for index in range(9)}}
    store.save(step, state, {"step": step})
    print(step, flush=True)
"""
CLOSES = "try:\n    {}\nfinally:\n    store.close()"


def killed_while_saving(directory, delay):
    """The last step whose save was begun, of a process killed some time after its second."""
    command = [sys.executable, "-c", SAVES, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        seen = [process.stdout.readline() for _ in range(2)]
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        seen += [line for line in process.stdout if line.endswith("\n")]
    return int(seen[-1])


def test_killed_saves_leave_earlier_checkpoints_usable(tmp_path):
    like = {"a": jnp.zeros(200_000, jnp.int32), "b": {str(index): jnp.ones(9) for index in range(9)}}
    for delay in [random.uniform(0, 0.4) for _ in range(4)]:
        last = killed_while_saving(tmp_path / "checkpoints", delay)
        store = Store(tmp_path / "checkpoints")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            step, state, record = store.newest_usable(lambda record: like)
        assert last - 1 <= step <= last + 1
        assert record == {"step": step}
        assert (state["a"] == step).all()
        store.close()


@pytest.mark.parametrize("end", ["pass", "raise SystemExit(0)"])
def test_process_that_closes_ends_quietly_with_its_last_save(tmp_path, end):
    script = SAVES.replace("while True:", "for _ in range(2):") + CLOSES.format(end)
    command = [sys.executable, "-c", script, str(tmp_path / "checkpoints")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "1\n2\n", "")
    assert Store(tmp_path / "checkpoints").steps() == [1, 2]


FULL = """
import resource, sys
from pathlib import Path
import jax, jax.numpy as jnp
from plq.checkpoint.store import Store
from plq.cli.common import run
def main():
    store = Store(Path(sys.argv[1]))
    state = {"a": jax.random.normal(jax.random.key(0), (200_000,))}
    store.save(1, state, {})
    store.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    try:
        store.save(2, state, {})
        store.wait()
    finally:
        store.close()
run(main)
"""


def test_a_save_that_finds_no_room_is_one_line_and_the_one_before_stays(tmp_path):
    """By a limit on the size of files; a full disk raises in the same place."""
    directory = tmp_path / "checkpoints"
    ended = subprocess.run([sys.executable, "-c", FULL, str(directory)], capture_output=True, text=True, timeout=100)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert ended.stderr.startswith(f"plq: {directory}: cannot be written to (")
    assert "the newest complete checkpoint is step 1, from which the same command goes on" in ended.stderr
    step, state, _ = usable_like(Store(directory), {"a": jnp.zeros(200_000)})
    assert step == 1
    require_identical(state, {"a": jax.random.normal(jax.random.key(0), (200_000,))})


def usable_like(store, like):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return store.newest_usable(lambda record: like)


def test_a_clock_set_back_changes_neither_order_nor_retention(tmp_path, monkeypatch):
    store, clock, clock_ns = Store(tmp_path / "checkpoints", keep_latest=2), time.time, time.time_ns
    for step in (1, 2, 3):
        monkeypatch.setattr(time, "time", lambda step=step: clock() - 86_400 * step)
        monkeypatch.setattr(time, "time_ns", lambda step=step: clock_ns() - 86_400 * step * 10**9)
        store.save(step, {"a": jnp.full(3, step)}, {"step": step})
        store.wait()
    store.close()
    store = Store(tmp_path / "checkpoints", keep_latest=2)
    assert store.steps() == [2, 3]
    assert usable_like(store, {"a": jnp.zeros(3, jnp.int32)})[0] == 3
    store.close()


def test_what_another_process_cannot_read_is_skipped_here_too(copied, monkeypatch):
    """The other one's answers are made up: it reads the record of step 2 and not its arrays."""
    answers = iter([True, True, False])  # step 2: record, leaves, arrays
    both = lambda mine: np.array([mine, next(answers, True)])
    store = Store(copied)
    monkeypatch.setattr("plq.checkpoint.store.process_allgather", both)
    (step, state, _), messages = usable(store)
    assert step == 1 and "checkpoints/2: cannot be read by another process" in messages[0]
    require_identical(state, make_state(1.0))
