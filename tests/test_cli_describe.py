"""The cost table against figures computed by hand and published ones, and the program as it is used."""

import json

import pytest
from tfds_sets import noise, write_set

from plq.cli import describe
from plq.errors import UserError
from plq.layers.cost import cost_table
from plq.layers.describe import layer_table
from plq.layers.factory import QuantConfig
from plq.models.registry import Architecture

RESNET20 = ["--config", "configs/cifar10_resnet20.py:w2a2", "--config.model.block=post"]


def costs(name, classes, size, precision=None, **options):
    network = Architecture(name, classes, precision or QuantConfig(weight_bits=4, activation_bits=4), **options).plain()
    return {cost.layer.name: cost for cost in cost_table(network, (size, size, 3))}


def by_hand_resnet20():
    """Stem, three stages of six 3x3 convolutions (each stage the same work but for its first), dense."""
    stage = 32 * 32 * 9 * 16 * 16
    return 32 * 32 * 27 * 16 + 6 * stage + 2 * (stage // 2 + 5 * stage) + 640


@pytest.mark.parametrize(
    ("name", "classes", "size", "options", "macs"),
    [
        ("resnet20", 10, 32, {"shortcut": "padding"}, by_hand_resnet20()),
        ("resnet20", 10, 32, {"shortcut": "padding", "block": "bireal"}, by_hand_resnet20()),
        ("resnet20", 10, 32, {}, by_hand_resnet20() + 16 * 16 * 16 * 32 + 8 * 8 * 32 * 64),
        ("resnet18", 1000, 224, {}, 1_814_073_344),
        ("resnet50", 1000, 224, {"block": "pre"}, 4_089_184_256),
        ("mobilenet_v1", 1000, 224, {}, 568_740_352),
        ("mobilenet_v2", 1000, 224, {}, 300_774_272),
    ],
)
def test_multiply_accumulates_are_the_published_ones(name, classes, size, options, macs):
    assert sum(cost.layer.macs for cost in costs(name, classes, size, **options).values()) == macs


def test_alexnet_by_hand():
    found = costs("alexnet", 1000, 224, QuantConfig(weight_bits=1, activation_bits=2))
    products = {
        "conv0": (54 * 54 * 12 * 12 * 3 * 96, 32, 8),
        "conv1": (54 * 54 * 5 * 5 * 48 * 256, 1, 2),
        "conv2": (27 * 27 * 3 * 3 * 256 * 384, 1, 2),
        "conv3": (14 * 14 * 3 * 3 * 192 * 384, 1, 2),
        "conv4": (14 * 14 * 3 * 3 * 192 * 256, 1, 2),
        "fc0": (6 * 6 * 256 * 4096, 1, 2),
        "fc1": (4096 * 4096, 1, 2),
        "dense": (4096 * 1000, 32, 2),
    }
    for name, (macs, weight_bits, input_bits) in products.items():
        cost = found[name]
        assert (cost.layer.macs, cost.layer.weight_bits, cost.input_bits) == (macs, weight_bits, input_bits)
        assert cost.bit_operations == macs * weight_bits * input_bits


def test_inputs_are_counted_at_the_bits_they_have():
    found = costs("mobilenet_v2", 10, 64, QuantConfig(weight_bits=3, activation_bits=2, first_bits=8, last_bits=8))
    assert (found["stem"].layer.weight_bits, found["stem"].input_bits) == (8, 8)
    assert [found[name].input_bits for name in ("block0_depthwise", "block3_widen", "top")] == [2, 2, 2]
    assert (found["block3_entry"].input_bits, found["block3_entry"].layer.macs) == (32, 0)  # the stream in float
    assert (found["dense"].layer.weight_bits, found["dense"].input_bits) == (8, 32)  # a mean is on no grid
    floats = costs("resnet18", 10, 64, QuantConfig(weight_bits=32, activation_bits=32, activations="relu"))
    assert {cost.input_bits for name, cost in floats.items() if name != "stem"} == {32}


@pytest.mark.parametrize(("name", "options"), [("resnet20", {"block": "pre"}), ("mobilenet_v2", {}), ("svhn", {})])
def test_every_layer_is_counted_once(name, options):
    """In the order of the expanded network's table, whose variables are all of them."""
    architecture = Architecture(name, 10, QuantConfig(activations="lsq"), width=0.25, **options)
    rows = layer_table(architecture.expanded("concat", 1.0), (64, 64, 3))
    assert [cost.layer.name for cost in cost_table(architecture.plain(), (64, 64, 3))] == [row.name for row in rows]


def test_the_program_prints_sums(capsys, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "/nowhere")
    describe.main(RESNET20)
    lines = capsys.readouterr().out.splitlines()
    stem = " ".join(lines[2].split())
    assert stem == "stem conv 3x3 32 8 2 32x32x16 464 1,984 1,984 1,984 442,368 113,246,208"
    packed = 6 * 2304 // 4 + (4608 + 5 * 9216) // 4 + (18432 + 5 * 36864) // 4  # 2-bit kernels
    norms, edges = 4 * 4 * (7 * 16 + 6 * 32 + 6 * 64), 4 * (432 + 650)
    operations = (40_551_040 - 442_368 - 640) * 4 + 442_368 * 32 * 8 + 640 * 32 * 32
    assert lines[-3].split()[-3:] == [f"{n:,}" for n in (packed + norms + edges, 40_551_040, operations)]
    assert lines[-1] == f"per image: 40,551,040 multiply-accumulates, {operations:,} bit operations"


def test_json_says_the_same_and_fields_count(capsys):
    describe.main([*RESNET20, "--json", "--config.quant.weight_bits=1", "--image_shape=16,16,3"])
    found = json.loads(capsys.readouterr().out)
    assert (found["network"], found["image_shape"], found["num_classes"]) == ("resnet20", [16, 16, 3], 10)
    assert found["layers"][1]["weight_bits"] == 1 and found["layers"][1]["macs"] == 16 * 16 * 9 * 16 * 16
    for name, value in found["total"].items():
        assert value == sum(layer[name] for layer in found["layers"])
    kernels = sum(layer["ancillary_parameters"] for layer in found["layers"])
    assert found["total"]["bytes_training"] > found["total"]["bytes_float32"] + 4 * kernels


def test_a_run_that_starts_plain_trains_no_branch(capsys):
    describe.main([*RESNET20, "--json", "--config.factor.name=constant"])
    total = json.loads(capsys.readouterr().out)["total"]
    assert total["bytes_training"] == total["bytes_float32"] and total["ancillary_parameters"] == 0


def test_a_set_on_disk_says_its_shape(tmp_path, capsys):
    folder = write_set(tmp_path, {"train": noise(3, (48, 40, 1))}, name="mine")
    fields = ["--config.data.name=mine", f"--config.data.data_dir={folder}"]
    capsys.readouterr()  # what TFDS said
    describe.main([*RESNET20, "--json", *fields])
    found = json.loads(capsys.readouterr().out)
    assert (found["image_shape"], found["num_classes"]) == ([48, 40, 1], 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.data.name=mine"], "data.name=mine: not found in .*--image_shape=H,W,C and --num_classes=N"),
        (["--config.data.name=mine", "--num_classes=7"], "data.name=mine: not found in .*--image_shape=H,W,C"),
        (["--config.data.name=imagenette"], "data.name=imagenette: its images vary in size; give --image_shape=H,W,C"),
        (["--image_shape=32,32"], "--image_shape=32,32: allowed height, width and channels"),
        (["--image_shape=32,0,3"], "--image_shape=32,0,3: allowed height, width and channels"),
        (["--num_classes=0"], "num_classes"),
        (["--jsn"], "jsn"),
        (
            ["--config.model.name=alexnet", "--config.model.shortcut=projection"],
            "found images of 32x32, alexnet takes 96x96 or more",
        ),
        (["--config.model.name=resnet50", "--config.model.block=bireal"], "model.block=bireal: found a network of"),
        (["--config.model.stride=16"], "model.stride=16: resnet20 has no stride"),
        (["more"], "more: not understood; allowed: --config FILE, .*--image_shape, --num_classes, --json"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "/nowhere")
    with pytest.raises(UserError, match=message) as caught:
        describe.main([*RESNET20, *arguments])
    assert "\n" not in str(caught.value)


def test_help(capsys):
    with pytest.raises(SystemExit) as ended:
        describe.main(["--help"])
    assert ended.value.code == 0
    assert "MACs x W x in" in capsys.readouterr().out
