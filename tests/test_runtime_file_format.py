"""``model.plq``: packed to the bit, whole or refused in one line, and no larger in memory than it says."""

import dataclasses
import hashlib
import json
import os
import random
import re
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy
from frozen import CLASSES, resealed, small, written
from hypothesis import given, settings
from hypothesis import strategies as st

from plq.errors import UserError
from plq.layers.factory import QuantConfig
from plq.models.registry import Architecture
from plq.runtime import container, file_format
from plq.runtime.file_format import Frozen, decode, encode, read, write
from plq.runtime.graph import Graph
from plq.runtime.pack import pack, packed_size, unpack
from plq.runtime.sizes import layers, quantized_ratio

BITS = range(1, 9)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 8), st.lists(st.integers(1, 7), min_size=1, max_size=4), st.integers(0, 2**31))
def test_packing_loses_nothing(bits, shape, seed):
    codes = np.random.default_rng(seed).integers(0, 2**bits, shape).astype(np.uint8)
    packed = pack(codes, bits)
    assert packed.dtype == np.uint8 and packed.shape == (packed_size(codes.size, bits),)
    np.testing.assert_array_equal(unpack(packed, bits, tuple(shape)), codes)
    np.testing.assert_array_equal(pack(np.asfortranarray(codes), bits), packed)


def test_the_bits_lie_where_the_format_says():
    assert pack(np.array([1, 0, 1, 1], np.uint8), 1).tolist() == [0b1101]
    assert pack(np.array([3, 5], np.uint8), 4).tolist() == [0x53]
    assert pack(np.array([1, 2, 4, 7, 0, 1, 2, 3], np.uint8), 3).tolist() == [0b00010001, 0b10001111, 0b01101000]
    for bits in BITS:  # code by code, as the docstring has it
        codes = np.random.default_rng(bits).integers(0, 2**bits, 21).astype(np.uint8)
        stream = sum(int(code) << (index * bits) for index, code in enumerate(codes))
        assert pack(codes, bits).tobytes() == stream.to_bytes(packed_size(21, bits), "little")


def test_what_cannot_be_packed_or_unpacked():
    with pytest.raises(ValueError, match="found the code 4, allowed 2 bits"):
        pack(np.array([4], np.uint8), 2)
    with pytest.raises(ValueError, match="found 2 bytes, allowed 1"):
        unpack(np.zeros(2, np.uint8), 1, (8,))
    with pytest.raises(ValueError, match="bits that are set behind the last code"):
        unpack(np.array([0b1000], np.uint8), 1, (3,))


def same(a: Frozen, b: Frozen) -> None:
    assert (a.class_names, a.fit, a.training, a.graph.nodes) == (b.class_names, b.fit, b.training, b.graph.nodes)
    assert sorted(a.graph.tensors) == sorted(b.graph.tensors)
    for name, tensor in a.graph.tensors.items():
        assert tensor.dtype == b.graph.tensors[name].dtype
        np.testing.assert_array_equal(tensor, b.graph.tensors[name])


def test_a_file_gives_back_what_was_written(tmp_path):
    frozen, path = small(), tmp_path / "new" / "model.plq"
    write(path, encode(frozen))
    same(read(path), frozen)
    assert encode(read(path)) == path.read_bytes()
    assert [entry.name for entry in path.parent.iterdir()] == ["model.plq"]


def test_any_reader_of_safetensors_opens_it():
    frozen = small()
    tensors = safetensors.numpy.load(encode(frozen))
    assert set(tensors) == set(frozen.graph.tensors)
    np.testing.assert_array_equal(tensors["conv1/norm/scale"], frozen.graph.tensors["conv1/norm/scale"])
    codes = frozen.graph.tensors["conv2/conv/kernel"]
    np.testing.assert_array_equal(unpack(tensors["conv2/conv/kernel"], 2, codes.shape), codes)


def test_writing_replaces_a_frozen_model_and_nothing_else(tmp_path):
    path, other = tmp_path / "model.plq", tmp_path / "photo.plq"
    write(path, encode(small()))
    write(path, encode(dataclasses.replace(small(), training={"step": 8})))
    assert read(path).training == {"step": 8}
    other.write_text("cat")
    with pytest.raises(UserError, match="is there and is not a frozen model; it is left alone"):
        write(other, encode(small()))
    assert other.read_text() == "cat"
    with pytest.raises(UserError, match="cannot be written"):
        write(path / "below.plq", encode(small()))


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.plq"
    write(path, encode(small()))
    monkeypatch.setattr(file_format.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "no space left")))
    with pytest.raises(UserError, match="cannot be written to .no space left"):
        write(path, encode(dataclasses.replace(small(), training={})))
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.plq"] and read(path).training == {"step": 7}


