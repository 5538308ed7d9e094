"""Where state and batches lie on any number of devices, and batches taken in parts."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, PartitionSpec
from runs import tiny

from plq.checkpoint.manifest import checksums
from plq.errors import UserError
from plq.train import mesh as meshes
from plq.train.mesh import batch_sharding, bytes_per_device, make_mesh, require_split, state_shardings

CPU = jax.devices()


def devices(count, processes=1):
    """As many as a cluster might have, not in order."""
    found = [types.SimpleNamespace(id=i, process_index=i % processes) for i in range(count)]
    return found[::-1]


def refused(monkeypatch, shape, count, processes=1):
    monkeypatch.setattr(jax, "devices", lambda: devices(count, processes))
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    with pytest.raises(UserError) as caught:
        make_mesh(shape)
    return str(caught.value)


@pytest.mark.parametrize(("shape", "count", "message"), [
    ({"data": 5, "fsdp": 1}, 2, "mesh.data=5 mesh.fsdp=1: needs 5 devices, found 2 devices"),
    ({"data": 2, "fsdp": 4}, 4, "mesh.data=2 mesh.fsdp=4: needs 8 devices, found 4 devices"),
    ({"data": -1, "fsdp": 4}, 6, "mesh.data=-1 mesh.fsdp=4: found 6 devices, allowed a number of them that 4 divides"),
    ({"data": -1, "fsdp": 4}, 2, "found 2 devices, allowed a number of them that 4 divides"),
])  # fmt: skip
def test_what_the_devices_do_not_allow_is_said_in_numbers(monkeypatch, shape, count, message):
    assert message in refused(monkeypatch, shape, count)


def test_several_processes_use_all_their_devices(monkeypatch):
    message = "found 4 devices in 2 processes, all of which must be used, not 2"
    assert message in refused(monkeypatch, {"data": 2, "fsdp": 1}, 4, processes=2)


def test_a_process_s_devices_lie_side_by_side(monkeypatch):
    """So its rows of a batch are one piece."""
    monkeypatch.setattr(jax, "devices", lambda: devices(8, processes=2))
    monkeypatch.setattr(meshes, "Mesh", lambda grid, names, types: grid)
    grid = make_mesh({"data": -1, "fsdp": 2})
    assert [[device.id for device in row] for row in grid] == [[0, 2], [4, 6], [1, 3], [5, 7]]


def two(data, fsdp):
    return Mesh(np.asarray(CPU[: data * fsdp]).reshape(data, fsdp), ("data", "fsdp"), (AxisType.Auto,) * 2)


def test_batches_that_do_not_divide_are_refused_in_numbers():
    with pytest.raises(UserError, match=r"batch_size=9: does not divide over 2 devices \(mesh.data=1 x mesh.fsdp=2\)$"):
        batch_sharding(two(1, 2), 9)
    with pytest.raises(UserError, match=r"batch_size=10: .* 2 devices .*, each in train.accumulate=3 parts"):
        batch_sharding(two(2, 1), 10, 3)


def test_kernels_are_split_along_their_longest_axis_that_divides():
    shapes = {"kernel": (3, 3, 8, 4), "square": (6, 6), "odd": (3, 5), "bias": (8,), "step": ()}
    tree = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    specs = {name: sharding.spec for name, sharding in state_shardings(two(1, 2), tree).items()}
    whole = PartitionSpec()
    split = {"kernel": PartitionSpec(None, None, "fsdp"), "square": PartitionSpec(None, "fsdp")}
    assert specs == {**split, "odd": whole, "bias": whole, "step": whole}
    assert bytes_per_device(two(1, 2), tree) == 4 * (288 // 2 + 36 // 2 + 15 + 8 + 1)
    assert {sharding.spec for sharding in state_shardings(two(2, 1), tree).values()} == {whole}
    require_split(two(1, 2), tree)
    with pytest.raises(UserError, match=r"mesh.fsdp=2: divides no axis of any kernel \(the largest is 3x5\)"):
        require_split(two(1, 2), {name: tree[name] for name in ("odd", "bias")})


def test_checksums_do_not_depend_on_the_devices():
    values = {"kernel": np.random.default_rng(0).standard_normal((3, 3, 8, 4)).astype(np.float32)}
    values |= {"half": jnp.ones((2, 2), jnp.bfloat16), "step": jnp.int32(7), "none": np.zeros((0, 3), np.float32)}
    placed = [jax.device_put(values, state_shardings(two(*shape), values)) for shape in ((1, 1), (2, 1), (1, 2))]
    one, data, fsdp = map(checksums, placed)
    assert one == data == fsdp and one["step"] == 7
    changed = values["kernel"].copy()
    changed[1, 2, 3, 0] = np.nextafter(changed[1, 2, 3, 0], 9, dtype=np.float32)
    swapped = values["kernel"][:, ::-1]
    for other in (changed, swapped):
        assert checksums({"kernel": jnp.asarray(other)})["kernel"] != one["kernel"]


PRECISE = {"quant__weight_bits": 32, "quant__activation_bits": 32, "quant__activations": "relu", "model__dropout": 0.0}


def pairs(setup):
    """The first batch of this experiment with every image twice in a row: parts i, i + 2, ... are alike."""
    images, labels = (np.repeat(np.asarray(rows)[::2], 2, axis=0) for rows in setup.train.batch(0))
    return jax.device_put((images, labels), setup.sharding)


def test_two_parts_make_the_step_of_the_whole_batch():
    """Exact where batch norm cannot tell: when both parts hold the same images. Each part updates the statistics."""
    sgd = {"optimizer__name": "sgd", "optimizer__momentum": 0.0, "optimizer__learning_rate": 0.01}
    experiments = [
        tiny(**PRECISE, **sgd, mesh__data=1), tiny(**PRECISE, **sgd, mesh__data=2, train__accumulate=2)
    ]  # fmt: skip
    start = jax.device_get(experiments[0].initial_state())
    whole, parts = (jax.device_get(each.step(each.initial_state(), *pairs(each))) for each in experiments)
    close = lambda left, right: np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-6)
    moved = lambda state: jax.tree.map(np.subtract, state.weights, start.weights)
    jax.tree.map(close, moved(parts), moved(whole))
    jax.tree.map(close, parts.tally, whole.tally)
    again = lambda old, once: once + 0.9 * (once - old)  # momentum 0.9, the same statistics a second time
    jax.tree.map(close, parts.statistics, jax.tree.map(again, start.statistics, whole.statistics))
