"""Throw damaged and forged files at the reader of frozen models, for as long as you like.

    python -m benchmarks.fuzz_frozen model.plq --seconds 300 --seed 1

In turn, a file has bytes changed, cut or put in ("damaged"); a valid checksum and a description or tensors of which
something is another value ("forged"); a valid checksum and another table of tensors ("relabelled"). Each must be
refused in one line, or be a network that runs (its shapes are computed, not its numbers). A file that does anything
else (a warning counts), or takes more memory than its size justifies or 10 seconds of a processor, is kept and named.
"""

import argparse
import collections
import copy
import dataclasses
import hashlib
import io
import json
import random
import re
import resource
import sys
import time
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np

from plq.errors import UserError
from plq.runtime import container
from plq.runtime.file_format import Frozen, read
from plq.runtime.frozen import from_frozen

VALUES = [
    None, True, False, -1, 0, 1, 2, 3, 4, 5, 7, 8, 9, 255, 256, 2**15, 2**16, 2**20, 2**31, 2**63, 10**40, -(10**40),
    0.5, -0.5, 0.1, 1e-46, 1e-30, 1e30, 1e39, 1e308, "", "a", "a/b", "..", "a\nb", "image", "conv", "\ud800",
    [], [0], [1], [1, 1], [[0, 0], [1, 1]], {}, {"bits": 2}, {"bits": 1, "levels": [-1, 1]},
]  # fmt: skip


def damaged(data: bytes, generator: random.Random) -> bytes:
    """One to four changes of bytes, mostly in the header."""
    changed = bytearray(data)
    header = 8 + int.from_bytes(data[:8], "little")
    for _ in range(generator.randint(1, 4)):
        changed = changed or bytearray(1)
        place = generator.randrange(min(len(changed), generator.choice([16, header, len(data)])))
        kind = generator.randrange(4)
        if kind == 0:
            changed[place] ^= 1 << generator.randrange(8)
        elif kind == 1:
            del changed[place : place + generator.randint(1, 64)]
        elif kind == 2:
            changed[place:place] = generator.randbytes(generator.randint(1, 64))
        else:
            del changed[place + 1 :]
    return bytes(changed)


def forged(data: bytes, generator: random.Random) -> bytes:
    """One to three other values in the description or the tensors, under a valid checksum."""
    tensors, metadata = container.load(io.BytesIO(data), len(data))
    model = json.loads(metadata["model"])
    nodes = model["graph"]["nodes"]
    for _ in range(generator.randint(1, 3)):
        if generator.random() < 0.2:
            _change_tensor(tensors, generator)
        else:
            _change_value(generator.choice([model, nodes, nodes]), generator)
    return container.dump(tensors, {**metadata, "model": json.dumps(model)})


def relabelled(data: bytes, generator: random.Random) -> bytes:
    """One or two other values in the table of names, dtypes, shapes and places, under a valid checksum."""
    length = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    metadata = header.pop(container.METADATA)
    del metadata[container.SHA256]
    for _ in range(generator.randint(1, 2)):
        _change_value(header, generator)
    text = lambda: _padded(json.dumps({container.METADATA: metadata, **header}, sort_keys=True, separators=(",", ":")))
    metadata[container.SHA256] = hashlib.sha256(text() + rest).hexdigest()
    return len(text()).to_bytes(8, "little") + text() + rest


def _padded(text: str) -> bytes:
    return text.encode() + b" " * (-len(text) % 8)


KINDS = {kind.__name__: kind for kind in (damaged, forged, relabelled)}


def _change_tensor(tensors: dict[str, np.ndarray], generator: random.Random) -> None:
    name = generator.choice(list(tensors))
    tensor = tensors.pop(name)
    kind = generator.randrange(5)
    if kind == 0:
        tensors[generator.choice(["x", "../x", "a\nb", ""])] = tensor
    elif kind == 1:
        tensors[name] = np.resize(tensor, tensor.size + generator.randint(1, 9))
    elif kind == 2:
        tensors[name] = tensor.reshape(-1)[: max(1, tensor.size - 1)]
    elif kind == 3:
        tensors[name] = np.full_like(tensor, generator.choice([0, 1, 255]) if tensor.dtype == np.uint8 else np.inf)
    else:
        tensors[name] = tensor.astype(generator.choice([np.uint8, np.float32]))


