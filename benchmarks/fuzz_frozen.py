"""Throw damaged and forged files at the reader of frozen models, for as long as you like.

    python benchmarks/fuzz_frozen.py model.plq --seconds 600 --seed 1

Every second file has bytes changed, cut or put in; every other one a valid checksum and a description or tensors of
which something is another value. Each must be refused in one line, or be a network that runs (its shapes are computed,
not its numbers). A file that does anything else, or takes more memory than its size justifies, is kept and named.
"""

import argparse
import copy
import io
import json
import random
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import jax
import numpy as np

from plq.errors import UserError
from plq.frozen import container
from plq.frozen.file import read
from plq.frozen.model import from_frozen

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
    for _ in range(generator.randint(1, 3)):
        if generator.random() < 0.2:
            _change_tensor(tensors, generator)
        else:
            _change_value(model, generator)
    return container.dump(tensors, {**metadata, "model": json.dumps(model)})


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


def outcome(path: Path) -> str:
    """ "refused" or "accepted". Raises whatever it should not."""
    size = path.stat().st_size
    tracemalloc.start()
    try:
        frozen = read(path)
    except UserError as error:
        if "\n" in str(error):
            raise ValueError("more than one line") from error
        return "refused"
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        if peak > 2**20 + 40 * size:
            raise MemoryError(f"{peak:,} bytes for a file of {size:,}")
    try:
        model = from_frozen(frozen)
    except UserError:
        return "refused"
    images = jax.ShapeDtypeStruct((1, *model.image_shape), np.uint8)
    jax.eval_shape(model.runner.logits, model.runner.arrays, images)
    return "accepted"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    data, counts, end = given.model.read_bytes(), {"refused": 0, "accepted": 0}, time.monotonic() + given.seconds
    mutant = given.model.with_name(f"fuzzed-{given.seed}.plq")
    while time.monotonic() < end:
        number = sum(counts.values())
        generator = random.Random(f"{given.seed}/{number}")
        mutant.write_bytes((damaged, forged)[number % 2](data, generator))
        try:
            counts[outcome(mutant)] += 1
        except Exception as error:
            sys.exit(f"file {number}, kept as {mutant}: {type(error).__name__}: {error}")
    mutant.unlink(missing_ok=True)
    print(f"{counts['refused']:,} refused in one line, {counts['accepted']:,} accepted and run")


if __name__ == "__main__":
    main()
