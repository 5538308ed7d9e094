"""Every format, run by its own runtime on real digits; what a wrong export and wrong arguments are met with."""

import dataclasses
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import onnx
import pytest
from frozen_models import CHANNELS, digits, frozen_model, small_model
from PIL import Image
from runs import tiny_config

from plq.cli.export import main
from plq.config.load import build_config
from plq.errors import UserError
from plq.exporters import check, formats, qdq, stablehlo
from plq.exporters.check import Exported, compare
from plq.exporters.formats import FORMATS, export_onnx
from plq.exporters.qonnx import QONNX, signed_bits
from plq.exporters.running import feed, onnx_session, operations_of
from plq.runtime.file_format import encode, write
from plq.runtime.frozen import from_frozen
from plq.runtime.grid import Grid
from plq.runtime.nodes import Product
from plq.runtime.pack import pack

IMAGES = 16
NETS = {  # network, size, width, weights, bits, activations, bits; how many layers run on integers, of how many
    "dorefa 1/2": (("svhn", 40, 0.125, "dorefa", 1, "clip", 2), 6, 8),
    "xnor 1/1 abs": (("svhn", 40, 0.125, "xnor", 1, "abs", 1), 6, 8),
    "syq 2/2": (("svhn", 40, 0.125, "syq", 2, "clip", 2), 0, 8),
    "apot 3/3": (("svhn", 40, 0.125, "apot", 3, "apot", 3), 6, 8),
    "lsq 4/lsq+ 3": (("svhn", 40, 0.125, "lsq", 4, "lsq_plus", 3), 1, 8),
    "resnet20 dorefa 2/2": (("resnet20", 32, 0.25, "dorefa", 2, "clip", 2), 16, 22),
    "resnet20 lsq 2/2": (("resnet20", 32, 0.25, "lsq", 2, "lsq", 2), 16, 22),
    "mobilenet sawb 4/pact 4": (("mobilenet_v1", 32, 0.125, "sawb", 4, "pact", 4), 26, 28),
    "float weights/lsq 4": (("svhn", 40, 0.125, "dorefa", 32, "lsq", 4), 0, 8),
    "alexnet dorefa 1/2": (("alexnet", 96, 0.0625, "dorefa", 1, "clip", 2), 6, 8),
}
SMALL = {
    "1 bit": {},
    "wide": {"weights": Grid(7, -63.5), "inputs": Grid(8), "activation": {"grid": Grid(8), "scale": 1 / 64}},
    "abs": {"activation": {"nonlinearity": "abs"}},
    "residual": {"residual": True},
    "levels": {"activation": {"grid": Grid(2, 0.0, (0, 1, 2, 4))}},
    "offset": {"activation": {"grid": Grid(2, -1.0)}, "weights": Grid(2, -1.5)},
    "rows": {"scale_shape": (3, 1, 1, 1)},
    "hard swish": {"activation": {"nonlinearity": "hard_swish", "grid": Grid(2, -1.0)}},
    "residual of another grid": {"residual": True, "inputs": Grid(2, -1.0)},
    "residual and |x|": {"residual": True, "activation": {"nonlinearity": "abs"}},
}


EIGHT_BITS = {**SMALL["wide"], "activation": {"grid": Grid(8), "scale": 1 / 64, "divisor": 1 / 64}}


def exported(name: str, model, folder: Path, preprocessing: bool = False, **options: bool):
    """The export of a model, and its file."""
    export = FORMATS[name](model, preprocessing, **options)
    file = folder / "exported"
    file.write_bytes(export.data)
    return export, file


