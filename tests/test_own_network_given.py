"""What a config says of somebody's own network: its fields, its rules, and how it is called."""

import jax
import jax.numpy as jnp
import numpy as np
import own_networks
import pytest
from test_own_network import RULES, config_of

from plq.config.load import build_config
from plq.config.selection import parse_value
from plq.errors import UserError
from plq.layers.convert import conversion_table
from plq.models.signature import training_flags

SHAPE = (8, 8, 1)


def network_of(name="Residual", options=None, rules=RULES, **fields):
    return build_config(config_of(name, options, rules, **fields)).architecture(10, SHAPE)


def one_line(found, make, *given, **fields):
    with pytest.raises(UserError, match=found) as caught:
        make(*given, **fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "flags"), [
    ("Train", {"train": True}), ("Training", {"training": True}), ("IsTraining", {"is_training": True}),
    ("Deterministic", {"deterministic": False}), ("UseRunningAverage", {"use_running_average": False}), ("Bare", {}),
])  # fmt: skip
def test_how_a_network_is_told_is_read_off_its_signature(name, flags):
    cls = getattr(own_networks, name)
    assert dict(training_flags(cls)) == flags
    if name == "Bare":
        return
    network = network_of(name, rules=()).plain()
    x = jnp.zeros((2, *SHAPE))
    variables = network.init(jax.random.key(0), x)
    for train in (True, False):
        assert (network.apply(variables, x, train=train) == float(train)).all()
    assert (network.apply(variables, x) == 0).all()


@pytest.mark.parametrize(("name", "found"), [
    ("Labelled", "Labelled.__call__: wants labels too, allowed images, and arguments named train, training"),
    ("Fixed", "Fixed: has a field train, which cannot change between training and evaluation"),
    ("Uncalled", "Uncalled: has no __call__, allowed images"),
    ("Maps", r"own_networks:Maps: gives float32\[2, 8, 8, 10\] for 2 images, allowed .*\[batch, classes\].* \[2, 10\]"),
    ("Pair", r"own_networks:Pair: gives dict of float32\[2, 10\], float32\[\] for 2 images"),
    ("Broken", r"own_networks:Broken on images \[8, 8, 1\]: line \d+: RuntimeError: two; lines"),
    ("Sowing", r"own_networks:Sowing: collection penalties changes in a step \(size/1\), allowed collections whose"),
    ("AlwaysWriting", "own_networks:AlwaysWriting in evaluation: .*collection \"memory\" is immutable"),
    ("Mathematics", "quant.rules: found no nn.Conv and no nn.Dense in the network"),
    ("NOT_A_CLASS", "model.name=own_networks:NOT_A_CLASS: found a int, allowed a subclass of flax.linen.Module"),
    ("Gone", r"model.name=own_networks:Gone: own_networks \(.*own_networks.py\) has no Gone"),
])  # fmt: skip
def test_a_network_that_cannot_be_trained_is_one_line(name, found):
    one_line(found, network_of, name, rules=())


@pytest.mark.parametrize(("name", "found"), [
    ("no_such.module:Net", "model.name=no_such.module:Net: cannot import no_such.module: ModuleNotFoundError"),
    ("own_networks.py:Bare", "model.name=own_networks.py:Bare: allowed package.module:Network"),
    ("nets/own:Bare", "model.name=nets/own:Bare: allowed package.module:Network"),
    (":Bare", "model.name=:Bare: allowed package.module:Network"),
    ("svnh", "model.name=svnh: unknown; did you mean svhn.*, or package.module:Network"),
])  # fmt: skip
def test_a_name_that_leads_nowhere_is_named(name, found):
    config = config_of(rules=())
    config.model.name = name
    if name == "svnh":
        config.model.options = {}
    one_line(found, lambda: build_config(config).architecture(10, SHAPE))


def test_a_module_that_ends_the_program_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "ending.py").write_text("import sys\nsys.exit('bye')\n")
    monkeypatch.chdir(tmp_path)
    config = config_of(rules=())
    config.model.name = "ending:Net"
    one_line("model.name=ending:Net: cannot import ending: SystemExit: bye",
             lambda: build_config(config).architecture(10, SHAPE))  # fmt: skip


@pytest.mark.parametrize(("options", "found"), [
    ({"chanels": (3,)}, "model.options.chanels: Residual has no such field; did you mean channels"),
    ({"parent": None}, "model.options.parent: Residual has no such field"),
    ({"channels": 3}, r"model.options.channels=3: found int, allowed tuple\[int, ...\]"),
    ({"channels": (3, "4")}, "model.options.channels=.*: found tuple, allowed"),
    ({"dropout": "much"}, "model.options.dropout='much': found str, allowed float"),
    ({"dropout": True}, "model.options.dropout=True: found bool, allowed float"),
    ({"activation": "relu"}, "model.options.activation='relu': found str, allowed"),
    ({"num_classes": 7}, r"own_networks:Residual: gives float32\[2, 7\] for 2 images, allowed .*\[2, 10\]"),
    ({"channels": (0, -1)}, "own_networks:Residual on images"),
])  # fmt: skip
def test_options_are_checked_against_the_fields(options, found):
    one_line(found, network_of, "Residual", options)


def test_a_field_without_a_value_is_named():
    found = "model.options: lacks features, which Wanting has no default for; allowed: features, depth"
    one_line(found, network_of, "Wanting", {"depth": 2}, ())


@pytest.mark.parametrize("value", [{1, 2}, object(), float("nan"), np.float32(1), {"deep": [object()]}])
def test_options_are_plain_values(value):
    given = {**config_of().to_dict(), "model": {"name": "own_networks:Residual", "options": {"x": value}}}
    one_line("model.options.x", build_config, given)