@pytest.mark.parametrize(("bits", "least"), [(1, 28), (2, 14.5), (4, 7.5)])
@pytest.mark.parametrize(("name", "width", "size"), [("resnet20", 1.0, 32), ("svhn", 0.25, 40)])
def test_quantized_layers_take_as_little_as_they_should(name, width, size, bits, least):
    graph = written(Architecture(name, 10, QuantConfig("dorefa", bits, "clip", 2), width), (size, size, 3))
    data, rows = encode(Frozen(graph, CLASSES, "square", {})), layers(graph)
    assert quantized_ratio(rows) > least
    stored = safetensors.numpy.load(data)
    packed = sum(stored[f"{row.name}/conv/kernel"].nbytes for row in rows if row.weight_bits == bits)
    assert 4 * sum(row.weights for row in rows if row.weight_bits == bits) > least * packed


# What is not a whole file. Every byte counts: a change of any is noticed.


def mutants(data: bytes, count: int):
    """Files that were cut, lengthened, or have other bytes, at random but always the same places."""
    generator = random.Random(0)
    header = int.from_bytes(data[:8], "little")
    for index in range(count):
        place = generator.randrange(8 + header) if index % 2 else generator.randrange(len(data))
        changed = bytearray(data)
        kind = ("bit", "byte", "cut", "insert", "delete")[index % 5]
        if kind == "bit":
            changed[place] ^= 1 << generator.randrange(8)
        elif kind == "byte":
            changed[place] = (changed[place] + generator.randrange(1, 256)) % 256
        elif kind == "cut":
            del changed[place:]
        elif kind == "insert":
            changed.insert(place, generator.randrange(256))
        else:
            del changed[place]
        yield bytes(changed)
    for length in (
        0,
        1,
        7,
        2**20,
        2**22 + 1,
        2**31,
        2**63,
        2**64 - 1,
        len(data),
        len(data) - 8,
        header - 8,
        header + 8,
    ):
        yield length.to_bytes(8, "little") + data[8:]
    yield from (data[:7], b"", data + b"\0", data[:8] + b"\0" * (len(data) - 8), b"\x89PNG\r\n\x1a\n" + data)


def refused(data: bytes, path) -> str:
    """The one line with which a file is refused, and no more memory taken than a few times its size."""
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as caught:
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and len(message) < 400
    assert peak < 2**20 + 20 * len(data), f"{peak:,} bytes for a file of {len(data):,}"
    return message


def test_damaged_files_are_refused(tmp_path):
    data, count = encode(small()), 0
    for mutant in mutants(data, 200):
        if mutant != data:
            refused(mutant, tmp_path / "model.plq")
            count += 1
    assert count >= 210


def test_what_is_no_file_at_all(tmp_path):
    for path, message in ((tmp_path / "gone", "does not exist"), (tmp_path, "is not a file")):
        with pytest.raises(UserError, match=message):
            read(path)


def test_the_size_that_a_file_declares_is_checked_against_its_own(tmp_path):
    """A sparse file of 9 GiB, and tensors that would be larger than the file."""
    path = tmp_path / "model.plq"
    path.write_bytes(encode(small()))
    os.truncate(path, 9 * 2**30)
    with pytest.raises(UserError, match="found 9,663,676,416 bytes, allowed 8,589,934,592"):
        read(path)
    huge = {"__metadata__": {}, "t": {"data_offsets": [0, 2**42], "dtype": "F32", "shape": [2**20, 2**20]}}
    text = json.dumps(huge, separators=(",", ":"), sort_keys=True).encode()
    text += b" " * (-len(text) % 8)
    message = refused(len(text).to_bytes(8, "little") + text, path)
    assert "0 bytes of data, allowed 4,398,046,511,104" in message


def retabled(data: bytes, change) -> bytes:
    """The file with another table of tensors, under a right checksum: ``change(table)``, in place."""
    length = int.from_bytes(data[:8], "little")
    table, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    metadata = table.pop("__metadata__")
    del metadata["sha256"]
    change(table)

    def text() -> bytes:
        header = json.dumps({"__metadata__": metadata, **table}, sort_keys=True, separators=(",", ":")).encode()
        return header + b" " * (-len(header) % 8)

    metadata["sha256"] = hashlib.sha256(text() + rest).hexdigest()
    return len(text()).to_bytes(8, "little") + text() + rest


def entry(**fields):
    return lambda table: table["conv1/conv/scale"].update(fields)