@pytest.mark.parametrize("net", NETS)
def test_onnx_does_what_the_model_does_on_integer_kernels(net, tmp_path):
    fields, integer, layers = NETS[net]
    model = frozen_model(*fields)
    export, file = exported("onnx", model, tmp_path, fast=True)
    onnx.checker.check_model(str(file), full_check=True)
    assert compare(model, export.run(file), digits(IMAGES, fields[1])).ties <= 2
    assert export.notes[-1] == f"ONNX opset 17; {integer} of {layers} layers on integer kernels"
    found = Counter(operations_of(file))
    assert found["QLinearConv"] + found["QGemm"] + found["MatMulInteger"] == integer
    assert found["Conv"] + found["FusedConv"] + found["Gemm"] + found["FusedGemm"] == layers - integer


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("rounding", ["half_up", "half_even"])
def test_ties_go_where_the_network_takes_them(name, rounding, tmp_path):
    """Pixels p are coded as round(p / 4): one in four is a tie."""
    model = small_model(inputs=Grid(6))
    codes = dataclasses.replace(model.frozen.graph.nodes[2], rounding=rounding, scale=1 / 64, divisor=1 / 64)
    nodes = (*model.frozen.graph.nodes[:2], codes, *model.frozen.graph.nodes[3:])
    tensors = {**model.frozen.graph.tensors, "stem/kernel": np.ones((1, 1, 1, CHANNELS), np.float32)}
    graph = dataclasses.replace(model.frozen.graph, nodes=nodes, tensors=tensors)
    model = from_frozen(dataclasses.replace(model.frozen, graph=graph))
    images = np.random.default_rng(0).integers(0, 256, (64, 9, 9, 1), np.uint8)
    export, file = exported(name, model, tmp_path)
    assert compare(model, export.run(file), images).ties == 0


def test_a_grid_that_uint8_cannot_hold_is_refused():
    model = small_model(activation={"grid": Grid(2, 1.0)})
    with pytest.raises(UserError, match=r"node act .*found integers from 1 to 4, allowed codes from 0 to 255 with a"):
        FORMATS["onnx"](model, False)


@pytest.mark.parametrize("net", [net for net in NETS if not net.startswith("alexnet")])
def test_qonnx_does_what_the_model_does(net, tmp_path):
    fields = NETS[net][0]
    model = frozen_model(*fields)
    export, file = exported("qonnx", model, tmp_path)
    assert compare(model, export.run(file), digits(IMAGES, fields[1])).ties <= 2


