"""Splits in the syntax of TFDS: "train", "train[:90%]", "train+test"."""

from collections.abc import Mapping
from typing import NamedTuple

import tensorflow_datasets as tfds

from plq.errors import UserError, first_line


class Span(NamedTuple):
    """Examples ``start`` to ``stop`` - 1 of a split."""

    split: str
    start: int
    stop: int


def spans(name: str, sizes: Mapping[str, int], split: str) -> list[Span]:
    """What a split in this syntax stands for, of a set with these splits.

    Raises UserError if it is unknown, runs backwards or is empty.
    """
    known = {part: tfds.core.SplitInfo(name=part, shard_lengths=[size], num_bytes=0) for part, size in sizes.items()}
    try:
        found = [_span(read, sizes) for part in split.split("+") for read in _read(part.strip(), known)]
    except (KeyError, ValueError, AssertionError) as error:
        there = ", ".join(f"{part} ({size:,})" for part, size in sizes.items())
        fields = "see data.train_split, data.test_split"
        raise UserError(f"split {split!r} of {name}: {first_line(error)} Splits there: {there}; {fields}") from error
    if any(span.stop < span.start for span in found):
        raise UserError(f"split {split!r} of {name}: runs backwards, allowed [FROM:TO] with FROM before TO")
    if all(span.stop == span.start for span in found):
        raise UserError(f"split {split!r} of {name}: is empty, allowed 1 example or more")
    return found


def _read(part: str, known: dict[str, tfds.core.SplitInfo]):
    return tfds.core.ReadInstruction.from_spec(part).to_absolute(known)


def _span(read, sizes: Mapping[str, int]) -> Span:
    size = sizes[read.splitname]
    return Span(read.splitname, read.from_ or 0, size if read.to is None else read.to)
