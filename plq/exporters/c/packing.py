"""Weights in the layouts that the kernels read; see the comment at the head of each of `kernels/`."""

import numpy as np

from plq.exporters.c.geometry import BLOCK

ODD = 8  # byte 2 i of a lookup is feature i, byte 2 i + 1 feature i + ODD
ORDER = np.arange(BLOCK).reshape(2, ODD).T.reshape(-1)


def _padded(array: np.ndarray, axis: int, to: int) -> np.ndarray:
    """Zeros behind an axis up to a multiple of ``to``."""
    after = -array.shape[axis] % to
    return np.pad(array, [(0, after if index == axis % array.ndim else 0) for index in range(array.ndim)])


def lut(codes: np.ndarray, planes: bool) -> np.ndarray:
    """uint8, of codes [segments, positions, channels, features]."""
    codes = _padded(_padded(codes.astype(np.uint8), 2, 4), 3, BLOCK)
    segments, features = len(codes), codes.shape[3]
    fours = codes.reshape(segments, -1, 4, features)  # [segments, tables, channel, features]
    fours = _padded(fours, 1, 4)
    bits = [sum(((fours[:, :, c] >> plane) & 1) << c for c in range(4)) for plane in range(1 + planes)]
    halves = [_half(np.asarray(nibbles)) for nibbles in bits]  # [blocks, segments, fours, 32] each
    if planes:
        return np.stack(halves, 3).reshape(-1)
    (blocks,) = halves
    pairs = [blocks[start : start + 2] for start in range(0, len(blocks), 2)]
    return np.concatenate([np.moveaxis(pair, 0, 2).reshape(-1) for pair in pairs])


def _half(nibbles: np.ndarray) -> np.ndarray:
    """[blocks, segments, fours, 32] of nibbles [segments, tables, features]."""
    segments, tables, features = nibbles.shape
    parts = nibbles.reshape(segments, tables // 4, 4, features // BLOCK, BLOCK)[..., ORDER]
    first, second = parts[:, :, 0] | parts[:, :, 2] << 4, parts[:, :, 1] | parts[:, :, 3] << 4
    return np.moveaxis(np.concatenate([first, second], -1), 2, 0)


def dot(weights: np.ndarray) -> np.ndarray:
    """uint8 (the bytes of int8), of integers [segments, positions, channels, features]."""
    rows = _padded(_padded(weights.reshape(len(weights), -1, weights.shape[3]), 1, 4), 2, BLOCK)
    parts = rows.reshape(len(rows), -1, 4, rows.shape[2] // BLOCK, BLOCK)
    return parts.transpose(3, 0, 1, 4, 2).astype(np.int8).reshape(-1).view(np.uint8)


def real(weights: np.ndarray) -> np.ndarray:
    """float32, of [segments, positions, channels, features]."""
    rows = _padded(weights.reshape(len(weights), -1, weights.shape[3]), 2, BLOCK)
    parts = rows.reshape(len(rows), -1, rows.shape[2] // BLOCK, BLOCK)
    return parts.transpose(2, 0, 1, 3).astype(np.float32).reshape(-1)


def wide(weights: np.ndarray) -> np.ndarray:
    """int32, of [segments, positions, channels, features]."""
    rows = _padded(weights.reshape(len(weights), -1, weights.shape[3]), 2, BLOCK)
    return rows.astype(np.int32).reshape(-1)


def depthwise(weights: np.ndarray) -> np.ndarray:
    """int16, of [segments, positions, 1, features]: one position per segment."""
    return weights.astype(np.int16).reshape(-1)


def dot_limit(weights: np.ndarray, largest: int) -> int:
    """How many pairs of products fit into 16 bits, whatever the numbers; 0: not one, or too few to be worth it."""
    rows = _padded(weights.reshape(len(weights), -1, weights.shape[3]), 1, 2).astype(np.int64)
    pairs = rows.reshape(len(rows), -1, 2, rows.shape[2])
    most = max(int(np.maximum(sign * pairs, 0).sum(2).max()) for sign in (1, -1)) * largest
    return (2**15 - 1) // max(1, most)


def depthwise_fits(weights: np.ndarray, largest: int) -> bool:
    """Whether no sum of products can exceed 16 bits, whatever the numbers."""
    return int(np.abs(weights.astype(np.int64)).sum((0, 1, 2)).max()) * largest < 2**15


def lut_limit(largest: int) -> int:
    """How many fours of tables fit into a byte: AVX2 looks up two of them in a lane."""
    return 255 // (2 * 4 * max(1, largest))
