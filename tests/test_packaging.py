"""What a wheel holds: every package, the configs, and the mark that plq is typed."""

import tomllib
from pathlib import Path

import pytest

import plq
from plq.config.load import load, shipped, split
from plq.errors import UserError

ROOT = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]


def test_every_package_is_listed():
    folders = {file.parent.relative_to(ROOT) for file in (ROOT / "plq").rglob("__init__.py")}
    assert {".".join(folder.parts) for folder in folders} | {"plq.configs"} == set(SETUPTOOLS["packages"])
    assert SETUPTOOLS["package-dir"] == {"plq.configs": "configs"} and (ROOT / "plq" / "py.typed").exists()


def test_a_config_of_plq_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert split("cifar10_resnet20:w2a2,quick") == (ROOT / "configs" / "cifar10_resnet20.py", "w2a2,quick")
    assert load(*split("digits_w1a2")).data.name == "digits"
    (tmp_path / "digits_w1a2").write_text("def get_config(): return 1 / 0\n")
    assert split("digits_w1a2") == (Path("digits_w1a2"), "")  # a file that is there comes first
    with pytest.raises(UserError, match="--config digit_w1a2: no such file, and no config of plq; did you mean digits"):
        load(*split("digit_w1a2"))
    assert set(shipped()) == {file.stem for file in (ROOT / "configs").glob("*.py")} and plq.__version__
