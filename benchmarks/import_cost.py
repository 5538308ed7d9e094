"""What serving a frozen model costs before the first image: time of its imports, and size of what must be installed.

    python -m benchmarks.import_cost [--repeats 9]

Each time is of a fresh process, inside of it, and of all its imports; the variants take turns, so that a slow moment of
the machine hits them alike, after one round that is not counted. Sizes are of the files that a package's installer
lists, without compiled bytecode, for a package with all that it requires; no extras.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
SERVED = ["jax", "jaxlib", "numpy", "pillow"]  # what a frozen model needs
VARIANTS = {
    "`import jax`": "import jax",
    "`import plq`": "import plq",
    "`plq.load`": "import plq.runtime.frozen",
    "`plq.runtime.stripped_model.load`": "import plq.runtime.stripped_model",
    "`plq.main`": "import plq.main",
}
TIMED = """
import time
begin = time.perf_counter()
{}
seconds = time.perf_counter() - begin
import json, resource, sys
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, len(sys.modules)]))
"""


def required(requirements: list[str]) -> set[str]:
    """The installed packages that these requirements bring, with their own, by canonical name."""
    found: set[str] = set()
    todo = [Requirement(text) for text in requirements]
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        if name in found or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        todo += map(Requirement, metadata.requires(name) or [])
    return found


def installed_bytes(package: str) -> int:
    """Of all files that its installer lists, less bytecode."""
    paths = [file.locate() for file in metadata.files(package) or [] if file.suffix != ".pyc"]
    return sum(os.stat(path).st_size for path in paths if os.path.exists(path))


def sizes() -> None:
    """Print the table of sizes."""
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    print("| installed | packages | MiB | the largest |\n|---|---|---|---|")
    for title, requirements in {"to serve a frozen model": SERVED, "all that plq requires": whole}.items():
        found = {package: installed_bytes(package) for package in required(requirements)}
        largest = sorted(found, key=lambda package: -found[package])[:5]
        shown = ", ".join(f"{package} {found[package] / 2**20:.0f}" for package in largest)
        print(f"| {title} | {len(found)} | {sum(found.values()) / 2**20:.0f} | {shown} |")


def measure(statement: str) -> tuple[float, float, int]:
    """Seconds, MiB and modules of a process that does this alone."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", TIMED.format(statement)]
    printed = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout
    seconds, mebibytes, modules = json.loads(printed.splitlines()[-1])
    return seconds, mebibytes, modules


def times(repeats: int) -> None:
    """Print the table of times; the ratio is the median of the ratios within a round."""
    rounds = [{name: measure(statement) for name, statement in VARIANTS.items()} for _ in range(repeats + 1)][1:]
    base = next(iter(VARIANTS))
    print("| imports of | seconds (median) | (range) | of `import jax` | process, MiB | modules |")
    print("|---|---|---|---|---|---|")
    for name in VARIANTS:
        seconds, mebibytes, modules = zip(*(measured[name] for measured in rounds), strict=True)
        ratio = statistics.median(measured[name][0] / measured[base][0] for measured in rounds)
        spread = f"{statistics.median(seconds):.2f} | {min(seconds):.2f} to {max(seconds):.2f} | {ratio:.2f}"
        print(f"| {name} | {spread} | {statistics.median(mebibytes):.0f} | {modules[0]:,} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    print(f"Python {platform.python_version()}, jax {metadata.version('jax')}, {os.cpu_count()} cores\n")
    sizes()
    print()
    times(given.repeats)


if __name__ == "__main__":
    main()
