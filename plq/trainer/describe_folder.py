"""What a folder of pictures holds: classes, counts, sizes, formats, and what is left out."""

import statistics
from collections import Counter
from typing import Any

from plq.data.folder import NAMED, ImageFolder
from plq.errors import printable
from plq.report.table import format_table


def facts_of(folder: ImageFolder) -> dict[str, Any]:
    """As JSON values."""
    pictures = [picture for split in folder.splits.values() for picture in split]
    counts = {name: Counter(picture.label for picture in some) for name, some in folder.splits.items()}
    twice = folder.in_two_splits()
    return {
        "classes": {
            name: {split: counts[split][label] for split in counts} for label, name in enumerate(folder.class_names)
        },
        "height": _range([picture.facts.height for picture in pictures]),
        "width": _range([picture.facts.width for picture in pictures]),
        "formats": dict(Counter(picture.facts.format for picture in pictures).most_common()),
        "modes": dict(Counter(picture.facts.mode for picture in pictures).most_common()),
        "unreadable": list(folder.unreadable),
        "ignored": dict(folder.ignored.most_common()),
        "in_two_splits": [list(names) for names in twice],
    }


def _range(numbers: list[int]) -> dict[str, float]:
    return {"min": min(numbers), "median": statistics.median(numbers), "max": max(numbers)}


def print_facts(folder: ImageFolder) -> None:
    """As tables and lines."""
    facts = facts_of(folder)
    splits = list(folder.splits)
    rows = [[name, *counts.values()] for name, counts in facts["classes"].items()]
    print(format_table(["class", *splits], rows, ["total", *folder.sizes.values()]))
    for side in ("height", "width"):
        print("{}: {min:,} to {max:,} pixels, median {median:,g}".format(side, **facts[side]))
    for name in ("formats", "modes", "ignored"):
        print(f"{name}: {', '.join(f'{kind} {count:,}' for kind, count in facts[name].items()) or 'none'}")
    for name, found in (("unreadable", facts["unreadable"]), ("in two splits", facts["in_two_splits"])):
        examples = [one if isinstance(one, str) else " = ".join(map(printable, one)) for one in found[:NAMED]]
        print(f"{name}: {len(found):,}{', as ' if found else ''}{'; '.join(examples)}")
