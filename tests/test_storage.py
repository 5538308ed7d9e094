"""Runs and models in object stores: as on a disk, whatever is stopped, broken or in the way."""

import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stores
from runs import tiny, to_the_end

import plq
from plq.checkpoint.mirrored import MirroredStore
from plq.checkpoint.model_file import VARIABLES
from plq.checkpoint.warm_start import read_start
from plq.cli import evaluate, freeze, prune
from plq.errors import UserError
from plq.exporters.source import open_source
from plq.runtime import stripped_model
from plq.storage import address, bucket, lease
from plq.storage.address import Address, named, place
from plq.storage.bucket import Bucket
from plq.storage.lease import Lease
from plq.storage.mirror import mirrored
from plq.trainer.trainer import Interrupted, Run
from plq.trainer.workdir import claimed


@pytest.fixture(scope="module", params=["s3", "gs"])
def store(request):
    with getattr(stores, request.param)() as found:
        yield found


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    with stores.s3() as found:
        yield found


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PLQ_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(bucket, "time", SimpleNamespace(sleep=lambda seconds: None))
    return tmp_path / "cache"


# -- a whole run --


@pytest.fixture(scope="module")
def setup():
    return tiny(checkpoint__every_steps=11, report__every_steps=3, data__pad=2)


def run(where, setup, stop_at=None):
    """A run as the program has it, or one that gets SIGTERM during step ``stop_at``."""
    with claimed(where, setup.config) as (folder, make_store):
        to_the_end(Run(setup, folder, make_store), stop_at)


@pytest.fixture(scope="module")
def local(tmp_path_factory, setup):
    folder = tmp_path_factory.mktemp("local") / "run"
    run(folder, setup)
    return folder


@pytest.fixture(scope="module")
def done(store, setup, tmp_path_factory):
    """A run stopped twice, each time going on at another machine; of the store's answers some are errors."""
    store.fails_every = 7
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bucket, "time", SimpleNamespace(sleep=lambda seconds: None))
        for stop in (7, 25, None):
            patch.setenv("PLQ_CACHE_DIR", str(tmp_path_factory.mktemp("machine")))
            try:
                run(place(store.address("runs/a")), setup, stop)
            except Interrupted:
                assert stop
            else:
                assert stop is None
    assert store.scheme == "gs" or store.failed > 10
    store.fails_every = 0
    return store.address("runs/a")


def objects(where):
    """Names below an address."""
    scheme = where.split(":")[0]
    root = where.partition("://")[2]
    return {path.removeprefix(f"{root}/") for path in stores.files(scheme).find(root)}


def test_a_run_at_an_address_ends_as_one_on_a_disk(done, local):
    files = stores.files(done.split(":")[0])
    for name in ("config.json", "metrics.jsonl", f"model/{VARIABLES}", "model/model.json"):
        assert files.cat_file(f"{done}/{name}") == (local / name).read_bytes(), name
    steps = {name.split("/")[1] for name in objects(done) if name.startswith("checkpoints/")}
    records = map(json.loads, (local / "metrics.jsonl").read_text().splitlines())
    accuracies = {str(record["step"]): record["accuracy"] for record in records if record["kind"] == "test"}
    best = max(reversed(accuracies), key=accuracies.__getitem__)
    assert steps == {path.name for path in (local / "checkpoints").iterdir()} == {"33", "44", best}
    assert ".lock" not in objects(done) and "timing.jsonl" in objects(done)


def test_programs_read_and_write_addresses(done, local, cache, capsys):
    evaluate.main(["--workdir", done, "--step", "33"])
    evaluate.main(["--model", f"{done}/model"])
    evaluate.main(["--workdir", str(local), "--step", "33"])
    evaluate.main(["--model", str(local / "model")])
    said = capsys.readouterr().out.splitlines()
    assert [line.replace(done, str(local)) for line in said[:2]] == said[2:]

    other = done.replace("runs/a", "models")
    prune.main(["--workdir", done, "--step", "33", "--out", f"{other}/m"])
    assert f"model in {other}/m" in capsys.readouterr().out
    prune.main(["--workdir", str(local), "--step", "33", "--out", str(cache / "m")])
    stripped, same = stripped_model.load(f"{other}/m"), stripped_model.load(cache / "m")
    jax.tree.map(np.testing.assert_array_equal, stripped.variables, same.variables)

    for _ in range(2):  # what is there may be replaced
        freeze.main(["--model", f"{other}/m", "--out", f"{other}/m.plq"])
    assert f"wrote {other}/m.plq and {other}/m.md" in capsys.readouterr().out
    assert {"m.plq", "m.md"} < objects(other)
    images = np.zeros((1, *stripped.image_shape), np.uint8)
    np.testing.assert_array_equal(plq.load(f"{other}/m.plq")(images), open_source(place(f"{other}/m")).frozen(images))
    with pytest.raises(UserError, match=f"{other}/m: is there and is not a frozen model|allowed a name that ends"):
        freeze.main(["--model", f"{other}/m", "--out", f"{other}/m"])
    with pytest.raises(UserError, match=f"{done}: is --workdir itself"):
        prune.main(["--workdir", done, "--out", done])
    with pytest.raises(UserError, match=f"{done}: is a training folder; its stripped model is {done}/model"):
        stripped_model.load(done)
    with pytest.raises(UserError, match=f"{other}/none: does not exist"):
        stripped_model.load(f"{other}/none")
    assert not list((cache / "addresses").iterdir())


