"""Somebody's own network: named in a config, trained like those of plq, and loaded only with its code named."""

import functools
import json
import sys

import jax
import numpy as np
import own_networks
import pytest
from runs import to_the_end

import plq
from plq.checkpoint.model_file import DESCRIPTION, VARIABLES
from plq.config.load import build_config, default
from plq.errors import UserError
from plq.layers.variables import ancillary_leaves, flatten
from plq.models.own import OwnNetwork
from plq.runtime import stripped_model
from plq.train.step import logits_of
from plq.trainer.setup import assemble
from plq.trainer.trainer import Interrupted, Run

RULES = [
    {"pattern": "stem", "weight_bits": 32, "activation_bits": 32, "expand": False},
    {"pattern": "gate*", "weight_bits": 8, "weight_quantizer": "lsq", "granularity": "channel", "expand": False},
    {"pattern": "conv0", "activation_quantizer": "lsq"},
    {"pattern": "conv*"},
    {"pattern": "head", "weight_bits": 8, "activation_bits": 8, "expand": False},
]


def config_of(name="Residual", options=None, rules=RULES, **fields):
    """11 steps of digits as they are; f reaches 0 at step 5. ``fields``: data__pad=2 sets data.pad."""
    config = default()
    config.data.name, config.data.batch_size = "digits", 64
    config.model.name, config.model.options = f"own_networks:{name}", options or {}
    config.quant.weight_bits, config.quant.rules = 2, rules
    config.factor.end, config.train.epochs = 0.5, 0.5
    config.report.every_steps, config.report.tensorboard, config.mesh.data = 3, False, 1
    for field, value in fields.items():
        section, _, field = field.partition("__")
        config[section][field] = value
    return config


def setup_of(*given, **fields):
    return assemble(build_config(config_of(*given, **fields)))


@pytest.fixture(scope="module")
def setup():
    return setup_of(checkpoint__every_steps=4, report__branch=True)


@pytest.fixture(scope="module")
def finished(setup, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("own")
    (workdir / "config.json").write_text(json.dumps(setup.config.to_json()))
    return to_the_end(Run(setup, workdir))


def test_it_trains_and_the_branch_leaves(finished, setup):
    network = finished.setup.architecture
    assert isinstance(network, OwnNetwork)
    assert network.options == {"num_classes": 10, "channels": (4, 6), "dropout": 0.2}
    initial = flatten(setup.initial_state().weights)
    assert {path.split("/")[1] for path in initial if path.startswith("ancillary")} == {"conv0", "conv1"}
    trained = flatten(finished.state.weights)
    assert not ancillary_leaves(finished.state.variables) and set(trained) < set(initial)
    moved = [path for path in trained if not np.array_equal(trained[path], initial[path])]
    assert {"params/conv0/kernel", "params/conv0/act/step", "params/gate0/excite/bias", "params/head/bias"} <= {*moved}
    statistics = flatten(finished.state.statistics)
    assert any(path.startswith("batch_stats/") and value.any() for path, value in statistics.items())


def test_stripped_equals_expanded_at_f_0_bit_for_bit(setup):
    state, end = setup.initial_state(), setup.factor.end_step
    assert end == 6
    for step in range(end):
        state = setup.step(state, *setup.batch(step))
    assert state.expanded and float(setup.factor(end)) == 0
    images = setup.test.split.images[:64]
    expanded, stripped = (np.asarray(setup.logits(given, images)) for given in (state, setup.pruned(state, end)))
    assert not setup.pruned(state, end).expanded and np.ptp(expanded) > 0
    np.testing.assert_array_equal(expanded, stripped)


@pytest.mark.parametrize("stop", [3, 6, 8])
def test_stopped_and_given_again_it_ends_the_same(finished, setup, tmp_path, stop):
    with pytest.raises(Interrupted, match=f"step {stop}"):
        to_the_end(Run(setup, tmp_path), stop)
    again = to_the_end(Run(setup, tmp_path))
    jax.tree.map(np.testing.assert_array_equal, again.state, finished.state)
    for name in (f"model/{VARIABLES}", f"model/{DESCRIPTION}", "metrics.jsonl"):
        assert (tmp_path / name).read_bytes() == (finished.workdir / name).read_bytes()


def test_the_mesh_changes_rounding_alone(setup):
    split = setup_of(mesh__data=1, mesh__fsdp=2, checkpoint__every_steps=4)
    assert split.mesh.size == 2
    states = []
    for one in (setup, split):
        state = one.initial_state()
        state = one.step(state, *one.batch(0))
        states.append(jax.device_get(state.weights))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-3), *states)


def test_each_layer_has_its_own_factor_in_an_order():
    setup = setup_of("Bare", rules=[{"pattern": "conv*"}], factor__order="front")
    assert setup.factor.layers == ("conv0", "conv1")
    state = setup.initial_state()
    for step in range(3):
        state = setup.step(state, *setup.batch(step))
    shares = jax.device_get(setup.branch_shares(state, setup.test_batch()))
    assert shares["conv0"] == 0 < shares["conv1"]