@pytest.mark.parametrize(("name", "options", "field"), [
    ("Residual", {}, "num_classes"), ("Bare", {}, "classes"), ("Narrow", {"dropout": 0.5}, "num_classes"),
])  # fmt: skip
def test_the_data_set_says_the_number_of_classes(name, options, field):
    found = network_of(name, options, rules=())
    assert found.options[field] == 10
    assert {name: found.options[name] for name in options} == options
    if name == "Narrow":
        assert found.options["channels"] == (2,)


def test_the_first_rule_that_matches_counts():
    network = network_of(rules=[{"pattern": "conv1", "weight_bits": 4, "activation_bits": 3, "expand": False},
                                {"pattern": "conv*"}, {"pattern": "*", "weight_bits": 8}])  # fmt: skip
    table = conversion_table(own_networks.Residual(10), network.rules, SHAPE, train=False)
    rules = {row.path: row.rule for row in table}
    assert (rules["conv1"].weight_bits, rules["conv1"].activation_bits, rules["conv1"].expand) == (4, 3, False)
    assert (rules["conv0"].weight_bits, rules["conv0"].activation_bits, rules["conv0"].expand) == (2, 2, True)
    assert {rules[path].weight_bits for path in ("stem", "head", "gate0/squeeze")} == {8}


def test_usual_rules_leave_the_first_and_the_last_layer_without_a_branch():
    network = network_of(rules=(), quant__last_bits=8, quant__activation_bits=3)
    stem, head, other = network.rules
    assert (stem.pattern, stem.weight_bits, stem.activation_bits, stem.expand) == ("stem", 32, 32, False)
    assert (head.pattern, head.weight_bits, head.activation_bits, head.weights) == ("head", 8, 8, "lsq")
    assert (other.pattern, other.weight_bits, other.activation_bits, other.weights, other.expand) == (
        "*", 2, 3, "dorefa", True)  # fmt: skip


@pytest.mark.parametrize(("rules", "found"), [
    ([{"pattern": "*"}, {"pattern": "head"}], "quant.rules 'head': found no layer that they are the first to.*stem"),
    ([{"pattern": "Conv*"}], "quant.rules 'Conv.': found no layer"),
    ([{"pattern": "*", "bits": 2}], r"quant.rules\[0\].bits: unknown field; did you mean"),
    ([{"weight_bits": 2}], r"quant.rules\[0\]=.*: lacks pattern; allowed: pattern, weight_bits"),
    ([{"pattern": "*", "weight_bits": 9}], r"quant.rules\[0\]: rule '\*': weight_bits=9: weights dorefa allow"),
    ([{"pattern": "*", "weight_bits": "2"}], r"quant.rules\[0\]: rule '\*': weight_bits='2': found str, allowed int"),
    ([{"pattern": "*", "weight_quantizer": "lqs"}], r"quant.rules\[0\]: rule '\*': weight_quantizer=lqs: unknown; did"),
    ([{"pattern": "*", "granularity": "row"}], r"quant.rules\[0\]: rule '\*': granularity=row"),
    (["conv*"], r"quant.rules\[0\]='conv\*': found str, allowed dict"),
])  # fmt: skip
def test_rules_are_checked(rules, found):
    one_line(found, network_of, "Residual", None, rules)


@pytest.mark.parametrize(("field", "value"), [
    ("model__width", 0.5), ("model__dropout", 0.5), ("model__block", "pre"), ("expansion__merge", "concat"),
    ("expansion__norm", False), ("quant__gradient_bits", 6), ("quant__dtype", "bfloat16"), ("quant__eta", 0.3),
    ("quant__first_bits", 8),
])  # fmt: skip
def test_fields_without_an_effect_are_refused(field, value):
    name = field.replace("__", ".")
    one_line(f"{name}={value}: has no effect on own_networks:Residual", network_of, **{field: value})


def test_a_field_that_each_rule_states_has_no_effect():
    rules = [{"pattern": "*", "weight_bits": 2}]
    one_line("quant.weight_bits=2: has no effect on own_networks:Residual, layers are as quant.rules say",
             network_of, rules=rules)  # fmt: skip


def test_a_factor_without_a_branch_is_refused():
    from test_own_network import setup_of

    rules = [{"pattern": "*", "expand": False}]
    one_line("quant.rules: found no layer with a branch for factor.name=cosine", setup_of, rules=rules)
    assert setup_of(rules=rules, factor__name="constant", factor__end=0.25).factor.end_step == 0


def test_the_command_line_sets_options_and_rules():
    assert parse_value("model.options", "{'channels': (2, 3)}") == {"channels": (2, 3)}
    assert parse_value("quant.rules", "[{'pattern': '*'}]") == [{"pattern": "*"}]
    assert parse_value("quant.rules", "{'pattern': '*'}") == ({"pattern": "*"},)
    one_line(r"model.options=\[1\]: allowed dict", parse_value, "model.options", "[1]")


def test_rules_may_be_config_dicts():
    from ml_collections import ConfigDict

    made = build_config(config_of(rules=[ConfigDict({"pattern": "*"})]))
    assert made.quant.rules == ({"pattern": "*"},)
    assert hash(made) == hash(build_config(config_of(rules=({"pattern": "*"},))))


def test_own_network_is_hashable_and_reads_itself_back():
    from plq.models.own import from_json

    made = network_of()
    again = from_json(made.to_json(), own_networks.Residual)
    assert made == again and hash(made) == hash(again)
