"""Constant arrays as C. Bytes are string literals, which compilers read many times faster than lists of numbers."""

import numpy as np

PER_LINE = 24
FULL = [f"\\{byte:03o}" for byte in range(256)]
CTYPES = {"float32": "float", "int32": "int32_t", "int16": "int16_t", "uint8": "unsigned char"}


def array(name: str, values: np.ndarray) -> str:
    """``static const TYPE name[] = ...``, of a flat array of one of the types in `CTYPES`."""
    kind = CTYPES[values.dtype.name]
    if kind == "unsigned char":
        lines = "\n".join(f'    "{_literal(values[start : start + 64])}"' for start in range(0, len(values), 64))
        return f"static const {kind} {name}[{len(values)} + 1] ALIGNED =\n{lines};"
    shown = [number(value) for value in values]
    rows = ",\n".join("    " + ", ".join(shown[at : at + PER_LINE // 2]) for at in range(0, len(shown), PER_LINE // 2))
    return f"static const {kind} {name}[{len(values)}] ALIGNED = {{\n{rows}}};"


def number(value: np.generic) -> str:
    """A literal of exactly this value."""
    if not isinstance(value, np.floating):
        found = int(value)
        return "(-2147483647 - 1)" if found == -(2**31) else str(found)
    return f"{float(value).hex()}f"


def _literal(values: np.ndarray) -> str:
    """Octal escapes."""
    return "".join(FULL[value] for value in values.tolist())


def structure(kind: str, name: str, fields: list[str]) -> str:
    """``static const struct kind name = {fields};``"""
    return f"static const struct {kind} {name} = {{{', '.join(fields)}}};"
