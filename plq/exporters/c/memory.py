"""Where each buffer of a workspace lies: buffers that are never alive at once share their bytes."""

import dataclasses

ALIGNMENT = 64


@dataclasses.dataclass(frozen=True)
class Buffer:
    """``first`` to ``last``: the stages in which it must be kept, both included."""

    name: str
    bytes: int
    first: int
    last: int


def place(buffers: list[Buffer]) -> tuple[dict[str, int], int]:
    """The offset of each buffer, and the bytes of all together. The largest are placed first, each as low as it can."""
    placed: list[tuple[int, int, Buffer]] = []
    for buffer in sorted(buffers, key=lambda buffer: (-buffer.bytes, buffer.first, buffer.name)):
        size = -(-buffer.bytes // ALIGNMENT) * ALIGNMENT
        beside = sorted(at[:2] for at in placed if at[2].first <= buffer.last and buffer.first <= at[2].last)
        start = 0
        for low, high in beside:
            if low - start >= size:
                break
            start = max(start, high)
        placed.append((start, start + size, buffer))
    return {buffer.name: low for low, _, buffer in placed}, max((high for _, high, _ in placed), default=0)
