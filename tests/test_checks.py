"""Every field says in one line, by its name, what it found and what it allows; nothing is rounded or guessed."""

import dataclasses
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plq import checks
from plq.config.load import build_config, default
from plq.config.schema import Checkpoint, Config, Data, FactorConfig, MeshConfig, Report, Train
from plq.errors import UserError
from plq.layers.convert import Rule
from plq.layers.factory import QuantConfig, expanded_factory, plain_factory
from plq.models.registry import Architecture
from plq.quant.apot import APoT
from plq.quant.dorefa import DoReFa, quantize_gradient
from plq.quant.lsq import LSQ, LSQActivation
from plq.quant.registry import ACTIVATIONS, WEIGHTS, activation_quantizer, weight_quantizer
from plq.quant.syq import SYQ
from plq.train.factor import FactorSchedule
from plq.train.optimizer import OptimizerConfig, learning_rate

NO_INTEGER = [True, False, np.bool_(True), 2.0, np.float64(2), "2", b"2", None, np.array(2), np.array([2]), [2], {2},
              float("nan"), float("inf"), 2j, Fraction(5, 2), np.datetime64("2026")]  # fmt: skip
NO_NUMBER = [True, np.bool_(False), "0.5", None, np.array([0.5]), [0.5], float("nan"), float("-inf"), np.float32("nan"),
             10**400, 1j, ...]  # fmt: skip


def refuse(make, field):
    with pytest.raises(UserError, match=field) as caught:
        make()
    assert "\n" not in str(caught.value) and "allow" in str(caught.value)


BITS = {
    "rule weights": (lambda bits: Rule("*", bits, 2), "rule '\\*': weight_bits"),
    "rule activations": (lambda bits: Rule("*", 2, bits), "rule '\\*': activation_bits"),
    "weights": (lambda bits: weight_quantizer("dorefa", bits), "quant.weight_bits"),
    "activations": (lambda bits: activation_quantizer("lsq", bits), "quant.activation_bits"),
    "a constructor": (DoReFa, "quant.weight_bits"),
    "another one": (LSQActivation, "quant.activation_bits"),
    "precision": (lambda bits: plain_factory(QuantConfig(weight_bits=bits)), "quant.weight_bits"),
    "edges": (lambda bits: QuantConfig(first_bits=bits).check(), "quant.first_bits"),
    "gradient": (lambda bits: QuantConfig(gradient_bits=bits).check(), "quant.gradient_bits"),
    "its quantizer": (lambda bits: quantize_gradient(jnp.ones((2, 2)), jax.random.key(0), bits), "quant.gradient_bits"),
}


@pytest.mark.parametrize("value", [*NO_INTEGER, 0, -1, 33, np.int64(-2)], ids=repr)
@pytest.mark.parametrize("name", BITS)
def test_bits_are_integers_that_there_are(name, value):
    make, field = BITS[name]
    refuse(lambda: make(value), field)


@pytest.mark.parametrize("name", BITS)
@pytest.mark.parametrize("kind", [int, np.int64, np.int8, np.uint8])
def test_integers_of_numpy_are_fine(name, kind):
    BITS[name][0](kind(2))
    assert type(DoReFa(kind(2)).bits) is int and DoReFa(kind(2)) == DoReFa(2)
    assert type(Rule("*", kind(2), 2).weight_bits) is int


@pytest.mark.parametrize("quantizer", [*WEIGHTS.values(), *ACTIVATIONS.values()])
def test_no_quantizer_is_made_with_bits_that_it_lacks(quantizer):
    for bits in (9, 0, 2.0, True, "1"):
        refuse(lambda bits=bits: quantizer(bits), "_bits")
    assert quantizer(quantizer.legal_bits[0]).bits == quantizer.legal_bits[0]


