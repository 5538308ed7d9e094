"""Height and width are two numbers, from the config to the exports; and a batch may hold no image."""

import jax
import numpy as np
import pytest
from frozen import Mixed, some_variables
from frozen_models import frozen_model, small_model
from PIL import Image
from runs import tiny_config, to_the_end

import plq
from plq.cli import describe, freeze, predict
from plq.config.load import _at_most, build_config, default
from plq.data.crops import CROPS, center_box, random_resized_box
from plq.data.resize import FITS, resize_batch, resize_image
from plq.data.sets import load_split
from plq.errors import UserError
from plq.exporters.formats import FORMATS
from plq.layers.describe import layer_table
from plq.layers.factory import QuantConfig, plain_factory
from plq.models.registry import NETWORKS, Architecture
from plq.runtime import stripped_model
from plq.runtime.file_format import Frozen
from plq.runtime.frozen import from_frozen
from plq.runtime.lowering import lower as record
from plq.trainer.setup import assemble
from plq.trainer.trainer import Run

PHOTO = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_of_the_networks_shape_passes_bit_for_bit(fit, channels):
    image = PHOTO[..., :channels]
    np.testing.assert_array_equal(resize_image(image, image.shape, fit), image)
    np.testing.assert_array_equal(resize_batch(image[None], image.shape, fit)[0], image)
    assert resize_image(image, (32, 24, channels), fit).shape == (32, 24, channels)
    assert resize_batch(np.zeros((0, 5, 7, channels), np.uint8), (32, 24, channels), fit).shape == (0, 32, 24, channels)
    for wrong in (image.astype(np.uint16), image[..., :0], image[:0]):
        with pytest.raises(UserError, match="images: found .*allowed uint8"):
            resize_image(wrong, (32, 24, channels), fit)


def test_boxes_have_the_shape_of_the_size():
    assert center_box(256, 512, (224, 448)) == (16, 32, 224, 448)
    assert center_box(300, 300, (100, 200)) == (84, 19, 131, 262)
    boxes = [random_resized_box(np.random.default_rng(seed), 400, 800, (100, 200)) for seed in range(200)]
    aspects = np.array([box.width / box.height for box in boxes])
    assert 1.4 < aspects.min() < 1.7 and 2.4 < aspects.max() < 2.75
    authors = [CROPS["authors"](np.random.default_rng(seed), 400, 800, (100, 200)) for seed in range(50)]
    assert all(1.4 < box.width / box.height < 2.75 for box in authors)


def test_a_split_in_two_sides():
    wide, square = load_split("digits", "test", (16, 24)), load_split("digits", "test", (16, 16))
    assert wide.images.shape == (360, 16, 24, 1)
    np.testing.assert_array_equal(square.images, load_split("digits", "test", 16).images)


@pytest.mark.parametrize(("given", "sides"), [
    ("24,32", [24, 32]), ("(24,32)", [24, 32]), ("[24,32]", [24, 32]), ("40", [40, 40]), ("(40,40)", [40, 40]),
])  # fmt: skip
def test_the_size_on_a_command_line(given, sides, capsys, tmp_path):
    describe.main([*config_file(tmp_path), f"--config.data.image_size={given}", "--json"])
    assert f'"image_shape": [\n  {sides[0]},\n  {sides[1]},\n  3' in capsys.readouterr().out


def config_file(folder):
    file = folder / "config.py"
    file.write_text(
        "from plq.config.load import default\n\ndef get_config():\n    config = default()\n"
        "    config.model.name, config.model.width = 'resnet20', 0.125\n    config.data.image_size = (24, 40)\n"
        "    return config\n"
    )
    return ["--config", str(file)]


@pytest.mark.parametrize("given", ["24,", "24,32,3", "0,32", "-1", "24,-3", "24.5", "many", "24.0,32", "True"])
def test_a_size_that_is_none_is_one_line(given, tmp_path):
    with pytest.raises(UserError, match="data.image_size=") as caught:
        describe.main([*config_file(tmp_path), f"--config.data.image_size={given}"])
    assert "\n" not in str(caught.value)


