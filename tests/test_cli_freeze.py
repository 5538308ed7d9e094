"""From a stripped model to one file, as a person does it: checked, described, refused in one line."""

import dataclasses
import json

import numpy as np
import pytest
from frozen import some_variables, with_statistics
from networks import architecture, digit_images
from PIL import Image
from runs import tiny_config

import plq
from plq.checkpoint.model_file import read_model, write_model
from plq.cli import evaluate, freeze, info, predict
from plq.config.load import build_config
from plq.data.digits import load_digits
from plq.errors import UserError
from plq.report.model_card import MARK
from plq.runtime import file_format, freezing
from plq.trainer import image_comparison

ARCHITECTURE = architecture("dorefa", 2, width=0.05)
CLASSES = tuple(map(str, range(10)))


def description(**config):
    config = build_config(tiny_config(data__data_dir="/home/someone", **config)).to_json()
    return {
        "architecture": ARCHITECTURE.to_json(),
        "image_shape": [40, 40, 1],
        "mean": [0.0],
        "std": [256.0],
        "class_names": list(CLASSES),
        "fit": "square",
        "training": {"step": 3, "config": config},
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A stripped model of digits."""
    network, images = ARCHITECTURE.plain(), digit_images(100)
    variables = with_statistics(network, some_variables(network, (40, 40, 1)), images)
    path = tmp_path_factory.mktemp("stripped") / "model"
    write_model(path, variables, description())
    return path


@pytest.fixture(scope="module")
def frozen(source):
    """The frozen model beside it, and what the program printed."""
    out = source.parent / "digits.plq"
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lambda *text, **_: lines.append(" ".join(map(str, text))))
        freeze.main(["--model", str(source), "--out", str(out)])
    return out, "\n".join(lines)


def test_top_1_is_that_of_the_stripped_model_on_the_whole_test_set(source, frozen, capsys):
    path, printed = frozen
    evaluate.main(["--model", str(source)])
    evaluate.main(["--model", str(path)])
    stripped, packed = (line.split(": ", 1)[1] for line in capsys.readouterr().out.splitlines())
    assert stripped == packed
    facts = plq.load(path).training["freezing"]
    assert facts["images"] == 360 and facts["other_class"] == 0 and "changed_by_last_bits" not in facts
    assert facts["accuracy_before"] == facts["accuracy_after"] and facts["largest_difference"] < 1e-3
    assert f"wrote {path} and {path.with_suffix('.md')}" in printed


def test_info_says_what_is_in_it(frozen, capsys):
    path, printed = frozen
    info.main([str(path)])
    text = capsys.readouterr().out
    assert text.strip() in printed
    conv2 = next(line for line in text.splitlines() if line.startswith("conv2"))
    assert conv2.split() == ["conv2", "conv", "3x3", "2", "2", "18x18x3", "81", "25", "324"]
    for words in ("40x40, 1 channel", "digits, split the usual one", "360 images", "cosine, 0 from 50 % of the run on"):
        assert words in text
    with pytest.raises(UserError, match="does not exist, allowed a frozen model; make one with"):
        info.main([str(path.with_name("gone.plq"))])


def test_the_card_is_of_facts(frozen):
    path, _ = frozen
    card, facts = path.with_suffix(".md").read_text(), plq.load(path).training["freezing"]
    assert card.startswith(MARK) and f"| Accuracy | {100 * facts['accuracy_before']:.2f} % before freezing" in card
    assert "| conv2 | conv 3x3 | 2 | 2 | 18x18x3 | 81 | 25 | 324 |" in card
    assert 'plq.load("digits.plq")' in card


def test_nothing_of_the_machine_is_in_it(frozen):
    """Not the folders of its data."""
    assert b"/home/someone" not in frozen[0].read_bytes()
    assert "/home/someone" not in frozen[0].with_suffix(".md").read_text()


def test_predict_takes_it(source, frozen, tmp_path, capsys):
    Image.fromarray(load_digits()[0][-1][:, :, 0]).save(tmp_path / "digit.png")
    for model in (source, frozen[0]):
        predict.main(["--model", str(model), str(tmp_path / "digit.png")])
    stripped, packed = capsys.readouterr().out.splitlines()
    assert stripped == packed


def test_load_gives_the_logits_of_the_stripped_model(source, frozen):
    model, images = plq.load(frozen[0]), load_digits()[0][-7:]
    wanted = freezing.read_source(source).served(images)
    assert wanted.shape == (7, 10) and model.class_names == CLASSES
    np.testing.assert_allclose(model(images), wanted, rtol=1e-4, atol=1e-4)


def test_without_the_data_it_is_compared_on_noise_and_says_so(source, tmp_path, capsys):
    variables, found = read_model(source)
    found["training"]["config"]["data"]["name"] = "no_such_set"
    write_model(tmp_path / "model", variables, found)
    freeze.main(["--model", str(tmp_path / "model"), "--out", str(tmp_path / "m.plq")])
    assert "not compared on test images: " in capsys.readouterr().out
    assert "| Accuracy | not measured |" in (tmp_path / "m.md").read_text()
    with pytest.raises(UserError, match="no_such_set"):  # asked for, it must be there
        freeze.main(["--model", str(tmp_path / "model"), "--out", str(tmp_path / "n.plq"), "--split", "test"])
    assert not (tmp_path / "n.plq").exists()


def damaged(model, monkeypatch, change):
    """Freezing writes down another network than the one it is given."""
    honest = freezing.freeze_model
    monkeypatch.setattr(freezing, "freeze_model", lambda source: change(honest(source)))


def test_a_file_that_computes_something_else_is_not_written(source, tmp_path, monkeypatch):
    def change(found):
        tensors = {**found.graph.tensors}
        tensors["conv4/norm/shift"] = tensors["conv4/norm/shift"] + np.float32(0.2)
        return dataclasses.replace(found, graph=dataclasses.replace(found.graph, tensors=tensors))

    damaged(source, monkeypatch, change)
    out = tmp_path / "m.plq"
    with pytest.raises(
        UserError, match="differ beyond ties for a noise image, first at conv4/act, in .*nothing was wri"
    ):
        freeze.main(["--model", str(source), "--out", str(out)])
    monkeypatch.setattr(freezing, "compare_on_noise", lambda *_: None)
    with pytest.raises(
        UserError, match=r"another class to \d+ of 360 images, allowed \d+; nothing was|beyond ties for a t"
    ):
        freeze.main(["--model", str(source), "--out", str(out)])
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_last_bits_decide_is_frozen_all_the_same(source, tmp_path, monkeypatch):
    """All its classes are alike up to float arithmetic, so the class of an image says nothing about the file."""
    variables, found = read_model(source)
    dense = variables["params"]["dense"]["conv"]
    dense["kernel"] = np.repeat(dense["kernel"][:, :1], 10, 1) * (1 + 1e-7 * np.arange(10, dtype=np.float32))
    dense["bias"] = np.zeros(10, np.float32)
    write_model(tmp_path / "model", variables, found)
    given = ["--model", str(tmp_path / "model"), "--out", str(tmp_path / "m.plq")]
    freeze.main(given)
    monkeypatch.setattr(image_comparison, "unstable_images", lambda *given: 0)
    with pytest.raises(UserError, match=r"another class to \d+ of 360 images, allowed 3; nothing was written"):
        freeze.main(given)
    facts = plq.load(tmp_path / "m.plq").training["freezing"]
    assert facts["other_class"] > 3 and 2 * facts["changed_by_last_bits"] >= facts["other_class"]
    unstable = f"images; unstable: changing the last bit of its numbers changes {facts['changed_by_last_bits']} |"
    assert f"| Other class | {facts['other_class']} {unstable}" in (tmp_path / "m.md").read_text()


def test_products_in_bfloat16_are_frozen_exactly(source, tmp_path):
    variables, found = read_model(source)
    found["architecture"]["precision"]["dtype"] = "bfloat16"
    write_model(tmp_path / "model", variables, found)
    rough = freezing.read_source(tmp_path / "model")
    exact = freezing.read_source(source)
    images = digit_images(9)
    assert rough.served is not rough.exact and exact.served is exact.exact
    np.testing.assert_array_equal(rough.exact(images), exact.served(images))
    assert not np.array_equal(rough.served(images), rough.exact(images))


def test_what_cannot_be_frozen_is_one_line(source, frozen, tmp_path):
    variables, found = read_model(source)
    write_model(tmp_path / "unstripped", {**variables, "ancillary": {"a": np.ones(2)}}, found)
    (tmp_path / "notes.md").write_text("mine")
    (tmp_path / "photo.plq").write_text("cat")
    for model, out, message in (
        (tmp_path / "unstripped", "m.plq", "not stripped, 1 ancillary leaves"),
        (tmp_path / "gone", "m.plq", "does not exist"),
        (frozen[0], "m.plq", "is a file, allowed a model folder"),
        (source, "m.onnx", r"m.onnx: allowed a name that ends in .plq"),
        (source, "photo.plq", "is there and is not a frozen model; it is left alone"),
        (source, "notes.plq", "notes.md: is there and is not a model card; it is left alone"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            freeze.main(["--model", str(model), "--out", str(tmp_path / out)])
        assert "\n" not in str(caught.value) and not (tmp_path / "m.plq").exists()
    assert (tmp_path / "notes.md").read_text() == "mine" and (tmp_path / "photo.plq").read_text() == "cat"


def test_a_model_of_unknown_origin_is_described_as_such(frozen, tmp_path, capsys):
    """Files can be written by others: nothing is taken for granted."""
    honest = file_format.read(frozen[0])
    for training in ({}, {"config": 3}, {"config": {"data": []}}, {"freezing": {"images": "many"}}):
        path = tmp_path / "other.plq"
        file_format.write(path, file_format.encode(dataclasses.replace(honest, training=training)))
        info.main([str(path)])
        assert "not recorded" in capsys.readouterr().out
        with pytest.raises(UserError):
            evaluate.main(["--model", str(path)])


def test_the_same_model_gives_the_same_file(source, frozen, tmp_path):
    freeze.main(["--model", str(source), "--out", str(tmp_path / "digits.plq")])
    assert (tmp_path / "digits.plq").read_bytes() == frozen[0].read_bytes()
    assert json.dumps(plq.load(frozen[0]).training)
