"""C as a format of `plq.exporters`: a folder, which is compiled and run to check it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from plq.exporters.c.build import FLAGS, library
from plq.exporters.c.engine import HOOK, NAME, Compiled
from plq.exporters.c.folder import files_of
from plq.exporters.c.source import Source
from plq.exporters.c.templates import header
from plq.exporters.check import Exported, Integers
from plq.report.table import format_table, human_bytes
from plq.runtime.graph import Graph
from plq.runtime.nodes import Activation


def c_files(graph: Graph, name: str, images: np.ndarray | None) -> tuple[dict[str, str], list[str]]:
    """The files of an export, and lines about them."""
    files, source = files_of(graph, name, images)
    return files, notes_of(source, files[f"{name}.c"])


def notes_of(source: Source, text: str) -> list[str]:
    """Lines about a source: the kernel of each layer, and what it takes of a device."""
    total = max(1, sum(row.macs for row in source.rows))
    rows = [
        [row.name, row.family, f"{row.macs:,}", f"{row.bytes:,}", f"{100 * row.macs / total:.1f} %"]
        for row in source.rows
    ]
    table = format_table(["layer", "kernel", "multiply-adds", "bytes", "share"], rows)
    sizes = f"constants {human_bytes(source.flash)}, workspace {human_bytes(source.workspace)}"
    return [table, f"C99, {human_bytes(len(text))} of source; {sizes}"]


def run_c(graph: Graph) -> Callable[[Path], Exported]:
    """What runs an exported folder: compiled with this machine's compiler. Raises UserError if there is none."""

    def preflight(folder: Path) -> Exported:
        texts = {path.name: path.read_text() for path in folder.iterdir() if path.suffix in (".c", ".h")}
        name = next(name[:-2] for name in texts if name.endswith(".h"))
        plain = Compiled(
            Source(graph, name), library({k: v for k, v in texts.items() if k in (f"{name}.c", f"{name}.h")})
        )
        return Exported(plain.logits, lambda images: integers(graph, images))

    return preflight


def integers(graph: Graph, images: np.ndarray) -> Integers:
    """What the quantized activations give, by the same source with a hook behind each stage."""
    source = Source(graph, NAME)
    files = {f"{NAME}.h": header(graph, NAME, source.workspace), f"{NAME}.c": source.text, "hook.c": HOOK}
    hooked = Compiled(source, library(files, (*FLAGS, f"-D{NAME}_PROFILE")))
    names = [node.name for node in graph.nodes if isinstance(node, Activation) and node.grid is not None]
    found = [hooked.stages(image) for image in images]
    return {name: np.stack([stages[name] for stages in found]) for name in names}
