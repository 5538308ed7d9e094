"""The grid of a comparison: its cells, their settings and folders, and what is refused before anything runs."""

import jax
import pytest
from runs import tiny_config

from plq.cli.compare import parse, trainings_of
from plq.cli.train import parse as parse_training
from plq.compare.plan import make_plan, parse_axis
from plq.compare.variants import variant_of
from plq.config.load import build_config, differences
from plq.config.schema import Config
from plq.config.selection import select
from plq.errors import UserError
from plq.layers.describe import variable_roles

DEMO = ["--config", "configs/digits_w1a2.py"]
CONFIG = "from runs import tiny_config\n\ndef get_config(argument=''):\n    return tiny_config(data__pad=2)\n"


def plan(*axes, variants=("plain", "expanded"), seeds=1, skip=False, **fields):
    base = build_config(tiny_config(**fields))
    return make_plan(base, [parse_axis(text) for text in axes], variants, seeds, skip)


def test_a_pair_differs_in_the_branch_alone():
    plain, expanded = plan().cells
    changed = {line.split(":")[0] for line in differences(plain.config.to_json(), expanded.config.to_json())}
    assert changed == {"factor.name", "factor.end"} and plain.config.factor.value == 0
    assert (plain.folder, expanded.folder) == ("cells/plain_0", "cells/expanded_0")


def test_float_is_plain_in_32_bits_with_the_same_nonlinearity():
    fields = {"quant__weights": "syq", "quant__weight_bits": 2, "quant__eta": 0.1, "quant__activations": "abs"}
    plain, float_ = plan(variants=("plain", "float"), **fields).cells
    quant = float_.config.quant
    assert {quant.weight_bits, quant.activation_bits, quant.first_bits, quant.last_bits, quant.gradient_bits} == {32}
    assert quant.activations == "abs"
    changed = differences(plain.config.to_json(), float_.config.to_json())
    assert all(line.startswith("quant.") for line in changed)


@pytest.mark.parametrize("activations", ["pact", "lsq", "lsq_plus", "apot"])
def test_every_cell_is_the_variant_that_it_says(activations):
    """Also with quantizers that learn: in 32 bits nothing of them is left to learn."""
    fields = {"quant__weights": "lsq", "quant__activations": activations, "quant__granularity": "channel"}
    cells = plan(variants=("plain", "expanded", "float"), **fields, quant__activation_bits=4).cells
    assert [variant_of(cell.config) for cell in cells] == ["plain", "expanded", "float"]
    roles = variable_roles(cells[2].config.architecture(10).plain(), (40, 40, 1))
    assert "quantizer" not in jax.tree.leaves(roles)


def test_a_grid_is_every_combination_for_every_seed():
    found = plan("quant.weights=dorefa,xnor", "model.width=0.05,0.1", seeds=2, train__seed=7)
    assert list(found.points) == [f"weights={w} width={x}" for w in ("dorefa", "xnor") for x in (0.05, 0.1)]
    assert found.seeds == (7, 8) and len(found.cells) == len(found.trainings()) == 16
    assert [cell.seed for cell in found.cells] == [7] * 8 + [8] * 8
    last = found.cells[-1]
    assert (last.config.quant.weights, last.config.model.width, last.config.train.seed) == ("xnor", 0.1, 8)
    assert last.folder == "cells/expanded_weights=xnor_width=0.1_8" and found.cells[0].folder == "cells/plain_7"


def test_fields_that_vary_together():
    found = plan("quant.weights+quant.weight_bits=dorefa+1,syq+2", "quant.activation_bits=1,2")
    assert [(c.config.quant.weights, c.config.quant.weight_bits) for c in found.cells[::2]] == [
        ("dorefa", 1), ("dorefa", 1), ("syq", 2), ("syq", 2),
    ]  # fmt: skip


def test_a_section_may_be_left_out_where_only_one_has_the_field():
    assert plan("weights+weight_bits=dorefa+1,syq+2", "width=0.1") == plan(
        "quant.weights+quant.weight_bits=dorefa+1,syq+2", "model.width=0.1"
    )


def test_what_a_variant_does_not_use_is_trained_once():
    """The plain network has no merge: one training serves all three points."""
    found = plan("expansion.merge=add,subtract,concat", seeds=2)
    assert len(found.cells) == 12
    folders = [cell.folder for cell in found.trainings()]
    assert len(folders) == 8 and folders.count("cells/plain_0") == 1
    plains = {cell.config for cell in found.cells if cell.folder == "cells/plain_0"}
    assert len(plains) == 1


