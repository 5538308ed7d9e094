"""Starting from a float model: what is taken, what is said about it, and what is refused in one line."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import IMAGE_SHAPE, architecture, digit_images, used_variables
from runs import tiny, trained

from plq.checkpoint.match import leaf_shapes
from plq.checkpoint.model_file import write_model
from plq.checkpoint.prune import prune
from plq.checkpoint.warm_start import read_start, warm_start_from
from plq.cli import train as main
from plq.errors import UserError
from plq.layers.factory import QuantConfig
from plq.layers.variables import flatten
from plq.models.registry import Architecture

FLOAT = {"quant__weight_bits": 32, "quant__activation_bits": 32, "quant__activations": "relu"}
SMALL = {"model__width": 0.125, "model__dropout": 0.0, "optimizer__learning_rate": 0.004, "mesh__data": 1}


@pytest.fixture(scope="module")
def float_run():
    """A float network that has learned digits, and its experiment."""
    setup = tiny(**FLOAT, **SMALL, factor__name="constant", train__epochs=4.0, optimizer__schedule="cosine")
    return setup, trained(setup)


@pytest.fixture(scope="module")
def folder(float_run, tmp_path_factory):
    setup, state = float_run
    path = tmp_path_factory.mktemp("float") / "run" / "model"
    write_model(path, jax.device_get(dict(state.variables)), setup.description())
    return path


def start(folder, **fields):
    return tiny(**{**SMALL, "factor__name": "constant", **fields}, model__init_from=str(folder))


LSQ8 = {"quant__weights": "lsq", "quant__weight_bits": 8, "quant__activations": "lsq", "quant__activation_bits": 8}


def test_eight_bits_start_at_the_float_networks_accuracy(folder, float_run):
    """Before any training step: kernels and batch statistics are taken, scales are computed and calibrated."""
    setup = start(folder, **LSQ8, quant__first_bits=8, quant__last_bits=8)
    state = setup.initial_state()
    reached, begun = (e.evaluate(s)["accuracy"] for e, s in (float_run, (setup, state)))
    assert reached > 0.95 and begun > reached - 0.01
    fresh = tiny(**SMALL, **LSQ8)
    assert fresh.evaluate(fresh.initial_state())["accuracy"] < 0.5
    kernel = lambda s: s.weights["params"]["conv3"]["conv"]["kernel"]
    np.testing.assert_array_equal(kernel(state), kernel(float_run[1]))
    step = state.weights["params"]["conv3"]["conv"]["step"]
    np.testing.assert_allclose(step.item(), 2 * np.abs(kernel(state)).mean() / np.sqrt(127), rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, state.statistics["batch_stats"], float_run[1].statistics["batch_stats"])


def test_few_bits_with_a_branch_start_from_it_too(folder, float_run):
    fields = {"quant__weights": "syq", "quant__weight_bits": 2, "quant__activations": "pact"}
    setup = start(folder, **fields, factor__name="cosine")
    state = setup.initial_state()
    params = state.weights["params"]
    wanted = np.abs(params["conv2"]["conv"]["kernel"]).mean((2, 3), keepdims=True)
    np.testing.assert_allclose(params["conv2"]["conv"]["scale"], wanted, rtol=1e-5)
    taken = float_run[1].weights["params"]["dense"]["conv"]
    jax.tree.map(np.testing.assert_array_equal, params["dense"]["conv"], taken)
    assert state.expanded and int(state.step) == 0
    after = setup.step(state, *setup.batch(0))
    assert int(after.tally.broken_step) == -1
    said = str(setup.warm_start)
    count = len(flatten(dict(float_run[1].variables)))
    words = f"starting from {folder} (W32/A32 svhn): {count} leaves taken; 12 learned (params/conv0/act/alpha, "
    assert said.startswith(words)
    assert "fresh" not in said and "unused" not in said and "\n" not in said


@pytest.mark.parametrize("fields", [{}, {"expansion__norm": False}, {"expansion__merge": "concat"}])
def test_a_branch_beside_trained_kernels_is_silent_until_it_has_learned(fields, folder):
    """At f = 1 the expanded network starts as the low-precision one, bit for bit, which one with a fresh branch does
    not; then each of the branch's variables learns."""
    setup, plain = start(folder, **{**fields, "factor__name": "cosine"}), start(folder, **fields)
    state, images = setup.initial_state(), setup.test_batch()
    assert state.expanded and setup.task.factor(0) == 1
    of_plain = plain.logits(plain.initial_state(), images)
    np.testing.assert_array_equal(setup.logits(state, images), of_plain)
    branch = tiny(**{**SMALL, **fields}, factor__name="cosine").initial_state().weights["ancillary"]
    fresh = dataclasses.replace(state, weights={**state.weights, "ancillary": branch})
    assert (setup.logits(fresh, images) != of_plain).any()
    begun = jax.device_get(flatten(state.weights["ancillary"]))
    for step in range(2):
        state = setup.step(state, *setup.batch(step))
    assert all((leaf != begun[path]).any() for path, leaf in flatten(state.weights["ancillary"]).items())


