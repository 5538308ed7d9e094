"""The configs that come along: every argument gives legal settings of a network that can be built, also in quick."""

import re
from pathlib import Path

import pytest
from folders import write_splits
from tfds_sets import noise, write_set

from plq.config.load import build_config, default, default_workdir, load, quick
from plq.errors import UserError
from plq.layers.describe import layer_table
from plq.trainer.data_shape import shape_and_classes
from plq.trainer.setup import assemble

ROOT = Path(__file__).parents[1]
FILES = sorted(ROOT.glob("configs/*.py"))


def arguments(file: Path) -> list[str]:
    namespace = {}
    exec(compile(file.read_text(), str(file), "exec"), namespace)
    return list(namespace.get("ARGUMENTS", [""]))


def layers(config):
    """Of the network with its branches, built without data."""
    chosen = build_config(config)
    image_shape, num_classes = shape_and_classes(chosen.data, None, None)
    network = chosen.architecture(num_classes).expanded(chosen.expansion.merge, 1.0)
    return layer_table(network, image_shape)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_argument_gives_a_network(file, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", "/nowhere")
    seen = set()
    for argument in arguments(file):
        whole = load(file, argument)
        small = load(file, f"{argument},quick")
        if whole.data.name == "folder":
            whole.data.data_dir = small.data.data_dir = str(write_splits(tmp_path / "photos"))
        seen.add(whole.to_json())
        assert whole.keys() == small.keys() == default().keys()
        assert sum(row.parameters for row in layers(small)) < 4e6
        assert small.data.image_size <= 96 and small.data.batch_size <= 32 and small.model.width <= 0.125
        assert small.data.name == "digits" or small.data.train_split == "train[:256]"
    assert len(seen) == len(arguments(file))
    assert layers(whole)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_config_opens_with_commands_that_work(file):
    """And names every argument, with hardware, time and accuracy, or that they are not known."""
    text = file.read_text().split('"""')[1]
    commands = re.findall(r"--config (configs/\w+\.py)(?::(\S+))?", text)
    assert commands and all(ROOT / path == file for path, _ in commands)
    for _, argument in commands:
        load(file, argument)
    for argument in arguments(file):
        assert all(word in text for word in argument.split("_")), argument
    assert "Hardware, time" in text and re.search("[Aa]ccuracy:", text) and len(text.splitlines()[0]) < 120


MISTAKES = [
    ("configs/cifar10_resnet20.py", "w2a3", "w2a3: unknown; did you mean w3a3[?] allowed: w2a2, .*, float, and ,quick"),
    ("configs/cifar10_resnet20.py", "quik,w2a2", "py:quik,w2a2: unknown; did you mean w2a2"),
    ("configs/svhn.py", "dorefa_w1a2_0.3,quick", "py:dorefa_w1a2_0.3: unknown; did you mean dorefa_w1a2_0.5[?]"),
    ("configs/digits_w1a2.py", "w2a2", "py:w2a2: takes no argument but quick"),
    ("configs/gone.py", "quick", "configs/gone.py: no such file"),
]


@pytest.mark.parametrize(("file", "argument", "message"), MISTAKES)
def test_a_wrong_argument_lists_the_right_ones(file, argument, message):
    with pytest.raises(UserError, match=message) as caught:
        load(ROOT / file, argument)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


def test_quick_keeps_what_is_small_and_the_users_own_splits():
    config = default()
    config.data.train_split, config.data.test_split = "train+extra[:90%]", "test[10%:]"
    config.data.image_size, config.data.batch_size, config.model.width = 40, 8, 0.1
    quick(config)
    assert (config.data.train_split, config.data.test_split) == ("train[:256]", "test[:64]")
    assert (config.data.image_size, config.data.batch_size, config.model.width) == (40, 8, 0.1)


def test_each_argument_has_a_folder_of_its_own():
    file = Path("configs/svhn.py")
    assert str(default_workdir(file, "")) == "runs/svhn"
    assert str(default_workdir(file, "xnor_w1a1_0.5,quick")) == "runs/svhn-xnor_w1a1_0.5-quick"


@pytest.mark.parametrize(("name", "argument"), [("digits_w1a2", ""), ("svhn", "syq_w2a2_0.125")])
def test_a_quick_run_takes_a_step(name, argument, tmp_path):
    config = load(ROOT / f"configs/{name}.py", f"{argument},quick")
    if name == "svhn":
        images = {"train": noise(256, (32, 32, 3)), "test": noise(64, (32, 32, 3))}
        config.data.data_dir = str(write_set(tmp_path, images, name="svhn_cropped"))
        config.data.cache_dir = str(tmp_path / "cache")
    config.mesh.data = 1
    setup = assemble(build_config(config))
    state = setup.step(setup.initial_state(), *setup.batch(0))
    assert int(state.tally.broken_step) == -1 and float(state.tally.loss) > 0
    assert setup.total_steps < 100 and setup.task.factor.end_step < setup.total_steps