@pytest.mark.parametrize(("make", "field"), [
    (lambda: LSQ(2, "rows"), "quant.granularity=rows.*did you mean row?|quant.granularity=rows"),
    (lambda: LSQ(2, True), "quant.granularity=True: found bool"),
    (lambda: SYQ(2, "row", 1.0), "quant.eta=1.0"),
    (lambda: SYQ(2, eta=True), "quant.eta=True"),
    (lambda: SYQ(2, eta=float("nan")), "quant.eta=nan"),
    (lambda: weight_quantizer("syq", 2, eta="0.1"), "quant.eta='0.1'"),
    (lambda: weight_quantizer("syq", 2, eta=-0.1), "quant.eta=-0.1"),
    (lambda: weight_quantizer("syq", 32, eta=3), "quant.eta=3"),
    (lambda: weight_quantizer(["lsq"], 2), "quant.weights"),
    (lambda: weight_quantizer(None, 2), "quant.weights=None"),
    (lambda: activation_quantizer(3, 2), "quant.activations=3"),
    (lambda: APoT(1), "quant.weight_bits=1"),
    (lambda: Rule(3, 2, 2), "rule 3: pattern=3"),
    (lambda: Rule("*", 2, 2, expand=1), "expand=1: found int"),
    (lambda: Rule("*", 2, 2, expand=np.bool_(True)), "expand="),
    (lambda: Rule("*", 2, 2, weights=None), "weights=None"),
    (lambda: Rule("*", 2, 2, granularity=2, weights="lsq"), "granularity=2"),
    (lambda: expanded_factory(QuantConfig(), "add", 1.5), "factor=1.5"),
    (lambda: expanded_factory(QuantConfig(), "add", {"conv1": float("nan")}), "factor=nan"),
    (lambda: expanded_factory(QuantConfig(), "sum", 1.0), "expansion.merge=sum"),
    (lambda: QuantConfig(dtype=jnp.float32).check(), "quant.dtype"),
    (lambda: Architecture("svhn", 2.0, QuantConfig()).check(), "model.num_classes=2.0"),
    (lambda: Architecture("svhn", 0, QuantConfig()).check(), "model.num_classes=0"),
    (lambda: Architecture("svhn", 10, None).check(), "precision=None"),
    (lambda: Architecture("svhn", 10, QuantConfig(), width=True).check(), "model.width=True"),
    (lambda: OptimizerConfig(multipliers=(-0.5,), schedule="step").check(), "optimizer.multipliers"),
    (lambda: learning_rate(OptimizerConfig(), 2.5), "total_steps=2.5"),
    (lambda: FactorConfig().over(0), "total_steps=0"),
    (lambda: FactorSchedule("cosine", 10, layers="abc"), "factor.layers"),
    (lambda: FactorSchedule(None, 10), "factor.name=None"),
])  # fmt: skip
def test_what_else_is_refused(make, field):
    refuse(make, field)


@pytest.mark.parametrize("value", [*NO_INTEGER, 0, -3, 2**31], ids=repr)
def test_a_factor_decays_over_whole_steps(value):
    refuse(lambda: FactorSchedule("cosine", value), "factor.(decay_steps|end)")
    assert FactorSchedule("cosine", np.int32(4))(np.int64(2)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "step", [True, np.bool_(True), 2.0, "2", b"2", None, [2], {2}, -1, jnp.float32(2), np.zeros(3)], ids=repr
)
def test_a_factor_is_asked_for_at_a_step(step):
    refuse(lambda: FactorSchedule("cosine", 4)(step), "step")
    assert FactorSchedule("cosine", 4)(10**30) == 0


@pytest.mark.parametrize("value", [*NO_NUMBER, -0.5, 2], ids=repr)
@pytest.mark.parametrize("field", ["rate", "cutoff", "value", "power"])
def test_a_factor_has_shares(field, value):
    if field != "power" or value != 2:
        refuse(lambda: FactorSchedule("cosine", 4, **{field: value}), f"factor.{field}")


SECTIONS = {"data": Data, "factor": FactorConfig, "train": Train, "mesh": MeshConfig, "checkpoint": Checkpoint,
            "report": Report, "quant": QuantConfig, "optimizer": OptimizerConfig}  # fmt: skip
NUMBERS = [(section, field.name, field.type) for section, cls in SECTIONS.items() for field in dataclasses.fields(cls)
           if field.type in (int, float)]  # fmt: skip


@pytest.mark.parametrize(("section", "field", "kind"), NUMBERS)
def test_each_number_of_a_config_by_every_way(section, field, kind):
    for value in NO_INTEGER if kind is int else NO_NUMBER:
        config = default().to_dict()
        config[section][field] = value
        refuse(lambda config=config: build_config(config), f"{section}.{field}")
        refuse(lambda value=value: SECTIONS[section](**{field: value}).check(), f"{section}.{field}")
    usual = getattr(SECTIONS[section](), field)
    config[section][field] = np.int64(usual) if kind is int else np.float64(usual)
    assert type(build_config(config).value(f"{section}.{field}")) is kind
    assert type(checks.typed(field, np.float32(usual), float)) is float


def test_a_tuple_is_one_of_numbers():
    for value in ((0.5, True), ("0.5",), 0.5, "0.5", np.array([0.5]), (float("nan"),), None):
        refuse(lambda value=value: Data(mean=value).check(), "data.mean")
    Data(mean=[0.5, np.float64(1), 2]).check()
    Config(data=Data(std=(1, 2))).check()


@given(st.one_of(st.integers(), st.floats(), st.booleans(), st.text(max_size=5), st.none(), st.binary(max_size=3),
                 st.complex_numbers(), st.lists(st.integers(), max_size=2)))  # fmt: skip
def test_a_value_is_taken_as_it_is_or_refused_in_a_line(value):
    for wanted in (int, float, bool, str, tuple[float, ...]):
        found, message = None, ""
        try:
            found = checks.typed("a.b", value, wanted)
        except UserError as error:
            message = str(error)
        if message:
            assert message.startswith("a.b=") and "\n" not in message and "allowed" in message
        else:
            assert found == (tuple(value) if isinstance(value, list) else value)
            assert isinstance(found, tuple if wanted == tuple[float, ...] else wanted)
            assert wanted not in (int, float) or not isinstance(value, bool)
