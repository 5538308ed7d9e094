"""Plain against EXP-Net on one config: the same schedule, data order and seeds, several seeds.

    python benchmarks/paired.py --config configs/svhnnet.py:cifar10 --seeds 0 1 --out runs/paired/cifar10

Runs (or goes on with) one training per variant and seed and prints a Markdown table of final test accuracy.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from plq.report.metrics import read_metrics

VARIANTS = {"plain": ["--config.factor.name=constant", "--config.factor.value=0.0"], "EXP-Net": []}


def run(config: str, variant: str, seed: int, out: Path, fields: list[str]) -> float:
    """Test accuracy in % after the last step, when f is 0 in both variants."""
    workdir = out / f"{variant}-{seed}"
    command = [sys.executable, "-m", "plq.main", "--config", config, "--workdir", str(workdir)]
    subprocess.run([*command, f"--config.train.seed={seed}", *VARIANTS[variant], *fields], check=True)
    tests = [record for record in read_metrics(workdir / "metrics.jsonl") if record["kind"] == "test"]
    return 100 * tests[-1]["accuracy"]


def row(name: str, values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    each = ", ".join(f"{value:.2f}" for value in values)
    return f"| {name} | {statistics.mean(values):.2f}{spread} | {each} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--out", type=Path, required=True)
    given, fields = parser.parse_known_args()
    final: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for seed in given.seeds:
        for variant in VARIANTS:
            final[variant].append(run(given.config, variant, seed, given.out, fields))
    print("| network | final test accuracy, % (mean, standard deviation) | each seed |\n|---|---|---|")
    for variant, values in final.items():
        print(row(variant, values))
    print(row("difference", [b - a for a, b in zip(final["plain"], final["EXP-Net"], strict=True)]))


if __name__ == "__main__":
    main()