TABLES = {
    "nothing": (lambda table: table.clear(), "damaged or cut off: "),
    "one lost": (lambda table: table.pop("conv1/conv/scale") and None, "damaged: its header"),
    "renamed": (lambda table: table.update({"../../x": table.pop("conv1/conv/scale")}), "damaged: its header"),
    "not an object": (lambda table: table.update({"conv1/conv/scale": 3}), "found dtype None, allowed F32, U8"),
    "doubles": (entry(dtype="F64"), "found dtype 'F64', allowed F32, U8"),
    "bytes": (entry(dtype="U8"), "damaged: its header"),
    "negative": (entry(shape=[-1, 1, 1, -1]), "is not a list of at most 8 lengths above 0"),
    "none": (entry(shape=[0]), "is not a list of at most 8 lengths above 0"),
    "true": (entry(shape=[True]), "is not a list of at most 8 lengths above 0"),
    "deep": (entry(shape=[1] * 9), "is not a list of at most 8 lengths above 0"),
    "absurd": (entry(shape=[2**62]), "is not a list of at most 8 lengths above 0"),
    "huge": (entry(shape=[2**30] * 8), "damaged: its header"),
    "one more": (entry(shape=[1, 1, 1, 2]), "damaged: its header"),
    "from elsewhere": (entry(data_offsets=[0, 4]), "damaged: its header"),
    "from before": (entry(data_offsets=[-8, -4]), "damaged: its header"),
    "from behind": (entry(data_offsets=[2**40, 2**40 + 4]), "damaged: its header"),
    "more": (entry(path="/etc/passwd"), "damaged: its header"),
}


@pytest.mark.parametrize("table", TABLES)
def test_a_table_with_a_right_checksum_is_checked_all_the_same(table, tmp_path):
    change, message = TABLES[table]
    assert message in refused(retabled(encode(small()), change), tmp_path / "model.plq")


def test_the_table_as_it_was_is_taken():
    assert decode(retabled(encode(small()), lambda table: None)).training == {"step": 7}


def put(*path_and_value):
    """A change of the description: put("graph", "nodes", 1, "strides", [0, 0])."""
    *path, name, value = path_and_value

    def change(model, tensors):
        for part in path:
            model = model[part]
        model[name] = value

    return change


def node(which: str, **fields):
    def change(model, tensors):
        next(entry for entry in model["graph"]["nodes"] if entry["name"] == which).update(fields)

    return change


def tensor(name: str, value):
    return lambda model, tensors: tensors.update({name: value})


FORGED = {
    "huge image": (put("graph", "image_shape", [2**40, 40, 1]), "image_shape: found height"),
    "no image": (put("graph", "image_shape", [40, 40]), "image_shape: allowed three integers"),
    "not a list": (put("graph", "nodes", {}), "nodes: allowed a list"),
    "a string": (put("graph", "nodes", ["conv"]), "node 0: op"),
    "too many": (put("graph", "nodes", [{}] * 20_000), "allowed a list of at most 10,000"),
    "op": (node("conv1/conv", op="exec"), "op 'exec' is unknown"),
    "field": (node("conv1/conv", path="/etc/passwd"), "'path' is unknown; "),
    "lacks": (put("graph", "nodes", 1, {"op": "conv", "name": "x"}), "node 1 .conv.: lacks inputs"),
    "type": (node("conv1/conv", strides=[1.5, 1]), "strides: found float 1.5, allowed int"),
    "bool": (node("conv1/conv", groups=True), "groups: found bool True, allowed int"),
    "length": (node("conv1/conv", strides=[1, 1, 1]), "strides: found 3 values, allowed 2"),
    "infinite": (node("conv1/act", scale=1e999), "scale: found float inf, allowed float"),
    "long": (node("conv1/act", scale=10**400), "scale: found int"),
    "name": (node("conv1/act", name="../../etc/passwd"), "'../../etc/passwd': allowed letters"),
    "long name": (node("conv1/act", name="a" * 10_000), "allowed letters"),
    "grid": (node("conv1/conv", grid={"bits": 99}), "found 99 bits|codes of 1 to 8"),
    "no bits": (node("conv1/conv", grid={"bits": 0}), "found 0 bits|codes of 1 to 8"),
    "grid type": (node("conv1/conv", grid=[2]), "grid: found list, allowed an object"),
    "features": (node("conv1/conv", features=2**40), "features"),
    "padding": (node("conv1/conv", padding=[[2**20, 0], [0, 0]]), "padding"),
    "kernel": (node("conv1/conv", kernel_size=[60_000, 60_000]), "found a kernel of shape"),
    "codes lost": (put("codes", {}), "codes: the shapes given"),
    "codes huge": (put("codes", "conv1/conv/kernel", [2**31, 2**31]), "packed codes: found"),
    "codes none": (put("codes", "conv1/conv/kernel", [0]), "lengths above 0"),
    "codes deep": (put("codes", "conv1/conv/kernel", [1] * 99), "lengths above 0"),
    "no tensor": (lambda model, tensors: tensors.pop("conv1/conv/scale") and None, "'conv1/conv/scale': missing"),
    "tensor more": (tensor("../../x", np.ones(1, np.float32)), "tensor '../../x': belongs to no node"),
    "tensor text": (tensor("a\nb", np.ones(1, np.float32)), r"tensor 'a\\nb': belongs to no node"),
    "tensor cut": (tensor("conv1/conv/kernel", np.zeros(1, np.uint8)), "packed codes: found 1 bytes"),
    "tensor float": (tensor("conv1/conv/kernel", np.zeros(9, np.float32)), "allowed packed codes"),
    "tensor nan": (tensor("conv1/conv/scale", np.full((1,) * 4, np.nan, np.float32)), "not finite"),
    "classes": (put("class_names", ["a"]), "class_names: found 1, allowed 10"),
    "class type": (put("class_names", [[]] * 10), "allowed printable text"),
    "class text": (put("class_names", ["\x1b[2J"] * 10), "allowed printable text"),
    "fit": (put("fit", "stretch"), "fit: found 'stretch', allowed square or center"),
    "training": (put("training", 3), "training: found int, allowed dict"),
    "more": (put("code", "import os"), "allowed exactly graph, codes"),
}


