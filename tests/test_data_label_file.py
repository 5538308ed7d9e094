"""Labels from a CSV file, and one line for whatever is wrong with it."""

import os
import re

import pytest
from folders import encoded, names, opened, save

from plq.errors import UserError


@pytest.fixture
def root(tmp_path):
    for index in range(6):
        save(tmp_path / "x" / "deep" / f"{index}.png", index)
    return tmp_path / "x"


def rows(*lines: str) -> str:
    return "\n".join(("file,label,split", *lines)) + "\n"


GOOD = [f"deep/{index}.png,{'ant' if index % 2 else 'bee'},{'train' if index < 4 else 'test'}" for index in range(6)]


def labelled(root, text: str | bytes, **given):
    file = root.parent / "labels.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return opened(root, file, **given)


def test_files_labels_and_splits(root):
    folder = labelled(root, rows(*GOOD))
    assert folder.info.splits == {"train": 4, "test": 2} and folder.class_names == ("ant", "bee")
    found = {one.name: one.label for one in folder.chosen("train+test")}
    assert found == {f"deep/{index}.png": 1 - index % 2 for index in range(6)}


def test_without_splits_a_share_is_held_back(root):
    for index in range(6, 40):
        save(root / "deep" / f"{index}.png", index)
    text = "label,file\r\n" + "".join(f"{index % 2},./deep/{index}.png\r\n" for index in range(40))
    folder = labelled(root, b"\xef\xbb\xbf" + text.encode(), holdout=0.3)
    assert folder.class_names == ("0", "1") and 4 <= len(folder.chosen("test")) <= 20
    assert names(labelled(root, text, holdout=0.3), "test") == names(folder, "test")


def test_quotes_and_names_of_any_bytes(root):
    strange = os.fsdecode(b"caf\xe9, one.dat")
    (root / strange).write_bytes(encoded(50))
    text = os.fsencode(rows(*GOOD, f'"{strange}",bee, validation '))
    assert names(labelled(root, text), "validation") == {strange}


def test_the_file_may_lie_with_the_images(root, monkeypatch, tmp_path):
    (root / "mine.csv").write_text(rows(*GOOD))
    monkeypatch.chdir(tmp_path)
    assert opened(root, "mine.csv").info.splits == {"train": 4, "test": 2}


def test_images_without_a_row_are_said(root):
    save(root / "more.png", 60)
    folder = labelled(root, rows(*GOOD))
    assert folder.ignored == {"pictures without a label": 1}


def test_a_row_of_what_cannot_be_read_counts_as_unreadable(root):
    (root / "x.png").write_text("x")
    (root / "link.png").symlink_to("gone")
    folder = labelled(root, rows(*GOOD, "x.png,ant,train", "link.png,ant,train", "deep,ant,train"))
    assert [line.split(":")[0] for line in sorted(folder.unreadable)] == ["deep", "link.png", "x.png"]
    assert "not a regular file" in min(folder.unreadable)


WRONG = {
    "header": ("name,class\n", "its first line is 'name,class', allowed file,label or file,label,split"),
    "semicolons": ("file;label\n", "its first line is 'file;label', allowed file,label"),
    "empty": ("", "its first line is '', allowed file,label"),
    "twice": ("file,label,file\n", "its first line is 'file,label,file'"),
    "column": ("file,label,spilt\n", "column 'spilt': unknown; did you mean split?"),
    "no rows": (rows(), "has no rows below its header"),
    "cells": (rows("deep/0.png,ant"), "line 2: found 2 cells, allowed 3"),
    "unknown": (rows("deep/9.png,ant,train"), "line 2: deep/9.png is not in data.data_dir="),
    "no label": (rows(GOOD[0], "deep/1.png, ,train"), "line 3: deep/1.png has an empty label"),
    "no split": (rows("deep/1.png,ant,"), "line 2: split '': unknown"),
    "split": (rows("deep/1.png,ant,tset"), "line 2: split 'tset': unknown; did you mean test?"),
    "repeated": (rows(GOOD[0], "deep/../deep/0.png,ant,test"), "line 3: deep/../deep/0.png is in line 2 too"),
    "outside": (rows("../labels.csv,ant,train"), "line 2: file '../labels.csv', allowed a path below"),
    "absolute": (rows("/etc/passwd,ant,train"), "line 2: file '/etc/passwd', allowed a path below"),
    "no file": (rows(",ant,train"), "line 2: file '', allowed a path below"),
    "null": (rows("a\0b,ant,train"), "line 2: file 'a\\x00b' holds a null character"),
    "long": (rows(f"{'a' * 300},ant,train"), "cannot be reached (File name too long)"),
    "quote": (rows('"deep/0.png,ant,train'), "not readable CSV"),
    "only test": (rows("deep/0.png,ant,test", "deep/1.png,bee,test"), "no image to train on of ant, bee"),
    "one class": (rows("deep/0.png,ant,test", "deep/1.png,ant,train"), "found 1 classes with images"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_one_line(root, name):
    text, message = WRONG[name]
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        labelled(root, text)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(root):
    with pytest.raises(UserError, match="data.labels=gone.csv: cannot be read .No such file"):
        opened(root, "gone.csv")
