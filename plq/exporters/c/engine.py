"""A frozen model compiled for the machine at hand: `plq.load(path, engine="native")`."""

import ctypes
import dataclasses
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from plq.checks import integer
from plq.data.resize import resize_batch, resize_image
from plq.errors import UserError
from plq.exporters.c.build import library
from plq.exporters.c.source import Source
from plq.exporters.c.templates import header
from plq.runtime.executor import plan
from plq.runtime.file_format import Frozen, read
from plq.runtime.graph import Graph
from plq.runtime.heads import split
from plq.storage.address import Address
from plq.storage.staging import staged_input

NAME = "model"
MAX_THREADS = 1024
HOOK = """
#include "model.h"
static void (*hook)(int, const void *);
void model_set(void (*given)(int, const void *)) { hook = given; }
void model_done(int stage, const void *result) { hook(stage, result); }
"""


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A graph as a library. ``source``: what it was made of."""

    source: Source
    path: Path

    @cached_property
    def functions(self) -> ctypes.CDLL:
        """What the shared object exports, loaded."""
        return ctypes.CDLL(str(self.path))

    def logits(self, images: np.ndarray) -> np.ndarray:
        """float32 [batch, classes], of uint8 images [batch, *image_shape], in the calling thread, without the GIL."""
        graph = self.source.graph
        if images.shape[1:] != graph.image_shape or images.dtype != np.uint8:
            raise UserError(f"images: found {images.dtype} {list(images.shape)}, allowed uint8 [n, *image_shape]")
        images = np.ascontiguousarray(images)
        logits = np.empty((len(images), *graph.output_shape), np.float32)
        workspace = np.empty(self.source.workspace, np.uint8)
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (images, logits, workspace)]
        getattr(self.functions, f"{self.source.name}_predict_batch")(
            *pointers[:2], ctypes.c_size_t(len(images)), pointers[2], 1
        )
        return logits

    def stages(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """What each stage stores for one image; the library must have been compiled with the hook."""
        found, plan = {}, self.source.plan

        @ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p)
        def done(index: int, result: int) -> None:
            name = plan.stages[index].output
            store = plan.stores[name]
            data = np.frombuffer(ctypes.string_at(result, store.bytes), DTYPES[store.kind]).reshape(store.shape)
            found[name] = data if data.dtype == np.float32 else data.astype(np.int64) + store.base

        self.functions.model_set(done)
        self.logits(image[None])
        return found


DTYPES = {"bytes": np.uint8, "pixels": np.uint8, "integers": np.int32, "reals": np.float32}


def compiled(graph: Graph, *flags: str, hook: bool = False, build: Callable[..., Path] = library) -> Compiled:
    """The library of a checked graph. Raises UserError without a compiler."""
    source = Source(graph, NAME)
    files = {f"{NAME}.h": header(graph, NAME, source.workspace), f"{NAME}.c": source.text}
    if hook:
        files["hook.c"] = HOOK
        flags = (*flags, f"-D{NAME}_PROFILE")
    return Compiled(source, build(files, flags) if flags else build(files))


@dataclasses.dataclass(frozen=True)
class NativeModel:
    """A frozen model that runs as compiled C; used like `plq.runtime.frozen.FrozenModel`.

    ``threads``: how many images are computed at once; each thread of the caller's may call as well.
    """

    frozen: Frozen
    compiled: Compiled
    threads: int

    def fitted(self, image: np.ndarray) -> np.ndarray:
        """An image uint8 [height, width, channels] brought to the network's size as the test images were."""
        return resize_image(image, self.image_shape, self.frozen.fit)

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the logits."""
        return self.frozen.class_names

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[height, width, channels] of what the network sees."""
        return self.frozen.graph.image_shape

    @property
    def training(self) -> dict[str, Any]:
        """Where the model comes from: "config" is the run's, "freezing" what was measured."""
        return self.frozen.training

    def __call__(self, images: np.ndarray) -> Any:
        """Logits, float32 [batch, classes], of uint8 images [batch, height, width, channels] of any size.

        Raises UserError for images of another type or number of channels.
        """
        return split(self.frozen.graph.heads, self._flat(resize_batch(images, self.image_shape, self.frozen.fit)))

    def _flat(self, images: np.ndarray) -> np.ndarray:
        if self.threads == 1 or len(images) < 2:
            return self.compiled.logits(images)
        return np.concatenate(list(self._pool.map(self.compiled.logits, np.array_split(images, self.threads))))

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads)


def native(frozen: Frozen, threads: int = 0) -> NativeModel:
    """The model of a file's content, compiled. ``threads``: 0: one per core that this process may use."""
    if not 0 <= integer("threads", threads) <= MAX_THREADS:
        raise UserError(f"threads {threads}: allowed 1 to {MAX_THREADS}, or 0 for one per core")
    plan(frozen.graph)  # refuses sums that are too large
    return NativeModel(frozen, compiled(frozen.graph), threads or cores())


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load(path: str | Path | Address, threads: int = 0) -> NativeModel:
    """Read a frozen model, also at an address (gs://, s3://), and compile it. Raises UserError for anything else."""
    with staged_input(path) as file:
        frozen = read(file)
    try:
        return native(frozen, threads)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
