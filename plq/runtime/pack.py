"""Codes of few bits as bytes: a stream of bits without gaps, on the host.

Code i takes the bits [i * bits, (i + 1) * bits) of the stream, its lowest bit first; bit j of the stream is bit
j % 8 of byte j // 8, counted from the lowest. So two 4-bit codes make a byte, the first in its low half, and eight
3-bit codes make three bytes: codes of any of 1 to 8 bits are stored in as many. What is left of the last byte is 0.
"""

import math

import numpy as np


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """uint8 [ceil(codes.size * bits / 8)] of uint8 codes below 2**bits, of any shape, the last axis fastest.

    Raises ValueError if a code has more bits.
    """
    if codes.size and int(codes.max()) >= 2**bits:
        raise ValueError(f"found the code {int(codes.max())}, allowed {bits} bits")
    stream = np.unpackbits(np.ascontiguousarray(codes).reshape(-1, 1), axis=1, count=bits, bitorder="little")
    return np.packbits(stream.reshape(-1), bitorder="little")


def unpack(data: np.ndarray, bits: int, shape: tuple[int, ...]) -> np.ndarray:
    """The uint8 codes of this shape. Raises ValueError for another number of bytes, or if unused bits are set."""
    count = math.prod(shape)
    if data.size != packed_size(count, bits):
        raise ValueError(f"found {data.size:,} bytes, allowed {packed_size(count, bits):,}")
    used = count * bits % 8
    if used and int(data[-1]) >> used:
        raise ValueError("found bits that are set behind the last code")
    stream = np.unpackbits(data, count=count * bits, bitorder="little")
    return np.packbits(stream.reshape(count, bits), axis=1, bitorder="little").reshape(shape)


def packed_size(count: int, bits: int) -> int:
    """Bytes that so many codes take."""
    return -(-count * bits // 8)
