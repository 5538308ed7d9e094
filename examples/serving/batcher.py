"""Requests that arrive together go through the network together.

A batch is one image and whatever else arrives while the network is busy or within ``wait`` seconds, ``largest`` images
at most. It is padded with zeros to the next of a few fixed sizes, all of which are run once at the start: nothing is
compiled while somebody waits.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np


def batch_sizes(largest: int) -> list[int]:
    """1, 2, 4, ... and the largest.

    >>> batch_sizes(12)
    [1, 2, 4, 8, 12]
    """
    return [*(2**power for power in range((largest - 1).bit_length())), largest]


class Batcher:
    """``await batcher(image)`` gives the image's row of ``run(images)``. Use it as an asynchronous context.

    Args:
        run: uint8 [size, *shape] -> an array [size, ...], for each of `batch_sizes`; called in one thread.
        shape: of one image.
    """

    def __init__(self, run: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...], largest: int, wait: float):
        self._run, self._shape, self._wait = run, shape, wait
        self._sizes = batch_sizes(largest)
        self._waiting: asyncio.Queue[tuple[np.ndarray, asyncio.Future]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "network")
        self.batches = self.images = 0

    def warm_up(self) -> None:
        """Compile for all sizes."""
        for size in self._sizes:
            self._run(np.zeros((size, *self._shape), np.uint8))

    async def __call__(self, image: np.ndarray) -> np.ndarray:
        """Raises whatever ``run`` raises."""
        result = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((image, result))
        return await result

    async def __aenter__(self) -> "Batcher":
        self._task = asyncio.create_task(self._work())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        self._thread.shutdown()

    async def _work(self) -> None:
        while True:
            batch = [entry for entry in await self._gather() if not entry[1].done()]  # its sender may have gone
            if batch:
                await self._answer(*zip(*batch, strict=True))

    async def _gather(self) -> list[tuple[np.ndarray, asyncio.Future]]:
        batch = [await self._waiting.get()]
        end = asyncio.get_running_loop().time() + self._wait
        while len(batch) < self._sizes[-1]:
            try:
                async with asyncio.timeout_at(end):
                    batch.append(await self._waiting.get())
            except TimeoutError:
                break
        return batch

    async def _answer(self, images: tuple[np.ndarray, ...], results: tuple[asyncio.Future, ...]) -> None:
        size = next(size for size in self._sizes if size >= len(images))
        padded = np.zeros((size, *self._shape), np.uint8)
        padded[: len(images)] = images
        rows: Any
        try:
            rows = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, padded)
        except Exception as error:
            rows = [error] * size
        self.batches, self.images = self.batches + 1, self.images + len(images)
        for result, row in zip(results, rows, strict=False):
            if result.done():
                continue
            if isinstance(row, Exception):
                result.set_exception(row)
            else:
                result.set_result(row)
