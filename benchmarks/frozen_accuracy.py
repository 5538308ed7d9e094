"""Whether frozen (and exported) models classify as the stripped ones do: networks, bits and quantizers, one table.

    python benchmarks/frozen_accuracy.py --out runs/frozen
    python benchmarks/frozen_accuracy.py --out runs/frozen --only resnet20 --only 2/2 --check onnx=my_module:logits

Each cell trains a narrow network for a few steps, strips and freezes it with the programs a user has, and counts images
of the whole test set that get another class. A cell that is done is not done again; the table is printed from what is
there. --check adds a column: a function (path of model.plq, an empty folder, uint8 images [N, height, width, channels])
-> logits float32 [N, classes], of which top-1 and the disagreements with the frozen model are given.
"""

import argparse
import dataclasses
import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from plq.errors import UserError
from plq.experiment import all_logits
from plq.freeze import open_test
from plq.frozen.model import FrozenModel, load
from plq.frozen.sizes import layers, quantized_ratio
from plq.quant.registry import activation_quantizer, weight_quantizer
from plq.report.workdir import write_text_atomic

NETWORKS = {"svhn": 0.125, "resnet20": 0.5, "mobilenet_v1": 0.125}  # and their widths
BITS = ((1, 1), (1, 2), (2, 2), (4, 4), (8, 8))
QUANTIZERS = (
    ("dorefa", "clip"), ("dorefa", "abs"), ("xnor", "clip"), ("syq", "clip"), ("lsq", "lsq"), ("lsq", "lsq_plus"),
    ("apot", "apot"), ("sawb", "pact"),
)  # fmt: skip
Check = Callable[[Path, Path, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Cell:
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


def cells(only: list[str]) -> Iterator[Cell]:
    """All legal ones whose name has every word of ``only``."""
    for network in NETWORKS:
        for bits in BITS:
            for quantizers in QUANTIZERS:
                cell = Cell(network, *quantizers, *bits)
                if cell.legal() and all(word in cell.name.split() for word in only):
                    yield cell


def run(module: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], check=True, stdout=subprocess.DEVNULL)


def frozen_model(cell: Cell, folder: Path, given: argparse.Namespace) -> Path:
    """The frozen model of a cell, trained if it is not there."""
    path = folder / "model.plq"
    if not path.exists():
        fields = {
            "train.epochs": given.epochs,
            "model.name": cell.network,
            "model.width": NETWORKS[cell.network],
            "quant.weights": cell.weights,
            "quant.activations": cell.activations,
            "quant.weight_bits": cell.weight_bits,
            "quant.activation_bits": cell.activation_bits,
            "report.tensorboard": False,
        }
        config = Path(__file__).parents[1] / "configs" / f"svhnnet.py:{given.set}"
        changes = [f"--config.{name}={value}" for name, value in fields.items()]
        run("plq.main", "--config", str(config), "--workdir", str(folder / "run"), *changes)
        run("plq.freeze", "--model", str(folder / "run" / "model"), "--out", str(path))
    return path


def measure(cell: Cell, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """The cell's figures, from its folder or anew; one that a check is missing for gets that check alone."""
    done = folder / "result.json"
    result = json.loads(done.read_text()) if done.exists() else {}
    missing = {name: check for name, check in given.checks.items() if name not in result.get("checks", {})}
    if result and not missing:
        return result
    model = load(frozen_model(cell, folder, given))
    result = {**model.training["freezing"], "ratio": quantized_ratio(layers(model.frozen.graph)), **result}
    found = {name: checked(model, folder, name, check) for name, check in missing.items()}
    result["checks"] = {**result.get("checks", {}), **found}
    write_text_atomic(done, json.dumps(result, indent=1))
    return result


def checked(model: FrozenModel, folder: Path, name: str, check: Check) -> dict[str, float]:
    """Top-1 of a check, and how many images it gives another class than the frozen model does."""
    scratch = folder / name
    scratch.mkdir(parents=True, exist_ok=True)
    feed, _ = open_test(model, "", "")
    wanted, labels = all_logits(model, feed)
    images = np.concatenate([images[mask > 0] for images, _, mask in feed.in_order()])
    classes = np.asarray(check(folder / "model.plq", scratch, images)).argmax(1)
    return {"accuracy": float((classes == labels).mean()), "other_class": int((classes != wanted.argmax(1)).sum())}


def row(cell: Cell, result: dict[str, Any], checks: list[str]) -> str:
    figures = [
        f"{100 * result['accuracy_before']:.2f}",
        f"{100 * result['accuracy_after']:.2f}",
        str(result["other_class"]),
    ]
    for name in checks:
        found = result["checks"].get(name)
        figures += [f"{100 * found['accuracy']:.2f}", str(found["other_class"])] if found else ["", ""]
    bits = f"{cell.weight_bits}/{cell.activation_bits}"
    return " | ".join(
        ["", cell.network, bits, f"{cell.weights}, {cell.activations}", *figures, f"{result['ratio']:.1f}", ""]
    )


def header(checks: list[str]) -> str:
    columns = ["network", "W/A", "quantizers", "stripped", "frozen", "other class"]
    columns += [column for name in checks for column in (name, f"{name}, other class")] + ["times smaller"]
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


def named_check(text: str) -> tuple[str, Check]:
    name, _, target = text.partition("=")
    module, _, function = target.partition(":")
    return name, getattr(importlib.import_module(module), function)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", default="fashion_mnist", help="fashion_mnist, cifar10 or svhn_cropped")
    parser.add_argument("--epochs", type=float, default=0.2)
    parser.add_argument("--only", action="append", default=[], help="a word of the cells wanted; may be repeated")
    parser.add_argument("--check", action="append", default=[], type=named_check, help="NAME=module:function")
    given = parser.parse_args()
    given.checks = dict(given.check)
    rows = [header(list(given.checks))]
    for cell in cells(given.only):
        folder = given.out / given.set / cell.name.replace(" ", "_").replace("/", "-")
        rows.append(row(cell, measure(cell, folder, given), list(given.checks)).strip())
        print(f"done: {cell.name}", file=sys.stderr, flush=True)
    print("\n".join(rows))


if __name__ == "__main__":
    main()