def _change_value(place: Any, generator: random.Random) -> None:
    while place:
        key = generator.choice(list(place) if isinstance(place, dict) else list(range(len(place))))
        deeper = isinstance(place[key], (dict, list)) and place[key]
        if deeper and generator.random() < 0.95:
            place = place[key]
        elif isinstance(place, dict) and generator.random() < 0.2:
            place[generator.choice(["op", "name", "x"])] = place.pop(key)
            return
        else:
            place[key] = copy.deepcopy(generator.choice(VALUES))
            return


@dataclasses.dataclass
class Tally:
    """What became of the files so far."""

    outcomes: collections.Counter[tuple[str, str]]  # (kind, "refused", "accepted" or "unchanged")
    reasons: collections.Counter[str]
    peak: int = 0  # bytes that Python and NumPy held at once while a file was read
    slowest: float = 0.0  # seconds of a processor


def outcome(path: Path, tally: Tally) -> str:
    """ "accepted", or the line with which it was refused. Raises whatever it should not."""
    try:
        model = from_frozen(watched(path, tally))
    except UserError as error:
        if "\n" in str(error):
            raise ValueError("more than one line") from error
        return str(error)
    images = jax.ShapeDtypeStruct((1, *model.image_shape), np.uint8)
    jax.eval_shape(model.runner.logits, model.runner.arrays, images)
    return "accepted"


def watched(path: Path, tally: Tally) -> Frozen:
    """What `read` gives. Raises MemoryError if it took more than the file's size justifies."""
    size = path.stat().st_size
    tracemalloc.start()
    try:
        return read(path)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        tally.peak = max(tally.peak, peak)
        if peak > 2**20 + 40 * size:
            raise MemoryError(f"{peak:,} bytes for a file of {size:,}")


def reason(line: str) -> str:
    """A line of refusal with names and numbers taken out."""
    line = re.sub(r"(graph: )?node \S+( \(\S+\))?", "node N", line.removeprefix("model: "))
    return re.sub(r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]?|-?\d[\d,.e+-]*", "..", line)[:70]


def one_more(number: int, data: bytes, mutant: Path, seed: int, tally: Tally) -> None:
    """Make the file of this number and read it."""
    kind = list(KINDS)[number % len(KINDS)]
    changed = KINDS[kind](data, random.Random(f"{seed}/{number}"))
    mutant.write_bytes(changed)
    begin = time.process_time()
    found = "unchanged" if changed == data else outcome(mutant, tally)
    tally.slowest = max(tally.slowest, time.process_time() - begin)
    if tally.slowest > 10:
        raise TimeoutError(f"{tally.slowest:.1f} s")
    if found not in ("accepted", "unchanged"):
        tally.reasons[reason(found.removeprefix(f"{mutant}: "))] += 1
        found = "refused"
    tally.outcomes[kind, found] += 1


def report(tally: Tally, size: int) -> None:
    """Print what became of all files."""
    print("| files | refused in one line | accepted and run | unchanged |\n|---|---|---|---|")
    for kind in KINDS:
        counts = (f"{tally.outcomes[kind, outcome]:,}" for outcome in ("refused", "accepted", "unchanged"))
        print(f"| {kind} | {' | '.join(counts)} |")
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"\nslowest {tally.slowest:.2f} s; a file has about {size:,} bytes; reading one took {tally.peak:,} at most,")
    print(f"the process {rss:,}; {len(tally.reasons)} different reasons, the most frequent:\n")
    for line, count in tally.reasons.most_common(12):
        print(f"{count:>9,}  {line}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("error")
    data, tally = given.model.read_bytes(), Tally(collections.Counter(), collections.Counter())
    mutant, end = given.model.with_name(f"fuzzed-{given.seed}.plq"), time.monotonic() + given.seconds
    while time.monotonic() < end:
        number = tally.outcomes.total()
        try:
            one_more(number, data, mutant, given.seed, tally)
        except Exception as error:
            sys.exit(f"file {number}, kept as {mutant}: {type(error).__name__}: {error}")
    mutant.unlink(missing_ok=True)
    report(tally, len(data))


if __name__ == "__main__":
    main()
