"""Loose JPEG files read by crops, and the same files in array_record: images per second, and the ratio of the two.

    taskset -c 0 python benchmarks/folder_reading.py [--images 1000] [--size 224] [--repeats 9] [--threads 1]

Writes noise of photographs' size and detail as JPEGs into a temporary folder, packs them with `plq prepare folder`, and
makes an epoch of batches of random-resized crops from each, in the same order. Both take turns within every repeat, the
first of them changing; the ratio is taken within a repeat. Files are read from the system's cache. Images per second of
processor time of the whole process and of the clock; medians, smallest and largest.
"""

import argparse
import contextlib
import io
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from plq.data.crops import CROPS
from plq.data.folder_opening import open_folder
from plq.data.folder_preparation import prepare_folder
from plq.data.records import train_batches
from plq.data.source import RecordSource, Source

CLASSES = 10
HEIGHT, WIDTH = 375, 500  # of the usual photograph of ImageNet


def write_photographs(root: Path, count: int) -> int:
    """JPEGs at quality 90 of blurred noise, in folders of classes. Returns their bytes."""
    rng = np.random.default_rng(0)
    written = 0
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((WIDTH, HEIGHT))
        fine = Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).filter(ImageFilter.GaussianBlur(1))
        path = root / f"class{index % CLASSES}" / f"{index:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.blend(coarse, fine, 0.6).save(path, quality=90)
        written += path.stat().st_size
    return written


def rate(batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """Images per second of processor time and of the clock."""
    processor, clock = time.process_time(), time.perf_counter()
    count = sum(len(labels) for _, labels in batches)
    return count / (time.process_time() - processor), count / (time.perf_counter() - clock)


def sources(folder: Path, count: int) -> dict[str, Source]:
    """The training images, loose and packed."""
    size = write_photographs(folder / "photographs", count)
    print(f"{count} JPEGs of {WIDTH}x{HEIGHT}, {size / count / 1000:.0f} kB each")
    loose = open_folder(str(folder / "photographs"), "", 0.1, str(folder / "cache"))
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        name = prepare_folder(loose, folder / "sets")
    return {"loose files": loose.source("train"), "array_record": RecordSource(name, "train", str(folder / "sets"))}


def measured(
    makes: dict[str, Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]], repeats: int
) -> dict[str, list[tuple[float, float]]]:
    """The rates of each way in each repeat; one repeat before them warms up."""
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in makes}
    for repeat in range(repeats + 1):
        for name in list(makes)[:: 1 if repeat % 2 else -1]:
            found = rate(makes[name]())
            if repeat:
                rates[name].append(found)
    return rates


def spread(numbers: list[float], digits: int) -> str:
    low, middle, high = min(numbers), statistics.median(numbers), max(numbers)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = (("images", 1000), ("size", 224), ("batch_size", 64), ("repeats", 9), ("threads", 1))
    for name, number in numbers:
        parser.add_argument(f"--{name}", type=int, default=number)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = sources(Path(folder), given.images)
        steps, size = len(found["loose files"]) // given.batch_size, (given.size, given.size)
        stream = lambda source: (
            lambda: train_batches(source, given.batch_size, size, 0, 0, steps, CROPS["resized"], True, given.threads)
        )
        rates = measured({name: stream(source) for name, source in found.items()}, given.repeats)
    print(f"{steps * given.batch_size} images a repeat, {given.repeats} repeats, {given.threads} threads")
    print(f"Python {platform.python_version()}, {platform.machine()}, {Path(__file__).name}\n")
    print("| way | images per processor second | images per second |\n|---|---|---|")
    for name, pairs in rates.items():
        print(f"| {name} | {' | '.join(spread(list(column), 0) for column in zip(*pairs, strict=True))} |")
    pairs = zip(*rates.values(), strict=True)
    ratios = [[one / other for one, other in zip(loose, packed, strict=True)] for loose, packed in pairs]
    print(f"| ratio | {' | '.join(spread(list(column), 3) for column in zip(*ratios, strict=True))} |")


if __name__ == "__main__":
    main()