def test_old_configs_open_and_quick_keeps_the_shape():
    assert build_config({"data": {"image_size": 40}}).to_json()["data"]["image_size"] == 40
    assert build_config({"data": {"image_size": [24, 32]}}).data.image_size == (24, 32)
    config = default()
    config.data.image_size = 40
    assert build_config(config).data.image_size == 40
    sizes = {0: 0, 40: 40, 224: 96, (24, 32): (24, 32), (224, 448): (96, 192), (300, 200): (144, 96)}
    assert {given: _at_most(given, 96) for given in sizes} == sizes


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_takes_images_that_are_not_square(name):
    network = Architecture(name, 10, QuantConfig("dorefa", 1, "clip", 2), width=0.125).plain()
    assert layer_table(network, (96, 130, 3))[-1].output_shape == (10,)
    none = jax.ShapeDtypeStruct((0, 96, 130, 3), np.float32)  # and batches of no image
    assert jax.eval_shape(lambda key, x: network.init_with_output(key, x)[0], jax.random.key(0), none).shape == (0, 10)


@pytest.mark.parametrize(
    ("name", "shape"), [("svhn", (39, 60, 3)), ("alexnet", (200, 95, 3)), ("vgg_small", (64, 7, 3))]
)
def test_a_side_that_is_too_short_is_one_line(name, shape):
    network = Architecture(name, 10, QuantConfig("dorefa", 1, "clip", 2), width=0.125).plain()
    with pytest.raises(UserError, match=f"data.image_size: found images of {shape[0]}x{shape[1]}, {name} takes"):
        layer_table(network, shape)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A ResNet on digits of 16 by 24 pixels: its folder, stripped, and its frozen file."""
    folder = tmp_path_factory.mktemp("wide")
    config = tiny_config(data__image_size=(16, 24), train__epochs=1.0, mesh__data=1)
    config.model.name, config.model.dropout = "resnet20", 0.0
    to_the_end(Run(assemble(build_config(config)), folder / "run"))
    freeze.main(["--model", str(folder / "run" / "model"), "--out", str(folder / "model.plq")])
    return folder


def test_trained_stripped_frozen_and_exported_agree(trained, capsys):
    stripped, frozen = stripped_model.load(trained / "run" / "model"), plq.load(trained / "model.plq")
    assert stripped.image_shape == frozen.image_shape == (16, 24, 1)
    images = load_split("digits", "test", (16, 24)).images[:32]
    wanted = np.asarray(frozen(images))
    np.testing.assert_allclose(stripped(images), wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
    for name in ("onnx", "stablehlo"):
        export = FORMATS[name](frozen, False)
        (trained / name).write_bytes(export.data)
        run = export.run(trained / name).logits
        np.testing.assert_allclose(run(images), wanted, rtol=0, atol=1e-3 * np.abs(wanted).max())
        assert run(images[:0]).shape == (0, 10)
    Image.fromarray(images[0, :, :, 0]).save(trained / "digit.png")
    for model in (trained / "run" / "model", trained / "model.plq"):
        predict.main(["--model", str(model), "--top", "1", str(trained / "digit.png")])
        assert f": {wanted[0].argmax()} " in capsys.readouterr().out


@pytest.mark.parametrize("size", [(16, 24), (9, 30)])
def test_a_batch_of_no_image_gives_no_logits(trained, size):
    for model in (stripped_model.load(trained / "run" / "model"), plq.load(trained / "model.plq"), small_model()):
        assert model(np.zeros((0, *size, 1), np.uint8)).shape == (0, 10)


def test_no_image_through_every_operation():
    """Groups, depthwise, dilation, pooling, residual; kernels with a scale per row."""
    network = Mixed(plain_factory(QuantConfig("syq", 1, "clip", 3, granularity="row")))
    graph = record(network, some_variables(network, (40, 52, 1)), (40, 52, 1), (0.0,), (256.0,))
    model = from_frozen(Frozen(graph, tuple("0123456789"), "square", {}))
    assert model(np.zeros((0, 40, 52, 1), np.uint8)).shape == (0, 10)
    other = frozen_model("mobilenet_v1", 16, 0.25, "dorefa", 2, "clip", 2, stride=4)
    assert other(np.zeros((0, 16, 16, 1), np.uint8)).shape == (0, 10)