def test_a_calibration_that_overflows_is_refused(float_run, tmp_path):
    """Kernels of 1e30 are finite; the batch statistics of what they give are not."""
    setup, state = float_run
    huge = jax.tree.map(np.array, dict(state.variables))
    huge["params"]["conv1"]["conv"]["kernel"] *= np.float32(1e30)
    write_model(tmp_path / "model", huge, setup.description())
    said = r"calibration on the first batch: params/conv1/act/alpha is (nan|inf), allowed finite scales; what"
    with pytest.raises(UserError, match=said):
        start(tmp_path / "model", quant__activations="pact").initial_state()


def shapes(network):
    return leaf_shapes(jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *IMAGE_SHAPE))))


def variables(network, seed=0):
    return jax.device_get(used_variables(network, digit_images(4), seed))


@pytest.fixture(scope="module")
def low_precision():
    """Variables of a small lsq 2-bit network."""
    found = architecture("lsq", 2, activations="lsq")
    return found, variables(found.plain())


def test_lists_of_what_is_taken_fresh_and_unused(low_precision):
    """Another number of classes: the head is fresh. Scales of another number of bits are never taken."""
    found, theirs = low_precision
    ours = dataclasses.replace(found, num_classes=7, precision=QuantConfig("lsq", 4, "pact", 4))
    wanted = shapes(ours.expanded("concat", 1.0))
    learned = [path for path in wanted if path.endswith(("/step", "/alpha"))]
    warm_start = warm_start_from("somewhere", theirs, wanted, learned)
    head = ["params/dense/conv/bias", "params/dense/conv/kernel"]
    assert sorted(warm_start.fresh) == head
    assert sorted(warm_start.unused) == sorted(head + [path for path in flatten(theirs) if path.endswith("/step")])
    assert warm_start.learned == sorted(learned)
    kept = {path for path in wanted if path.split("/")[0] in ("params", "batch_stats")}
    assert set(warm_start.taken) == kept - set(head) - set(learned)
    assert all(warm_start.taken[path] is flatten(theirs)[path] for path in warm_start.taken)
    assert "; 2 fresh (params/dense/conv/" in str(warm_start) and "unused (" in str(warm_start)


def test_a_model_that_is_not_finite_is_refused(low_precision):
    found, theirs = low_precision
    broken = jax.tree.map(np.array, theirs)
    broken["params"]["conv2"]["conv"]["kernel"][0, 0, 0, 0] = np.nan
    said = "model.init_from=somewhere: params/conv2/conv/kernel holds nan or infinity, allowed finite numbers"
    with pytest.raises(UserError, match=said):
        warm_start_from("somewhere", broken, shapes(found.plain()), [])


def test_what_is_taken_goes_into_its_place(low_precision):
    found, theirs = low_precision
    warm_start = warm_start_from("somewhere", theirs, shapes(found.plain()), [])
    fresh = jax.tree.map(np.zeros_like, theirs)
    jax.tree.map(np.testing.assert_array_equal, warm_start.into(fresh), theirs)
    extra = {"params": {"mine": np.ones(2)}, "ancillary": {"conv1": np.ones(3)}}
    assert warm_start.into(extra) == extra


