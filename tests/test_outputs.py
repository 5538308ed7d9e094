"""What a program writes: never over what it reads, or over what somebody else wrote; known before any work is done."""

import errno
import os
import tempfile
from pathlib import Path

import pytest
from frozen_models import small_model

from plq.checkpoint import model_file
from plq.checkpoint.model_file import write_model
from plq.cli import export, freeze, prune
from plq.compare.report.page import require_report
from plq.config.schema import Config
from plq.errors import UserError
from plq.exporters.formats import is_export
from plq.report.workdir import prepare_workdir
from plq.runtime.file_format import encode
from plq.storage.output import write_text_atomic
from plq.trainer.workdir import claim


@pytest.fixture
def model(tmp_path):
    (tmp_path / "m.plq").write_bytes(encode(small_model().frozen))
    return tmp_path / "m.plq"


def same(model):
    return model


def symbolic(model):
    (model.parent / "link").symlink_to(model)
    return model.parent / "link"


def hard(model):
    os.link(model, model.parent / "hard")
    return model.parent / "hard"


def spelt(model):
    return Path(f"{model.parent}/../{model.parent.name}/./m.plq")


@pytest.mark.parametrize("alias", [same, symbolic, hard, spelt])
def test_export_never_writes_over_its_model(alias, model):
    before = model.read_bytes()
    with pytest.raises(UserError, match="is --model itself"):
        export.main(["--format", "onnx", "--model", str(model), "--out", str(alias(model)), "--unchecked"])
    assert model.read_bytes() == before


def test_export_never_writes_over_the_images_it_checks_on(model, tmp_path):
    image = str(tmp_path / "a.png")
    Path(image).write_bytes(b"a picture")
    with pytest.raises(UserError, match=r"is --images .*a\.png itself"):
        export.main(["--format", "onnx", "--model", str(model), "--out", image, "--images", image])
    assert Path(image).read_bytes() == b"a picture"


def notes(folder):
    (folder / "notes").write_text("thesis")
    return folder / "notes"


def another_onnx(folder):
    import onnx

    (folder / "o.onnx").write_bytes(onnx.ModelProto(producer_name="pytorch").SerializeToString())
    return folder / "o.onnx"


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def below_a_file(folder):
    return notes(folder) / "a.onnx"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (notes, "is there and is not an export of plq; it is left alone"),
        (another_onnx, "is there and is not an export of plq"),
        (lambda folder: folder, "is a folder"),
        (lambda folder: Path("/dev/null"), "is not a regular file"),
        (below_a_file, "notes is a file; allowed a folder there"),
        (lambda folder: folder / ("x" * 300), "File name too long"),
        (lambda folder: Path("/proc/nowhere/a.onnx"), "cannot be written to"),
    ],
)
def test_export_refuses_what_it_did_not_write(make, message, model, tmp_path, monkeypatch):
    monkeypatch.setattr("plq.exporters.source.open_source", lambda given: pytest.fail("work was done"))
    out, before = make(tmp_path), contents(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        export.main(["--format", "onnx", "--model", str(model), "--out", str(out), "--unchecked"])
    assert str(out)[:40] in str(caught.value) and contents(tmp_path) == before


@pytest.mark.parametrize("kind", ["onnx", "qonnx", "stablehlo"])
def test_export_replaces_what_it_wrote_through_links(kind, model, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "new" / "file")
    for _ in range(2):
        export.main(["--format", kind, "--model", str(model), "--out", str(tmp_path / "link"), "--unchecked"])
    assert is_export(tmp_path / "new" / "file") and (tmp_path / "link").is_symlink()
    assert not list((tmp_path / "new").glob(".*"))


def stripped(path):
    write_model(path, {"params": {}}, {})
    return path


def test_a_model_folder_replaces_models_alone(tmp_path):
    path = stripped(stripped(tmp_path / "model"))
    (path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds notes.txt, which is no part of a model"):
        stripped(path)
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "model.json").write_text('{"format": "layers-model"}')
    with pytest.raises(UserError, match="is not the description of a plq model.*left alone"):
        stripped(tmp_path / "web")
    assert (path / "notes.txt").read_text() == "mine" and (tmp_path / "web" / "model.json").is_file()


def test_prune_refuses_a_place_before_it_reads(tmp_path):
    (tmp_path / "run").mkdir()
    for out, message in ((tmp_path / "run", "is --workdir itself"), (tmp_path / "run" / "m", "is inside --workdir")):
        with pytest.raises(UserError, match=message):
            prune.main(["--workdir", str(tmp_path / "run"), "--out", str(out)])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model/m.plq", "is inside --model"),
        ("m.bin", "ends in .plq"),
        ("card.plq", "card.md: is there and is not a model"),
        ("text.plq", "is there and is not a frozen model"),
        ("folder.plq", "is a folder"),
        ("linked.plq", "linked.md: is there and is not a model card"),
    ],
)
def test_freeze_looks_at_file_and_card_first(name, message, tmp_path, monkeypatch):
    monkeypatch.setattr("plq.runtime.freezing.read_source", lambda path: pytest.fail("work was done"))
    stripped(tmp_path / "model")
    (tmp_path / "card.md").write_text("my notes")
    (tmp_path / "linked.md").symlink_to(tmp_path / "card.md")
    (tmp_path / "text.plq").write_text("x")
    (tmp_path / "folder.plq").mkdir()
    with pytest.raises(UserError, match=message):
        freeze.main(["--model", str(tmp_path / "model"), "--out", str(tmp_path / name)])
    assert (tmp_path / "card.md").read_text() == "my notes"


@pytest.mark.parametrize("name", ["config.json", "checkpoints", "metrics.jsonl"])
def test_a_folder_of_another_program_is_no_run(name, tmp_path):
    if name == "checkpoints":
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_text('{"hidden_size": 768}')
    with pytest.raises(UserError, match="holds other things and no run"):
        prepare_workdir(tmp_path)


def test_a_run_looks_at_the_place_of_its_model_first(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").write_text("x")
    with pytest.raises(UserError, match="model: holds mine"):
        claim(tmp_path, Config())
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("report.html", "report.html: is there and is not such a report"),
        ("figures", "figures: is a file"),
        ("figures/mine.svg", "mine.svg: is there and is not such a figure"),
    ],
)
def test_a_report_replaces_reports_alone(name, message, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("<html>my page</html>")
    with pytest.raises(UserError, match=message):
        require_report(tmp_path, "--out")


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_text_atomic(tmp_path / "a", "before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"a: cannot be written to \(No space left on device\)"):
        write_text_atomic(tmp_path / "a", "after")
    with pytest.raises(UserError, match=r"m: cannot be written to \(No space left on device\)"):
        stripped(tmp_path / "m")
    assert (tmp_path / "a").read_text() == "before" and sorted(tmp_path.iterdir()) == [tmp_path / "a"]


def test_room_is_looked_for_before_any_work(tmp_path, monkeypatch):
    def read_only(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "TemporaryDirectory", read_only)
    with pytest.raises(UserError, match="Read-only file system"):
        model_file.require_place(tmp_path / "new" / "model")
    assert not (tmp_path / "new").exists()
