"""The programs on somebody's own network: its code lies in the working directory or beside the config."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from plq.cli import describe, evaluate, export, freeze, predict, prune, report, train
from plq.errors import UserError

ROOT = Path(__file__).parents[1]
CONFIG = """
from plq.config.load import default


def get_config():
    config = default()
    config.data.name, config.data.batch_size = "digits", 64
    config.model.name = "programmed:Bare"
    config.quant.weight_bits, config.quant.last_bits = 2, 8
    config.factor.end, config.train.epochs, config.mesh.data = 0.5, 0.2, 1
    config.report.every_steps, config.report.tensorboard = 2, False
    return config
"""
NETWORK = (ROOT / "tests" / "own_networks.py").read_text("utf-8") + "\n\nclass Other(Bare):\n    pass\n"
REFUSED = "its network is programmed:Bare, not one of plq.*--network programmed:Bare"
NAMED = ("--network", "programmed:Bare")


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A folder with a config, its network, and a run of it by the installed program."""
    folder = tmp_path_factory.mktemp("programs")
    (folder / "config.py").write_text(CONFIG)
    (folder / "programmed.py").write_text(NETWORK)
    program = "import sys; sys.path.pop(0); from plq.cli.program import console; sys.argv[0] = 'plq'; console()"
    command = [sys.executable, "-c", program, "train", "--config", "config.py", "--workdir", "run"]
    path = os.pathsep.join(map(str, [ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]))
    done = subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0 and "bit-equal on 360 images" in done.stderr + done.stdout, done.stderr
    return folder


@pytest.fixture
def here(there, monkeypatch):
    monkeypatch.chdir(there)
    yield there
    sys.modules.pop("programmed", None)
    sys.path[:] = [entry for entry in sys.path if entry != str(there)]


@pytest.mark.parametrize(("program", "argv"), [
    (evaluate, ["--model", "run/model"]),
    (evaluate, ["--workdir", "run"]),
    (predict, ["--model", "run/model", "config.py"]),
    (freeze, ["--model", "run/model", "--out", "m.plq"]),
    (export, ["--format", "onnx", "--model", "run/model", "--out", "m.onnx"]),
    (report, ["--workdir", "run"]),
])  # fmt: skip
def test_a_folder_makes_no_program_import_anything(here, program, argv):
    with pytest.raises(UserError, match=REFUSED) as caught:
        program.main(argv)
    assert "\n" not in str(caught.value) and "programmed" not in sys.modules
    for name in ("other:Network", "programmed"):
        with pytest.raises(UserError, match=f"{name}"):
            program.main([*argv, "--network", name])


def test_with_the_network_named_it_is_evaluated(here, capsys):
    evaluate.main(["--model", "run/model", *NAMED])
    evaluate.main(["--workdir", "run", *NAMED])
    model, run = capsys.readouterr().out.splitlines()
    assert model.startswith("run/model on digits test: accuracy") and "360 images" in model
    assert run.split(": ")[1] == model.split(": ")[1]


def test_its_pictures_are_classified(here, capsys):
    from PIL import Image

    Image.new("L", (8, 8)).save("zero.png")
    predict.main(["--model", "run/model", *NAMED, "zero.png"])
    assert capsys.readouterr().out.startswith("zero.png: ")


def test_a_network_of_plq_takes_no_code(here):
    shutil.copytree("run", "other", dirs_exist_ok=True)
    config = json.loads(Path("other/config.json").read_text())
    config["model"]["name"] = "svhn"
    Path("other/config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="config.json is of svhn, a network of plq; allowed none"):
        evaluate.main(["--workdir", "other", *NAMED])


def test_it_is_pruned_without_its_code(here, capsys):
    prune.main(["--workdir", "run", "--out", "pruned"])
    assert "programmed" not in sys.modules
    assert Path("pruned/variables.safetensors").read_bytes() == Path("run/model/variables.safetensors").read_bytes()


def test_what_it_costs(here, capsys):
    describe.main(["--config", "config.py", "--json"])
    found = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in found["layers"]}
    assert list(rows) == ["conv0", "conv1", "head"] and found["network"] == "programmed:Bare"
    assert [rows[name]["macs"] for name in rows] == [8 * 8 * 9 * 4, 8 * 8 * 9 * 4 * 4, 40]
    bits = {name: (row["weight_bits"], row["input_bits"], row["output_bits"]) for name, row in rows.items()}
    assert bits == {"conv0": (32, 8, 32), "conv1": (2, 2, 32), "head": (8, 8, 32)}
    assert found["total"]["ancillary_parameters"] == rows["conv1"]["ancillary_parameters"] == 9 * 4 * 4 + 8
    assert rows["conv1"]["bytes_deployed"] == 9 * 4 * 4 * 2 // 8 + 4 * 4


def test_a_report_of_the_run(here, capsys):
    report.main(["--workdir", "run", *NAMED])
    page = Path("run/report.html").read_text()
    assert "programmed:Bare" in page and "conv1" in page


def test_it_starts_from_a_float_run_of_the_same_network(here, capsys):
    floats = [f"--config.quant.{field}_bits=32" for field in ("weight", "activation", "last")]
    run = ["--config", "config.py", "--config.train.epochs=0.1"]
    train.main([*run, "--workdir", "float", "--config.factor.name=constant", "--config.factor.end=0.25", *floats])
    train.main([*run, "--workdir", "started", "--config.model.init_from=float"])
    assert "starting from float (programmed:Bare): 6 leaves taken" in capsys.readouterr().err
    again = ["--workdir", "no", "--config.model.init_from=float"]
    with pytest.raises(UserError, match="model.init_from=float: found the network Bare, this one is Other"):
        train.main([*run, *again, "--config.model.name=programmed:Other"])
    with pytest.raises(UserError, match="model.init_from=float: found the network programmed:Bare, this one is svhn"):
        train.main(["--config", "digits_w1a2", *again])


def test_plain_and_expanded_are_compared(here, capsys):
    from plq.cli import compare

    with pytest.raises(SystemExit) as ended:
        compare.main(["--config", "config.py", "--out", "pairs", "--seeds", "1", "--together", "0"])
    assert ended.value.code == 0, capsys.readouterr().err
    page = Path("pairs/report.html").read_text()
    assert "programmed:Bare" in page and "EXP-Net" in page
    models = [json.loads(path.read_text()) for path in sorted(Path("pairs/cells").glob("*/model/model.json"))]
    assert [model["description"]["architecture"]["network"] for model in models] == ["programmed:Bare"] * 2


def test_a_network_beside_the_config_is_found(there, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    describe.main(["--config", str(there / "config.py")])
    assert "conv1" in capsys.readouterr().out
    sys.modules.pop("programmed")
    sys.path[:] = [entry for entry in sys.path if entry != str(there)]