def test_a_folder_is_loaded_with_its_code_named_alone(finished, setup, monkeypatch):
    folder = finished.workdir / "model"
    images = setup.test.split.images[:32]
    wanted = np.asarray(jax.jit(lambda state: logits_of(setup.task, state, images))(finished.state))
    for code in (own_networks.Residual, "own_networks:Residual", own_networks.Narrow, "own_networks:Narrow"):
        np.testing.assert_allclose(plq.load(folder, network=code)(images), wanted, atol=1e-5)  # fields are the folder's
    monkeypatch.delitem(sys.modules, "own_networks")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "tests" not in entry])
    found = r"its network is own_networks:Residual, not one of plq.*--network own_networks:Residual"
    for load in (plq.load, plq.freeze, stripped_model.load):
        with pytest.raises(UserError, match=found) as caught:
            load(folder)
        assert "\n" not in str(caught.value) and "own_networks" not in sys.modules


@pytest.mark.parametrize(("network", "found"), [
    (own_networks.Bare, "found Bare, the model is of the class Residual, allowed own_networks:Residual"),
    ("own_networks:Bare", "own_networks:Bare: found Bare, the model is of the class Residual"),
    ("own_networks:Residul", r"own_networks \(.*own_networks.py\) has no Residul"),
    ("no_such_module:Net", "no_such_module:Net: cannot import no_such_module: ModuleNotFoundError"),
    ("own_networks.py:Residual", "network=own_networks.py:Residual: allowed package.module:Network"),
    ("own_networks:NOT_A_CLASS", "found a int, allowed a subclass of flax.linen.Module"),
    (functools.partial(dict, a=1), "found a partial, allowed a subclass of flax.linen.Module"),
])  # fmt: skip
def test_other_code_than_the_folders_is_refused(finished, network, found):
    with pytest.raises(UserError, match=found) as caught:
        plq.load(finished.workdir / "model", network=network)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("change", "found"), [
    (lambda fields: fields["options"].update(chanels=3), "options.chanels: Residual has no such field"),
    (lambda fields: fields["options"].update(channels=[4, 7]), "does not fit the model; different: .*float32"),
    (lambda fields: fields["options"].update(channels="many"), "its network: TypeError"),
    (lambda fields: fields["rules"][0].update(weight_bits=9), "rule 'stem': weight_bits=9"),
    (lambda fields: fields["rules"][0].pop("expand"), "rules=.*allowed rules with pattern"),
    (lambda fields: fields["rules"].pop(1), "does not fit the model; only in the file: .*params/gate0/excite/step"),
    (lambda fields: fields.pop("class"), "network description: class=None, allowed a str"),
])  # fmt: skip
def test_a_folder_that_says_something_else_is_refused(finished, tmp_path, change, found):
    header = json.loads((finished.workdir / "model" / DESCRIPTION).read_text())
    change(header["description"]["architecture"])
    (tmp_path / DESCRIPTION).write_text(json.dumps(header))
    (tmp_path / VARIABLES).write_bytes((finished.workdir / "model" / VARIABLES).read_bytes())
    with pytest.raises(UserError, match=found) as caught:
        plq.load(tmp_path, network=own_networks.Residual)
    assert "\n" not in str(caught.value)


def test_a_network_of_plq_takes_no_code(tmp_path):
    from networks import architecture

    from plq.models.trainable import from_json

    with pytest.raises(UserError, match="found svhn, a network of plq; allowed none"):
        from_json(json.loads(json.dumps(architecture().to_json())), own_networks.Bare)


def test_a_collection_of_its_own_is_carried(tmp_path):
    setup = setup_of("Counting", rules=())
    run = to_the_end(Run(setup, tmp_path))
    assert int(run.state.statistics["counter"]["steps"]) == setup.total_steps == 11
    served = plq.load(tmp_path / "model", network="own_networks:Counting")
    assert int(served.variables["counter"]["steps"]) == 11


def test_parameters_of_sixteen_bits_are_saved_and_read(tmp_path):
    run = to_the_end(Run(setup_of("Half", rules=()), tmp_path))
    served = plq.load(tmp_path / "model", network="own_networks:Half").variables["params"]
    assert served["conv1"]["kernel"].dtype == "bfloat16"
    np.testing.assert_array_equal(served["conv1"]["kernel"], run.state.weights["params"]["conv1"]["kernel"])


def test_each_call_of_a_layer_is_counted_once():
    """A shared layer for each call, and one inside a transformation, which runs it several times, for one."""
    from plq.layers.cost import cost_table

    network = build_config(config_of("Twice", rules=())).architecture(10, (8, 8, 1)).plain()
    macs = {cost.layer.name: cost.layer.macs for cost in cost_table(network, (8, 8, 1))}
    assert macs["shared"] == 2 * 64 * 9 * 16 and macs["wrapped"] == 64 * 9 * 16
