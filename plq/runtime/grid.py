"""The values that quantized tensors can have: integers times a scale."""

import dataclasses

import numpy as np

from plq.errors import UserError

MAX_BITS = 8
MAX_LEVEL = 2**15


@dataclasses.dataclass(frozen=True)
class Grid:
    """What codes of ``bits`` bits stand for: value = (level + offset) * scale, level = code or ``levels[code]``.

    Invariants:
        bits    1 to 8; codes are in [0, 2**bits), or in [0, len(levels))
        offset  a multiple of 1/2
        levels  None, or 2 to 2**bits rising integers: a non-uniform grid

    The scale is not part of it: a kernel has one per tensor, channel or position. What is multiplied in integer
    arithmetic are `integers`, so that value = integer * (scale / multiple) and an integer of 0 is a value of exactly 0.
    """

    bits: int
    offset: float = 0.0
    levels: tuple[int, ...] | None = None

    @property
    def codes(self) -> int:
        """How many codes there are."""
        return 2**self.bits if self.levels is None else len(self.levels)

    @property
    def multiple(self) -> int:
        """1, or 2 where the offset is an odd number of halves."""
        return 1 if self.offset == int(self.offset) else 2

    @property
    def integers(self) -> np.ndarray:
        """int32 [codes]: ``multiple * (level + offset)`` by code, rising."""
        levels = np.arange(self.codes) if self.levels is None else np.array(self.levels)
        return (self.multiple * (levels + self.offset)).astype(np.int32)

    @property
    def largest(self) -> int:
        """The largest magnitude among `integers`."""
        return int(np.abs(self.integers).max())

    def check(self, where: str) -> None:
        """Raise UserError, naming ``where``, unless the invariants hold."""
        if not 1 <= self.bits <= MAX_BITS:
            raise UserError(f"{where}: found {self.bits} bits, allowed 1 to {MAX_BITS}")
        if abs(self.offset) > MAX_LEVEL or 2 * self.offset != int(2 * self.offset):
            raise UserError(f"{where}: found offset {self.offset:.6g}, allowed multiples of 1/2 up to {MAX_LEVEL}")
        if self.levels is None:
            return
        if not 2 <= len(self.levels) <= 2**self.bits:
            raise UserError(f"{where}: found {len(self.levels)} levels, allowed 2 to {2**self.bits}")
        rising = all(a < b for a, b in zip(self.levels, self.levels[1:], strict=False))
        if not rising or max(map(abs, self.levels)) > MAX_LEVEL:
            raise UserError(f"{where}: levels must rise and be integers up to {MAX_LEVEL}")