def test_leaves_of_another_shape_or_type_are_not_taken():
    theirs = {"params": {"a": {"kernel": np.ones((3, 3))}, "b": {"kernel": np.ones((2, 2))}, "c": {"bias": np.ones(2)}}}
    theirs["params"]["d"] = {"kernel": np.ones(2, np.float16)}
    wanted = {"params/a/kernel": ((3, 3), "float64"), "params/b/kernel": ((2, 5), "float64")}
    wanted |= {"params/d/kernel": ((2,), "float64"), "ancillary/c/bias": ((2,), "float64")}
    warm_start = warm_start_from("somewhere", theirs, wanted, [])
    assert list(warm_start.taken) == ["params/a/kernel"]
    assert warm_start.fresh == ["params/b/kernel", "params/d/kernel"]
    assert warm_start.unused == ["params/b/kernel", "params/c/bias", "params/d/kernel"]
    with pytest.raises(UserError, match="model.init_from=somewhere: no kernel in it has the name and shape"):
        warm_start_from("somewhere", {"params": {"c": {"bias": np.ones(2)}}}, {"params/c/bias": ((2,), "float64")}, [])


def written(path: Path, found: Architecture, tree) -> Path:
    write_model(path, tree, {"architecture": found.to_json(), "mean": [0.0], "std": [256.0]})
    return path


def read(path: Path, network: Architecture, std=(256.0,)):
    return read_start(path, network, {"mean": (0.0,), "std": std})


def test_a_low_precision_model_is_taken_and_called_one(low_precision, tmp_path):
    found, theirs = low_precision
    path = written(tmp_path / "model", found, theirs)
    source, variables = read(path, architecture("dorefa", 1))
    assert source == f"{path} (W2/A2 svhn)"
    jax.tree.map(np.testing.assert_array_equal, variables, theirs)
    assert read(tmp_path, architecture("dorefa", 1))[0] == f"{tmp_path} (W2/A2 svhn)"  # a training folder
    said = read(path, found, std=(1.0,))[0]
    assert said == f"{path} (W2/A2 svhn, trained with data.std=[256.0], here [1.0])"


def test_another_network_is_refused(low_precision, tmp_path):
    found, theirs = low_precision
    path = written(tmp_path / "model", found, theirs)
    for other, message in (
        (dataclasses.replace(found, width=0.25), "has width=0.125, this network width=0.25"),
        (dataclasses.replace(found, name="vgg_small"), "has name=svhn, this network name=vgg_small"),
    ):
        with pytest.raises(UserError, match=f"model.init_from={path}: {message}"):
            read(path, other)


def missing(path, low_precision):
    return path / "gone"


def unfinished(path, low_precision):
    (path / "checkpoints").mkdir()
    return path


def unstripped(path, low_precision):
    found, _ = low_precision
    whole = variables(found.expanded("add", 0.0))
    assert set(prune(whole)) != set(whole)
    return written(path / "model", found, whole)


def no_model(path, low_precision):
    (path / "notes.txt").write_text("x")
    return path


def no_network(path, low_precision):
    write_model(path / "model", low_precision[1], {})
    return path / "model"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (missing, "model.init_from: .*gone: does not exist"),
        (
            unfinished,
            "model.init_from: .*: is a training folder, not a stripped model; make a model with: .*plq.prune",
        ),
        (unstripped, "model.init_from=.*: found a model with its ancillary branch, allowed a stripped one"),
        (no_model, "model.init_from: .*: holds no model.json"),
        (no_network, "model.init_from=.*: network description"),
    ],
)
def test_what_cannot_be_used_is_one_line(make, message, tmp_path, low_precision):
    with pytest.raises(UserError, match=message) as caught:
        read(make(tmp_path, low_precision), low_precision[0])
    assert "\n" not in str(caught.value)


def test_a_wrong_start_leaves_no_folder_behind(tmp_path):
    """So that the corrected command can use it."""
    config = Path(__file__).parents[1] / "configs" / "digits_w1a2.py"
    workdir = tmp_path / "run"
    arguments = ["--config", str(config), "--workdir", str(workdir), f"--config.model.init_from={tmp_path}/gone"]
    with pytest.raises(UserError, match=r"model.init_from: .*gone: does not exist"):
        main.main([*arguments, "--config.mesh.data=1"])
    assert not workdir.exists()
