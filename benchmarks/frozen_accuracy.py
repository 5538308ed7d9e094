"""Whether frozen (and exported) models classify as the stripped ones do: networks, bits and quantizers, one table.

    python benchmarks/frozen_accuracy.py --out runs/frozen
    python benchmarks/frozen_accuracy.py --out runs/frozen --only resnet20 --only 2/2 --formats onnx

Each cell trains a narrow network for a few steps (f = 0: the branch is gone in any case), strips and freezes it with
the programs a user has, exports it, and counts images of the whole test set that get another class: the frozen model's
against the stripped one's, each export's, run by its own runtime, against the frozen model's. What is done is not done
again; the table is printed from what is there.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from plq.errors import UserError
from plq.exporters.formats import FORMATS, export_onnx
from plq.quant.registry import activation_quantizer, weight_quantizer
from plq.runtime.frozen import FrozenModel, load
from plq.runtime.sizes import layers, quantized_ratio
from plq.storage.output import write_text_atomic
from plq.trainer.evaluation import all_logits
from plq.trainer.image_comparison import open_test

NETWORKS: dict[str, dict[str, Any]] = {
    "svhn": {"model.width": 0.125, "data.image_size": 40, "train.epochs": 0.2},
    "resnet20": {"model.width": 0.25, "data.image_size": 28, "train.epochs": 0.2},
    "mobilenet_v1": {"model.width": 0.125, "model.stride": 8, "data.image_size": 28, "train.epochs": 0.4},
}
BITS = ((1, 1), (1, 2), (2, 2), (4, 4), (8, 8))
QUANTIZERS = (
    ("dorefa", "clip"), ("dorefa", "abs"), ("xnor", "clip"), ("syq", "pact"), ("lsq", "lsq"), ("lsq", "lsq_plus"),
    ("apot", "apot"), ("sawb", "pact"),
)  # fmt: skip
EXPORTS = {**FORMATS, "onnx_fast": partial(export_onnx, fast=True)}
BATCH = 1000  # of the exports; QONNX's executor makes a session for each node of each batch


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One row of the table."""

    network: str
    weights: str
    activations: str
    weight_bits: int
    activation_bits: int

    @property
    def name(self) -> str:
        return f"{self.network} {self.weight_bits}/{self.activation_bits} {self.weights} {self.activations}"

    def legal(self) -> bool:
        """Whether both quantizers have these bits."""
        try:
            weight_quantizer(self.weights, self.weight_bits)
            activation_quantizer(self.activations, self.activation_bits)
        except UserError:
            return False
        return True


def cells(only: list[str]) -> Iterator[RunConfig]:
    """All legal ones whose name has every word of ``only``."""
    for network in NETWORKS:
        for bits in BITS:
            for quantizers in QUANTIZERS:
                cell = RunConfig(network, *quantizers, *bits)
                if cell.legal() and all(word in cell.name.split() for word in only):
                    yield cell


def run(module: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], check=True, stdout=subprocess.DEVNULL)


def frozen_model(cell: RunConfig, folder: Path, given: argparse.Namespace) -> Path:
    """The frozen model of a cell, trained if it is not there."""
    path = folder / "model.plq"
    if not path.exists():
        fields = {
            **NETWORKS[cell.network],
            "model.name": cell.network,
            "quant.weights": cell.weights,
            "quant.activations": cell.activations,
            "quant.weight_bits": cell.weight_bits,
            "quant.activation_bits": cell.activation_bits,
            "factor.name": "constant",
            "factor.value": 0.0,
            "report.tensorboard": False,
        }
        config = Path(__file__).parents[1] / "configs" / f"svhnnet.py:{given.set}"
        changes = [f"--config.{name}={value}" for name, value in fields.items()]
        run("plq.main", "--config", str(config), "--workdir", str(folder / "run"), *changes)
        run("plq.cli.freeze", "--model", str(folder / "run" / "model"), "--out", str(path))
    return path


def measure(cell: RunConfig, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """The cell's figures, from its folder or anew; formats that are missing are added."""
    done = folder / "result.json"
    result = json.loads(done.read_text()) if done.exists() else {"formats": {}}
    missing = [name for name in given.formats if name not in result["formats"]]
    if "accuracy_before" in result and not missing:
        return result
    model = load(frozen_model(cell, folder, given))
    result |= {**model.training["freezing"], "ratio": quantized_ratio(layers(model.frozen.graph))}
    result["formats"] |= exported(model, folder, missing)
    write_text_atomic(done, json.dumps(result, indent=1))
    return result


def exported(model: FrozenModel, folder: Path, formats: list[str]) -> dict[str, Any]:
    """By format: top-1 on the test set, and in how many images the class is not the frozen model's."""
    feed, _ = open_test(model, "", "")
    images = np.concatenate([images[mask > 0] for images, _, mask in feed.eval_batches()])
    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    wanted, labels = all_logits(model, feed)
    found = {}
    for name in formats:
        export = EXPORTS[name](model, False)
        path = folder / f"model.{name}"
        path.write_bytes(export.data)
        runs = export.run(path).logits
        classes = np.concatenate([runs(batch) for batch in batches]).argmax(1)
        found[name] = {"accuracy": (classes == labels).mean(), "other_class": int((classes != wanted.argmax(1)).sum())}
    return found


def row(cell: RunConfig, result: dict[str, Any], formats: list[str]) -> str:
    found = [result["formats"][name] for name in formats]
    figures = [f"{100 * result['accuracy_before']:.2f}"]
    figures += [f"{100 * each:.2f}" for each in (result["accuracy_after"], *(each["accuracy"] for each in found))]
    figures += [str(each["other_class"]) for each in (result, *found)]
    bits = f"{cell.weight_bits}/{cell.activation_bits}"
    cells = [cell.network, bits, f"{cell.weights}, {cell.activations}", *figures, f"{result['ratio']:.1f}"]
    return f"| {' | '.join(cells)} |"


def header(formats: list[str]) -> str:
    others = [f"other class: {name}" for name in ("frozen", *formats)]
    columns = ["network", "W/A", "quantizers", "stripped", "frozen", *formats, *others, "times smaller"]
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", default="fashion_mnist", help="fashion_mnist, cifar10 or svhn_cropped")
    parser.add_argument("--only", action="append", default=[], help="a word of the cells wanted; may be repeated")
    parser.add_argument("--formats", nargs="*", default=list(EXPORTS), choices=list(EXPORTS))
    given = parser.parse_args()
    rows = [header(given.formats)]
    for cell in cells(given.only):
        folder = given.out / given.set / cell.name.replace(" ", "_").replace("/", "-")
        rows.append(row(cell, measure(cell, folder, given), given.formats))
        print(f"done: {cell.name}", file=sys.stderr, flush=True)
    print("\n".join(rows))


if __name__ == "__main__":
    main()
