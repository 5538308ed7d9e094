"""Fields of a config on a command line: each form of them, and what is refused."""

import pytest

from plq.cli.common import whole_number, words
from plq.cli.config_arguments import config_arguments, parse_config
from plq.config.load import fields_of
from plq.config.schema import Config
from plq.config.selection import parse_value, select
from plq.errors import UserError

PLAIN = "from plq.config.load import default\ndef get_config(argument=''):\n    c = default()\n    {}\n    return c\n"


def given(*argv):
    parser = config_arguments("describe", "")
    parser.add_argument("--count", type=whole_number("--count", 1), default=3)
    parser.add_argument("--list", type=words, default=())
    return parse_config(parser, ["--config", "c.py", *argv])


@pytest.mark.parametrize(("argv", "changes"), [
    (["--config.data.name=a=b"], {"data.name": "a=b"}),
    (["--config.data.name="], {"data.name": ""}),
    (["--config.mesh.data", "-1"], {"mesh.data": "-1"}),
    (["--config.data.flip"], {"data.flip": "True"}),
    (["--config.data.flip", "--config.data.pad", "2"], {"data.flip": "True", "data.pad": "2"}),
    (["--noconfig.data.flip"], {"data.flip": "False"}),
    (["--config.data.pad=1", "--config.data.pad=2"], {"data.pad": "2"}),
    (["--config=d.py", "--count", "4"], {}),
])  # fmt: skip
def test_forms(argv, changes):
    assert given(*argv).changes == changes


def test_own_flags_come_through():
    found = given("--config=d.py", "--count", "4", "--config.data.pad", "2", "--list=a, b")
    assert (found.config, found.count, found.list) == ("d.py", 4, ("a", "b"))


@pytest.mark.parametrize(("argv", "message"), [
    (["--config.data"], r"--config.data: unknown field; allowed: name"),
    (["--config.data.pda=1"], "--config.data.pda: unknown field; did you mean pad"),
    (["--config.dta.pad=1"], "--config.dta.pad: unknown section dta; did you mean data"),
    (["--config.data.pad.x=1"], "--config.data.pad.x: unknown field"),
    (["--config.data.pad"], "--config.data.pad: found no value"),
    (["--noconfig.data.pad"], "--noconfig.data.pad: allowed of a field that is a bool"),
    (["--noconfig.data.flip=1"], "--noconfig.data.flip=1: allowed of a field that is a bool, without a value"),
    (["--config.data.flip", "False"], "False: not understood; allowed: --config FILE, --config.SECTION.FIELD=VALUE"),
    (["--cuont=3"], "--cuont=3: not understood; did you mean --count"),
    (["--coun=3"], "--coun=3: not understood; did you mean --count"),
    (["--", "--count=3"], "not understood"),
    (["--count=0"], "^--count=0: 0 is not a positive integer"),
    (["--count=few"], "^--count=few: few is not a positive integer"),
    (["--count"], "argument --count: expected one argument"),
    (["--config="], "--config FILE: missing"),
    (["--config"], "--config FILE: missing"),
])  # fmt: skip
def test_what_is_refused(argv, message):
    with pytest.raises(UserError, match=message) as caught:
        given(*argv)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "text", "value"), [
    ("data.flip", "true", True), ("data.flip", "0", False), ("data.pad", "3", 3), ("data.brightness", "1e1", 10.0),
    ("data.mean", "1,2", (1, 2)), ("data.mean", "(1.5,)", (1.5,)), ("data.mean", "1.5", (1.5,)),
    ("data.image_size", "8", 8), ("data.image_size", "(8, 9)", (8, 9)), ("data.name", "(8, 9)", "(8, 9)"),
    ("optimizer.decay_roles", "conv,dense", ("conv", "dense")), ("optimizer.decay_roles", "('conv',)", ("conv",)),
    ("optimizer.decay_roles", "()", ()), ("optimizer.decay_roles", "", ()),
])  # fmt: skip
def test_values(name, text, value):
    assert parse_value(name, text) == value


@pytest.mark.parametrize("name", [name for name, value in fields_of(Config().to_json()) if not isinstance(value, str)])
def test_every_field_takes_its_own_value_as_text_and_refuses_nonsense(name, tmp_path):
    value = Config().value(name)
    assert parse_value(name, str(value)) == value
    (tmp_path / "c.py").write_text(PLAIN.format(""))
    with pytest.raises(UserError, match=name) as caught:
        select(str(tmp_path / "c.py"), {name: "(("})
    assert "\n" not in str(caught.value)


def test_a_file_with_fewer_sections_takes_the_others(tmp_path):
    (tmp_path / "c.py").write_text("from ml_collections import ConfigDict\ndef get_config(): return ConfigDict({})\n")
    assert select(str(tmp_path / "c.py"), {"train.seed": "5", "model.width": "2"}).config.train.seed == 5


def test_a_section_that_is_none_is_refused(tmp_path):
    text = "from ml_collections import ConfigDict\ndef get_config(): return ConfigDict({'train': 5})\n"
    (tmp_path / "c.py").write_text(text)
    with pytest.raises(UserError, match="section train of the file is int"):
        select(str(tmp_path / "c.py"), {"train.seed": "5"})