@pytest.mark.parametrize("forged", FORGED)
def test_a_file_with_a_right_checksum_is_checked_all_the_same(forged, tmp_path):
    change, message = FORGED[forged]
    found = refused(resealed(small(), change), tmp_path / "model.plq")
    assert re.search(message, found), found


def test_other_formats_and_versions(tmp_path):
    tensors = {"a": np.ones(3, np.float32)}
    for metadata, message in (
        ({}, "found format None"),
        ({"format": "pt"}, "found format 'pt'"),
        ({"format": "plq", "version": "2"}, "found version '2', this plq reads '1'"),
        ({"format": "plq", "version": "1"}, "is not JSON"),
        ({"format": "plq", "version": "1", "model": "[" * 100_000}, "is not JSON"),
        ({"format": "plq", "version": "1", "model": "[]"}, "allowed exactly"),
    ):
        assert message in refused(container.dump(tensors, metadata), tmp_path / "model.plq")
    assert "not a frozen model" in refused(safetensors.numpy.save(tensors), tmp_path / "model.plq")


def test_a_network_that_is_not_right_is_not_written():
    graph = dataclasses.replace(small().graph, nodes=small().graph.nodes[:-1])
    with pytest.raises(UserError, match="belongs to no node"):
        encode(dataclasses.replace(small(), graph=graph))
    with pytest.raises(UserError, match="class_names: found 2, allowed 10"):
        encode(dataclasses.replace(small(), class_names=("a", "b")))


NASTY = [None, True, -1, 0, 1, 2, 3, 7, 2**16, 2**31, 2**63, 0.5, 1e-40, 1e300, "", "a/b", "image", [], [1], [1, 1], {}]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.randoms(use_true_random=False))
def test_whatever_is_read_can_be_run(generator):
    """Any value of the description replaced by another one: refused in one line, or still a network."""
    from plq.runtime.frozen import from_frozen

    def change(model, tensors):
        place = model["graph"]
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = generator.choice(keys)
            if not isinstance(place[key], (dict, list)) or not place[key] or generator.random() < 0.1:
                place[key] = generator.choice(NASTY)
                return
            place = place[key]

    refused = ""
    try:
        runs(from_frozen(decode(resealed(small(), change))))
    except UserError as error:
        refused = str(error)
    assert "\n" not in refused


def test_what_is_read_unchanged_runs():
    from plq.runtime.frozen import from_frozen

    runs(from_frozen(decode(resealed(small(), lambda model, tensors: None))))


def runs(model) -> None:
    """The shapes of one run of the model are those of its graph."""
    import jax

    images = jax.ShapeDtypeStruct((2, *model.image_shape), np.uint8)
    results, _ = jax.eval_shape(model.runner.results, model.runner.arrays, images)
    graph: Graph = model.frozen.graph
    assert {name: found.shape[1:] for name, found in results.items()} == {n: v.shape for n, v in graph.values.items()}