def test_one_folder_is_one_config():
    axes = ("quant.weights+quant.weight_bits=xnor+1,syq+2", "factor.name=cosine,linear", "factor.order=together,front")
    cells = plan(*axes, variants=("plain", "expanded", "float"), seeds=2).cells
    assert len({cell.folder for cell in cells}) == len({(cell.folder, cell.config) for cell in cells})


def test_illegal_combinations_are_refused_or_named_and_left_out():
    axes = ("quant.weights=dorefa,xnor", "quant.weight_bits=1,2")
    with pytest.raises(UserError, match="weights=xnor weight_bits=2: .*allow 1, 32; 1 of 4 combinations are illegal"):
        plan(*axes)
    found = plan(*axes, skip=True)
    assert len(found.points) == 3 and len(found.left_out) == 1 and "weights=xnor weight_bits=2" in found.left_out[0]
    with pytest.raises(UserError, match="quant.weight_bits=2: weights xnor allow 1, 32$"):
        plan("quant.weight_bits=2", skip=True, quant__weights="xnor")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: plan("quant.wieghts=dorefa"), "quant.wieghts: unknown.*did you mean weights"),
        (lambda: plan("qant.weights=dorefa"), "unknown section qant; did you mean quant"),
        (lambda: plan("name=svhn"), "vary name: several sections have it; allowed: data.name, model.name, factor.name"),
        (lambda: plan("weigths=dorefa"), "unknown section weigths"),
        (lambda: plan("seed=1,2"), "vary train.seed: seeds are counted"),
        (lambda: plan("model.width=0.1", "width=0.2"), "--vary model.width: given twice"),
        (lambda: plan("quant.weights"), "found nothing, allowed 1 value"),
        (lambda: plan("quant.weights=xnor,"), "found nothing"),
        (lambda: plan("quant.weights+quant.weight_bits=xnor+1,syq"), "found syq, allowed 2 value"),
        (lambda: plan("quant.weight_bits=one"), "quant.weight_bits=one: allowed int"),
        (lambda: plan("expansion.norm=yes"), "expansion.norm=yes: allowed bool"),
        (lambda: plan("data.mean=1.0"), "a list of numbers"),
        (lambda: plan("train.seed=1,2"), "counted by --seeds"),
        (lambda: plan("model.width=0.1", "model.width=0.2"), "--vary model.width: given twice"),
        (lambda: plan("model.width=0.1,0.1"), "a value is there twice"),
        (lambda: plan(variants=("plain", "expnet")), "expnet is unknown; did you mean expanded"),
        (lambda: plan(variants=("plain", "plain")), "at most once"),
        (lambda: plan(seeds=0), "--seeds 0: allowed 1 or more"),
        (lambda: plan(factor__name="constant"), "factor.name=constant, factor.value=0.0: found no decay"),
        (lambda: plan("factor.name=constant", factor__value=0.0), "found no decay"),
        (lambda: parse([*DEMO, "--out", "x", "--workdir", "y"]), "workdir"),
        (lambda: parse([*DEMO, "--out", "x", "--reestimate=-1"]), "reestimate=-1: -1 is not a non-negative integer"),
        (lambda: parse([*DEMO, "--out", "x", "--seeds", "few"]), "seeds=few"),
        (lambda: parse([*DEMO, "--out", "x", "cat"]), "cat: not understood; allowed: --config FILE.*--out"),
        (lambda: parse(DEMO), "--out DIR: missing"),
    ],
)
def test_mistakes_are_one_line(make, message):
    with pytest.raises(UserError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_the_commands_give_the_settings(tmp_path):
    """What the report tells to type, typed, is the cell: beside the file's fields and the user's own."""
    (tmp_path / "config.py").write_text(CONFIG)
    config = str(tmp_path / "config.py")
    base = select(config, {"optimizer.boundaries": "(0.3,)", "optimizer.schedule": "step"}).config
    axes = [parse_axis("quant.weights+quant.weight_bits=xnor+1,syq+2"), parse_axis("expansion.leave=True,False")]
    found = make_plan(base, axes, ("plain", "expanded", "float"), 2)
    trainings = trainings_of(found, config, tmp_path / "out")
    assert len(trainings) == 2 * (2 + 4 + 1)
    for training in trainings[::3]:
        assert training.command[:2] == ("plq", "train")
        given = parse_training(list(training.command[2:]))
        assert given.config == training.cell.config and given.workdir == training.folder
    assert isinstance(base, Config) and base.data.pad == 2
