"""Photographs per second and core: plq's path (Grain's threads), Pillow as torchvision uses it, and tf.data.

    taskset -c 0 python benchmarks/input_pipeline.py [--name imagenet2012] [--size 224] [--repeats 7] [--threads 1]

All make the same batches: the same encoded images, from memory, cropped to the same boxes and mirrored alike; the
first row also reads the records. torchvision's transforms on a PIL image are the calls in `pillow` below; they
average over the pixels that a smaller image leaves out, the others interpolate between two. All take
turns in every repeat, so a slow moment of the machine hits them alike. Images per second of processor time of the
whole process, all its threads; the ratio is to Pillow in the same repeat. Medians, smallest and largest. tf.data is
left out where TensorFlow is not installed.
"""

import argparse
import importlib.util
import io
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from plq.data.crops import CROPS, Box
from plq.data.jpeg import image_size
from plq.data.records import Plan, train_batches
from plq.data.source import RecordSource


class Memory:
    """The records of a source, read once, as a set of the size of ImageNet: Grain's order of few records is slow."""

    def __init__(self, source: RecordSource) -> None:
        self.records = [source[index] for index in range(len(source))]
        self.where, self.exif = source.where, source.exif

    def __len__(self) -> int:
        return 1_281_167

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        return self.records[index % len(self.records)]


class Large(Memory):
    """The same, each record read when it is asked for."""

    def __init__(self, source: RecordSource) -> None:
        self.records, self.where, self.exif = source, source.where, source.exif


def chosen(plan: Plan, steps: int) -> list[tuple[bytes, Box, bool]]:
    """Bytes, box and mirroring of each example, in order."""

    def row(place: int, rng: np.random.Generator) -> tuple[bytes, Box, bool]:
        data, _ = plan.source[plan.records[place]]
        return data, plan.crop(rng, *image_size(data, ""), plan.size), bool(rng.random() < 0.5)

    rows = plan.everywhere(row)
    return [rows[place] for place in range(steps * plan.batch_size)]


def pillow(row: tuple[bytes, Box, bool], size: tuple[int, int]) -> np.ndarray:
    data, box, mirrored = row
    image = Image.open(io.BytesIO(data)).convert("RGB")
    image = image.crop((box.left, box.top, box.left + box.width, box.top + box.height))
    image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else image)


def pillow_batches(rows, plan: Plan):
    for start in range(0, len(rows), plan.batch_size):
        yield np.stack([pillow(row, plan.size) for row in rows[start : start + plan.batch_size]])


def tensorflow_batches(rows, plan: Plan, threads: int):
    """Decodes only the rows and columns of the box, which libjpeg allows and the other ways do not use."""
    import tensorflow as tf

    def make(data, box, mirrored):
        image = tf.image.decode_and_crop_jpeg(data, box, channels=3)
        image = tf.cast(tf.image.resize(image, plan.size) + 0.5, tf.uint8)
        return tf.cond(mirrored, lambda: image[:, ::-1], lambda: image)

    columns = ([row[0] for row in rows], np.array([row[1] for row in rows], np.int32), [row[2] for row in rows])
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    batches = tf.data.Dataset.from_tensor_slices(columns).map(make, threads).batch(plan.batch_size)
    return batches.prefetch(2).with_options(options)


def rate(make: Callable[[], object], images: int) -> tuple[float, float]:
    """Images per second of processor time and of the clock."""
    batches = make()
    processor, clock = time.process_time(), time.perf_counter()
    count = sum(len(batch[0] if isinstance(batch, tuple) else batch) for batch in batches)
    assert count == images
    return images / (time.process_time() - processor), images / (time.perf_counter() - clock)


def variants(given: argparse.Namespace) -> dict[str, Callable[[], object]]:
    source, crop = RecordSource(given.name, given.split, given.data_dir), CROPS[given.crop]
    memory, batch, threads = Memory(source), given.batch_size, given.threads
    size = (given.size, given.size)
    plan = Plan(memory, batch, size, 0, crop, True, (0, 1))
    rows = chosen(plan, given.steps)
    stream = lambda origin: lambda: train_batches(origin, batch, size, 0, 0, given.steps, crop, True, threads)
    found = {"plq, reading records": stream(Large(source)), "plq": stream(memory)}
    found["Pillow"] = lambda: pillow_batches(rows, plan)
    if importlib.util.find_spec("tensorflow"):
        found["tf.data"] = lambda: tensorflow_batches(rows, plan, threads)
    return found


def spread(numbers: list[float], digits: int) -> str:
    low, middle, high = min(numbers), statistics.median(numbers), max(numbers)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("name", "imagenet2012"), ("split", "train"), ("data_dir", ""), ("crop", "resized")):
        parser.add_argument(f"--{name}", default=value)
    for name, number in (("size", 224), ("batch_size", 64), ("steps", 4), ("repeats", 7), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=number)
    given = parser.parse_args()
    ways, images = variants(given), given.steps * given.batch_size
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for repeat in range(given.repeats + 1):
        for name, make in ways.items():
            measured = rate(make, images)
            if repeat:  # the first warms up
                rates[name].append(measured)
    print(
        f"{given.name}, {images} images a repeat, {given.repeats} repeats, {given.threads} threads, size {given.size}"
    )
    print(f"Python {platform.python_version()}, {platform.machine()}, {Path(__file__).name}\n")
    print("| way | images per processor second | of Pillow's | images per second |\n|---|---|---|---|")
    for name, pairs in rates.items():
        ratios = [mine[0] / other[0] for mine, other in zip(pairs, rates["Pillow"], strict=True)]
        processor, clock = ([pair[column] for pair in pairs] for column in (0, 1))
        print(f"| {name} | {spread(processor, 0)} | {spread(ratios, 2)} | {spread(clock, 0)} |")


if __name__ == "__main__":
    main()