def test_a_run_starts_from_a_model_at_an_address(done, setup):
    source, variables = read_start(done, setup.task.architecture, {})
    assert source.startswith(f"{done} (W1/A2 svhn") and "params" in variables


# -- checkpoints --


def make(where, cache, steps=(), keep=3):
    """A store at an address, with these steps saved, and what its newest usable checkpoint is."""
    with mirrored(place(where), place(where).copy("run-0")) as mirror:
        folder = place(where).copy("run-0")
        (folder / "config.json").write_text("{}")
        checkpoints = MirroredStore(folder / "checkpoints", keep, 1, mirror)
        found = checkpoints.newest_usable(lambda record: {"a": jnp.zeros(1000)})
        for step in steps:
            checkpoints.save(step, {"a": jnp.full(1000, step, jnp.float32)}, {"step": step})
        checkpoints.wait()
        checkpoints.close()
    return found


@pytest.fixture
def saved(store, request, cache):
    where = store.address(f"saved/{request.node.originalname}")
    folder = place(where).copy("run-0")
    folder.mkdir(parents=True)
    assert make(where, cache, (1, 2, 3)) is None
    return where


def test_a_checkpoint_counts_once_its_last_object_is_there(saved, cache):
    stores.files(saved[:2]).rm_file(f"{saved}/checkpoints/3/commit_success.txt")
    with pytest.warns(UserWarning, match="removed half-written checkpoints 3"):
        step, state, record = make(saved, cache)
    assert (step, record["step"], float(state["a"][0])) == (2, 2, 2.0)
    assert not [name for name in objects(saved) if name.startswith("checkpoints/3/")]