@pytest.mark.parametrize("net", ["dorefa 1/2", "apot 3/3", "syq 2/2"])
def test_stablehlo_does_what_the_model_does_in_packed_bits(net, tmp_path):
    fields = NETS[net][0]
    model = frozen_model(*fields)
    export, file = exported("stablehlo", model, tmp_path)
    assert compare(model, export.run(file), digits(IMAGES, fields[1])).ties == 0
    weights = sum(tensor.size for tensor in model.frozen.graph.tensors.values() if tensor.dtype == np.uint8)
    assert net != "dorefa 1/2" or len(export.data) < weights / 8 + 30 * 1024  # a bit for each, and the program
    assert b".py" not in export.data  # nor any other path of this machine
    program = jax.export.deserialize(bytearray(export.data)).mlir_module()
    arrays = re.findall(r"constant dense<.*> : tensor<(\d+)xui8>", program)
    graph = model.frozen.graph
    layers = [node for node in graph.nodes if isinstance(node, Product) and node.grid is not None]
    groups = [(-(-graph.tensors[node.tensor("kernel")].size // 8), node.grid.bits) for node in layers]
    assert layers and sorted(map(int, arrays)) == sorted(eights * bits for eights, bits in groups)


@pytest.mark.parametrize("case", SMALL)
@pytest.mark.parametrize("name", FORMATS)
def test_every_kind_of_unit_in_every_format(name, case, tmp_path):
    fields = {**SMALL[case]}
    if fields.get("activation", {}).get("scale"):
        fields["activation"] = {**fields["activation"], "divisor": fields["activation"]["scale"]}
    model = small_model(**fields)
    export, file = exported(name, model, tmp_path)
    assert compare(model, export.run(file), digits(64, 9)).ties <= 1


def test_what_would_saturate_without_vnni_is_stored_as_uint8():
    for case, expected in (("1 bit", onnx.TensorProto.INT8), ("wide", onnx.TensorProto.UINT8)):
        activation = {"grid": Grid(8), "scale": 1 / 64, "divisor": 1 / 64} if case == "wide" else None
        model = small_model(**{**SMALL[case], "activation": activation})
        graph = onnx.ModelProto.FromString(export_onnx(model, False, fast=True).data).graph
        assert {tensor.name: tensor.data_type for tensor in graph.initializer}["conv/kernel"] == expected


@pytest.mark.parametrize("net", ["mobilenet sawb 4/pact 4", "syq 2/2"])
def test_float_layers_add_integers_up_exactly(net, tmp_path):
    """But for the first layer, and scales per position; what is left are ties in the codes of these."""
    fields = NETS[net][0]
    model = frozen_model(*fields)
    export, file = exported("onnx", model, tmp_path)
    images = digits(IMAGES, fields[1])
    assert compare(model, export.run(file), images).top1 == IMAGES
    rounds = sum(node.op_type == "Round" for node in onnx.load(file).graph.node)
    assert rounds == export.notes[0].count("would be misplaced") == (0 if net.startswith("syq") else 5)


def test_sums_that_float32_cannot_hold_are_added_in_real_numbers(tmp_path):
    """Weights to 2**11 times codes to 255, nine positions of eight channels: more than 2**24."""
    model, images = small_model(weights=Grid(1, -(2.0**11), (0, 2**12)), inputs=Grid(8)), digits(64, 9)
    export, file = exported("onnx", model, tmp_path)
    assert not [node for node in onnx.load(file).graph.node if node.op_type == "Round"]
    assert compare(model, export.run(file), images).ties <= 1


def test_only_the_fast_file_has_misplaced_steps(tmp_path):
    model, images = small_model(**EIGHT_BITS), digits(64, 9)
    fast, exact = (export_onnx(model, False, fast) for fast in (True, False))
    assert fast.remedy == "without --fast no step is misplaced" and not exact.remedy
    assert "would be misplaced" in exact.notes[0] and "would be misplaced" not in fast.notes[0]
    assert exact.notes[-1].endswith("; --fast puts 1 more there, with misplaced steps")
    (tmp_path / "exact.onnx").write_bytes(exact.data)
    run = exact.run(tmp_path / "exact.onnx")
    assert not any(run.slack.values())
    verdict = compare(model, run, images)
    assert verdict.ties <= 1 and verdict.top1 == 64


def test_a_file_that_breaks_the_rule_is_refused_with_the_remedy(file, monkeypatch):
    wrong_scale(monkeypatch)
    config = build_config(tiny_config(data__image_size=9)).to_json()
    write(file, encode(small_model({"config": config}, **EIGHT_BITS).frozen))
    with pytest.raises(UserError, match="; without --fast no step is misplaced$"):
        main(["--format", "onnx", "--fast", "--model", str(file), "--out", str(file.parent / "out")])


@pytest.mark.parametrize("preprocessing", [False, True])
def test_a_batch_of_any_size_and_pixels_or_normalized_images(preprocessing, tmp_path):
    model, images = small_model(), digits(7, 9)
    _, file = exported("onnx", model, tmp_path, preprocessing)
    session = onnx_session(file.read_bytes())
    given = session.get_inputs()[0]
    shape = ["batch", 9, 9, 1] if preprocessing else ["batch", 1, 9, 9]
    assert ((given.name, given.shape) == ("image", shape) and "uint8" in given.type) or not preprocessing
    made = qdq.QDQ(model.frozen.graph, preprocessing)
    whole = session.run(None, feed(made, images))[0]
    single = np.concatenate([session.run(None, feed(made, images[i : i + 1]))[0] for i in range(7)])
    np.testing.assert_allclose(single, whole, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(whole, model(images), rtol=1e-5, atol=1e-5)
    found = {prop.key: json.loads(prop.value) for prop in onnx.load(file).metadata_props}
    assert found["plq.class_names"] == list("0123456789") and found["plq.std"] == [256.0]


def test_stablehlo_is_loaded_without_plq(tmp_path):
    model, images = small_model(), digits(7, 9)
    _, file = exported("stablehlo", model, tmp_path)
    np.save(tmp_path / "images.npy", images)
    program = (
        "import sys, jax, numpy as np\n"
        "exported = jax.export.deserialize(bytearray(open(sys.argv[1], 'rb').read()))\n"
        "images = np.load(sys.argv[2])\n"
        "np.save(sys.argv[3], np.concatenate([exported.call(images[:1]), exported.call(images)]))\n"
        "assert exported.platforms == ('cpu', 'cuda', 'tpu') and 'plq' not in sys.modules"
    )
    given = [str(file), str(tmp_path / "images.npy"), str(tmp_path / "logits.npy")]
    subprocess.run([sys.executable, "-c", program, *given], check=True, cwd=tmp_path)
    found = np.load(tmp_path / "logits.npy")
    np.testing.assert_allclose(found, np.asarray(model(images))[[0, *range(7)]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bits", range(1, 9))
def test_codes_of_all_bits_are_unpacked(bits):
    codes = np.random.default_rng(bits).integers(0, 2**bits, (3, 7, 5)).astype(np.uint8)
    data = pack(codes, bits)
    padded = np.pad(data, (0, -len(data) % bits))
    np.testing.assert_array_equal(stablehlo.unpacked(padded, bits, codes.shape), codes)


def test_qonnx_bits_are_those_of_the_network(tmp_path):
    """Unsigned activations of their bits behind a Relu; weights without zero point; one bit is bipolar."""
    wanted = {"1 bit": (None, 2), "offset": (3, 2), "levels": (None, None)}
    for case, (weight_bits, activation_bits) in wanted.items():
        _, file = exported("qonnx", small_model(**SMALL[case]), tmp_path)
        graph = onnx.load(file).graph
        constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        nodes = {node.name: node for node in graph.node}
        weights, act = nodes.get("Quant:conv/quant"), nodes.get("Quant:act")
        assert (weights is None) == ("BipolarQuant:conv/quant" in nodes) == (weight_bits is None)
        if weights is not None:
            assert constants[weights.input[3]] == weight_bits and constants[weights.input[2]] == 0
            assert {"signed", "narrow", "rounding_mode"} == {attribute.name for attribute in weights.attribute}
        if activation_bits is not None:
            attributes = {attribute.name: attribute.i for attribute in act.attribute}
            assert constants[act.input[3]] == activation_bits and not attributes["signed"] | attributes["narrow"]
            before = next(node for node in graph.node if act.input[0] in node.output)
            assert before.op_type == ("Relu" if case == "1 bit" else "MaxPool")
        else:
            assert "MultiThreshold:act" in nodes


def test_signed_bits():
    ranges = [(-1, 1), (-2, 1), (-3, 3), (-7, 7), (-8, 7), (-128, 127), (-255, 255)]
    assert [signed_bits(*ends) for ends in ranges] == [(2, 1), (2, 0), (3, 1), (4, 1), (4, 0), (8, 0), (9, 1)]


def test_qonnx_survives_its_own_transformations(tmp_path):
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.change_batchsize import ChangeBatchSize
    from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
    from qonnx.transformation.infer_shapes import InferShapes
    from qonnx.transformation.lower_convs_to_matmul import LowerConvsToMatMul
    from qonnx.transformation.qcdq_to_qonnx import QCDQToQuant
    from qonnx.transformation.qonnx_to_qcdq import QuantToQCDQ
    from qonnx.util.cleanup import cleanup_model

    model, images = small_model(weights=Grid(2, -2.0)), digits(4, 9)
    _, file = exported("qonnx", model, tmp_path)
    given = feed(QONNX(model.frozen.graph, False), images)["image"]
    clean = lambda: cleanup_model(ModelWrapper(str(file)).transform(ChangeBatchSize(4)).transform(InferShapes()))
    there = lambda: cleanup_model(clean().transform(QuantToQCDQ()))
    variants = {
        "cleaned": clean(),
        "channels last": clean().transform(ConvertToChannelsLastAndClean()),
        "QCDQ and back": there().transform(QCDQToQuant()),
        "lowered": cleanup_model(ModelWrapper(str(file))).transform(LowerConvsToMatMul()),
    }
    assert {"QuantizeLinear", "Clip"} <= {node.op_type for node in there().graph.node}
    for name, wrapped in variants.items():
        count = 1 if name == "lowered" else 4
        found = execute_onnx(wrapped, {wrapped.graph.input[0].name: given[:count]})[wrapped.graph.output[0].name]
        np.testing.assert_allclose(found, np.asarray(model(images))[:count], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.fixture
def file(tmp_path):
    """A frozen model of 9x9 digits."""
    config = build_config(tiny_config(data__image_size=9)).to_json()
    path = tmp_path / "model.plq"
    write(path, encode(small_model({"config": config}).frozen))
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_the_program_writes_and_checks(name, file, capsys):
    out = file.parent / "new" / f"model.{name}"
    main(["--format", name, "--model", str(file), "--out", str(out)])
    printed = capsys.readouterr().out
    assert "run on 360 images: top-1 equal in 360, logits to" in printed and f"{out}: " in printed
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def wrong_scale(monkeypatch):
    right = qdq.requantize
    wrong = lambda *given: (found := right(*given)) and dataclasses.replace(found, scale=found.scale * np.float32(1.2))
    monkeypatch.setattr(qdq, "requantize", wrong)


def wrong_quant(monkeypatch):
    right = QONNX.quant
    monkeypatch.setattr(QONNX, "quant", lambda self, x, name, scale, *rest, **more: right(
        self, x, name, scale * np.float32(1.2), *rest, **more))  # fmt: skip


def wrong_bits(monkeypatch):
    right = stablehlo.unpacked
    monkeypatch.setattr(stablehlo, "unpacked", lambda data, *rest: right(data ^ 1, *rest))


def wrong_order(monkeypatch):
    monkeypatch.setattr(formats, "properties", lambda model: {})
    monkeypatch.setattr(qdq, "onnx_layout", lambda kernel: kernel.transpose(3, 2, 1, 0) if kernel.ndim == 4 else kernel)


@pytest.mark.parametrize(("name", "corrupt", "message"), [
    ("onnx", wrong_scale, r"image \d+: [\d,]+ of 200 codes of act differ, up to .* of a step from a tie, allowed"),
    ("onnx", wrong_order, "codes of act differ"),
    ("qonnx", wrong_quant, "differ"),
    ("stablehlo", wrong_bits, r"image \d+: logits differ by more than"),
])  # fmt: skip
def test_a_wrong_export_is_caught_and_nothing_is_left(name, corrupt, message, file, monkeypatch):
    corrupt(monkeypatch)
    with pytest.raises(UserError, match=message) as caught:
        main(["--format", name, "--model", str(file), "--out", str(file.parent / "out")])
    assert "\n" not in str(caught.value)
    assert [path.name for path in file.parent.iterdir()] == ["model.plq"]


def test_a_code_may_be_on_the_other_side_of_a_tie_only():
    """The code nearest to a tie in image 0 falls to the other side; how near that is decides."""
    model, images = small_model(), digits(8, 9)
    results, rounded = jax.device_get(jax.jit(model.runner.results)(model.runner.arrays, images))
    v, codes = rounded["act"][0], results["act"].copy()
    margins = np.where((v > 0) & (v < 3), np.abs(v - np.floor(v) - 0.5), 1)
    nearest = np.unravel_index(margins.argmin(), margins.shape)
    codes[0][nearest] = 2 * np.floor(v[nearest]) + 1 - codes[0][nearest]
    other = np.asarray(model(images)) * np.where(np.arange(8) == 0, 1.01, 1.0)[:, None]
    exported = Exported(lambda given: other, lambda given: {**results, "act": codes[: len(given)]})
    assert margins.min() > 2e-4
    with pytest.raises(UserError, match="image 0: 1 of 200 codes of act differ, up to .* of a step from a tie"):
        compare(model, exported, images)
    verdict = compare(model, dataclasses.replace(exported, slack={"act": margins.min()}), images)
    assert (verdict.images, verdict.ties, verdict.top1) == (8, 1, 8) and verdict.largest < 1e-6
    with pytest.raises(UserError, match="image 0: no code differs, but logits do"):
        compare(model, dataclasses.replace(exported, integers=lambda given: results), images[:8])


def test_ties_may_change_as_many_classes_as_last_bits_do(monkeypatch):
    """Image 0 gets other codes, ties all, and another class."""
    model, images = small_model(), digits(8, 9)
    results = model.results(images)[0]
    other = np.asarray(model(images)) * np.where(np.arange(8) == 0, -1.0, 1.0)[:, None]
    codes = {**results, "act": 3 - results["act"][:1]}
    exported = Exported(lambda given: other, lambda given: codes, {"act": 99.0})
    batches = [images[:5], images[5:]]
    classes = np.asarray(model(images)).argmax(1)
    assert check.unstable_images(model, batches, classes) == 0
    assert check.unstable_images(model, batches, classes + 1) == 8
    with pytest.raises(UserError, match="top-1 differs in 1 of 8 images, allowed 0"):
        compare(model, exported, images)
    monkeypatch.setattr(check, "unstable_images", lambda *given: 1)
    assert compare(model, exported, images).top1 == 7


def test_without_images_nothing_is_written_unless_asked_for(tmp_path, capsys):
    path, out = tmp_path / "model.plq", tmp_path / "model.onnx"
    write(path, encode(small_model().frozen))
    given = ["--format", "onnx", "--model", str(path), "--out", str(out)]
    with pytest.raises(UserError, match="could not check the export, nothing is written: .*give --images"):
        main(given)
    assert not out.exists()
    main([*given, "--unchecked"])
    assert out.exists() and "not checked: no images" in capsys.readouterr().out
    Image.fromarray(digits(1, 9)[0, :, :, 0]).save(tmp_path / "digit.png")
    main([*given, "--images", str(tmp_path / "digit.png")])
    assert "run on 1 images: top-1 equal in 1" in capsys.readouterr().out


@pytest.mark.parametrize(("given", "message"), [
    (["--format", "tflite"], "invalid choice: 'tflite'.*onnx.*qonnx.*stablehlo"),
    (["--count", "0"], "--count 0: allowed 1 or more"),
    (["--data_dir", "d", "--images", "a.png"], "--data_dir: has no effect with --images"),
    (["--format", "qonnx", "--fast"], "--fast: has no effect with --format qonnx"),
    (["--images", "gone.png"], "gone.png: cannot be read"),
    (["--out", "."], "--out .: is a folder"),
    (["--model", "gone"], "gone: does not exist"),
    (["--format", "stablehlo", "--with_preprocessing"], "--with_preprocessing: has no effect with --format stablehlo"),
])  # fmt: skip
def test_wrong_arguments_are_one_clear_line(given, message, file):
    usual = {"--format": "onnx", "--model": str(file), "--out": str(file.parent / "out")}
    rest = [part for pair in usual.items() if pair[0] not in given for part in pair]
    with pytest.raises(UserError, match=message) as caught:
        main([*rest, *given])
    assert "\n" not in str(caught.value) and not (file.parent / "out").exists()


@pytest.mark.parametrize(("name", "module"), [("onnx", "onnxruntime"), ("qonnx", "qonnx")])
def test_a_missing_extra_says_how_to_get_it(name, module, file, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    message = rf"--format {name}: needs .*{module} is not installed; pip install 'plq\[{name}\]'"
    with pytest.raises(UserError, match=message):
        main(["--format", name, "--model", str(file), "--out", str(file.parent / "out")])