def test_a_damaged_checkpoint_is_set_aside_at_the_address(saved, cache):
    files = stores.files(saved[:2])
    (name,) = (name for name in objects(saved) if name.startswith("checkpoints/3/state/d/"))
    data = bytearray(files.cat_file(f"{saved}/{name}"))
    data[len(data) // 2] ^= 1
    Bucket(place(saved)).write(name, bytes(data))
    with pytest.warns(UserWarning, match=r"moved to .*checkpoints.unreadable: unreadable checkpoints \[3\]"):
        assert make(saved, cache, (3,))[0] == 2
    assert bytes(data) == files.cat_file(f"{saved}/checkpoints.unreadable/{name.removeprefix('checkpoints/')}")
    assert make(saved, cache)[0] == 3


def test_old_checkpoints_leave_the_address(saved, cache):
    make(saved, cache, (4, 5), keep=2)
    assert {name.split("/")[1] for name in objects(saved) if name.startswith("checkpoints/")} == {"4", "5"}


# -- one run at a time --


def held(where, **seconds):
    return Lease(Bucket(place(where)), **{"beat": 0.05, "stale": 5.0, "settle": 0.02, **seconds})


def test_a_second_run_is_refused_while_the_first_lives(store, monkeypatch):
    where = store.address("leased")
    first = held(where)
    first.take()
    try:
        monkeypatch.setattr(lease.time, "time", lambda: 0.0)  # clocks do not count
        who = f"process {os.getpid()} on"
        refused = pytest.raises(UserError, match=f"--workdir {where}: another run is using it .{who}")
        with pytest.warns(UserWarning, match="locked by process"), refused:
            held(where).take()
        first.check()
    finally:
        first.release()
    assert objects(where) == set()
    second = held(where)
    second.take()
    second.release()


def test_a_run_without_signs_of_life_is_taken_over_and_notices(store):
    where = store.address("left")
    first = held(where, beat=1000.0)
    first.take()
    second = held(where, stale=0.3)
    with pytest.warns(UserWarning, match="waiting 0.3 s for a sign of it"):
        second.take()
    with pytest.raises(UserError, match="another run is using it .*this one stops"):
        first.check()
    first.release()
    second.check()
    second.release()
    with pytest.raises(UserError, match="this one stops"):
        first.check()  # also when the other one has ended


def test_of_two_that_find_no_lock_one_goes_on(store, monkeypatch):
    """Also where the store cannot tell that an object is there: the last to write stays."""
    where = store.address("raced")
    first, second = held(where), held(where)
    monkeypatch.setattr(Bucket, "create", lambda self, name, data: self.write(name, data) or True)
    first.bucket.read = lambda name, read=first.bucket.read, seen=[]: read(name) if seen else seen.append(1)
    first.bucket.create(lease.NAME, first._sign())
    second.bucket.read = lambda name, read=second.bucket.read, seen=[]: read(name) if seen else seen.append(1)
    second.take()
    with pytest.raises(UserError, match="another run is using it"):
        first.check()
    second.release()


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n", b""])
def test_each_byte_arrives(store, tmp_path, end):
    bucket, data = Bucket(place(store.address("bytes"))), bytes(range(256)) + end
    (tmp_path / "sent").write_bytes(data)
    bucket.write("written", data)
    bucket.send(tmp_path / "sent", "sent")
    assert bucket.read("written") == bucket.read("sent") == data


def test_a_store_that_has_other_bytes_is_noticed(monkeypatch):
    with stores.gs() as store:
        from gcp_storage_emulator.handlers import objects

        sums = objects._checksums
        monkeypatch.setattr(objects, "_checksums", lambda data, about: sums(data[1:], about))
        with pytest.raises(UserError, match="gs://bucket/bytes: cannot be written to .*checksum"):
            Bucket(place(store.address("bytes")), waits=()).write("x", b"1")


# -- mistakes --


@pytest.mark.parametrize(("text", "message"), [
    ("ftp://host/run", "ftp://host/run: allowed gs://BUCKET/NAME, s3://BUCKET/NAME, or a path"),
    ("s3://bucket", "s3://bucket: allowed s3://BUCKET/NAME"),
    ("s3://", "allowed s3://BUCKET/NAME"),
    ("gs://bucket//run", "allowed gs://BUCKET/NAME"),
    ("gs://bucket/../run", "allowed gs://BUCKET/NAME"),
    ("s3://bucket/run*", "allowed s3://BUCKET/NAME"),
])  # fmt: skip
def test_an_address_that_cannot_be(text, message):
    with pytest.raises(UserError, match=message.replace("*", r"\*")):
        place(text)
    with pytest.raises(UserError, match=message.replace("*", r"\*")):
        evaluate.main(["--model", text])


def test_paths_and_addresses_are_told_apart(cache):
    assert place("runs/a:b") == Path("runs/a:b")
    assert place("s3://bucket/a/b/") == Address("s3", "bucket", "a/b")
    where = place("s3://bucket/a/b")
    assert named(f"{where.copy('run-0')}/model: gone") == "s3://bucket/a/b/model: gone"


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(address.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"gs://b/a: needs gcsfs, not installed: pip install 'plq\[remote\]'"):
        place("gs://b/a")


def test_no_such_bucket_is_one_line(store, setup):
    where = store.address("run").replace("bucket", "nowhere")
    missing = pytest.raises(UserError, match=f"{where}: no bucket nowhere is to be seen")
    with missing, claimed(place(where), setup.config):
        pass


def test_other_things_are_left_alone(store, setup):
    where = store.address("photos")
    stores.files(store.scheme).pipe_file(f"{where}/cat.png", b"cat")
    with pytest.raises(UserError, match="holds other things and no run"), claimed(place(where), setup.config):
        pass
    assert objects(where) == {"cat.png"}


def test_another_config_is_refused(done, setup):
    other = dataclasses.replace(setup.config, train=dataclasses.replace(setup.config.train, seed=3))
    refused = pytest.raises(UserError, match="holds a run with another config .train.seed: saved 0, now 3")
    with refused as caught, claimed(place(done), other):
        pass
    assert named(str(caught.value)).startswith(f"--workdir {done}:")
    assert ".lock" not in objects(done)


def test_missing_credentials_are_named(s3, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(UserError, match="Unable to locate credentials; AWS_PROFILE, or AWS_ACCESS_KEY_ID and"):
        Bucket(place(s3.address("x"))).sizes()


def test_calls_are_tried_again_for_a_while(s3, monkeypatch):
    waited = []
    monkeypatch.setattr(bucket, "time", SimpleNamespace(sleep=waited.append))
    objects = Bucket(place(s3.address("tries")))
    s3.fails_every = 1
    try:
        with pytest.raises(UserError, match=r"s3://bucket/tries: cannot be written to \(.*, after 6 tries\)") as caught:
            objects.write("x", b"1")
    finally:
        s3.fails_every = 0
    assert waited == list(bucket.WAITS) and "\n" not in str(caught.value)
    objects.write("x", b"2")
    assert objects.read("x") == b"2" and objects.read("y") is None
