"""The functions of kernels/functions.c in NumPy, operation by operation: both give the same bits."""

from collections.abc import Callable

import numpy as np

Float = np.float32


def _exp(x: np.ndarray) -> np.ndarray:
    high = np.minimum(x, 700.0)
    inside = np.where(high >= -700.0, high, 0.0)
    n = np.trunc(inside * 1.4426950408889634 + np.where(inside < 0, -0.5, 0.5))
    r = (inside - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10
    p = np.ones_like(r)
    for k in range(14, 0, -1):
        p = 1.0 + p * r / k
    found = p * ((1023 + n.astype(np.int64)) << 52).view(np.float64)
    return np.where(x >= -700.0, found, np.where(np.isnan(x), x, 0.0))


def _log(x: np.ndarray) -> np.ndarray:
    legal = (x > 0) & (x <= 1e300)
    bits = np.where(legal, x, 1.0).view(np.int64)
    exponent = (bits >> 52) - 1023
    mantissa = ((bits & 0xFFFFFFFFFFFFF) | (1023 << 52)).view(np.float64)
    large = mantissa > 1.4142135623730951
    mantissa, exponent = np.where(large, mantissa * 0.5, mantissa), exponent + large
    s = (mantissa - 1.0) / (mantissa + 1.0)
    square, total = s * s, np.zeros_like(s)
    for k in range(25, 0, -2):
        total = total * square + 1.0 / k
    found = 2.0 * (s * total) + exponent.astype(np.float64) * 0.6931471805599453
    return np.where(legal, found, np.where(x > 0, x, np.where(x == 0, -np.inf, np.nan)))


def _sqrt(x: np.ndarray) -> np.ndarray:
    legal = (x > 0) & (x <= 1e300)
    inside = np.where(legal, x, 1.0)
    guess = ((inside.view(np.int64) >> 1) + (511 << 52) + (1 << 51)).view(np.float64)
    for _ in range(6):
        guess = 0.5 * (guess + inside / guess)
    return np.where(legal, guess, np.where((x == 0) | (x > 0), x, np.nan))


def _tanh(x: np.ndarray) -> np.ndarray:
    e = _exp(-2.0 * np.abs(x))
    t = (1.0 - e) / (1.0 + e)
    return np.where(x < 0, -t, t)


def _erf(x: np.ndarray) -> np.ndarray:
    v = np.abs(x)
    v = np.where(v > 4.0, 4.0, v)
    total = np.ones_like(v)
    for k in range(60, 0, -1):
        total = 1.0 + total * (2.0 * v * v) / (2 * k + 1)
    total = 1.1283791670955126 * _exp(-v * v) * v * total
    return np.where(x < 0, -total, total)


def _in_double(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: function(x.astype(np.float64)).astype(Float)


FUNCTION: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exp": _in_double(_exp),
    "expm1": _in_double(lambda x: _exp(x) - 1.0),
    "log": _in_double(_log),
    "log1p": _in_double(lambda x: _log(1.0 + x)),
    "tanh": _in_double(_tanh),
    "sigmoid": _in_double(lambda x: 1.0 / (1.0 + _exp(-x))),
    "erf": _in_double(_erf),
    "sqrt": _in_double(_sqrt),
    "rsqrt": _in_double(lambda x: 1.0 / _sqrt(x)),
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.round,
}


def power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a to the power of b, for a above 0; 0 to a positive power is 0."""
    a, b = np.broadcast_arrays(a, b)
    found = _exp(b.astype(np.float64) * _log(a.astype(np.float64))).astype(Float)
    at_zero = np.where(b > 0, Float(0), np.where(b == 0, Float(1), Float(np.inf)))
    return np.where(a == 0, at_zero, found)


ARITHMETIC: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide,
    "maximum": lambda a, b: np.where(a > b, a, b), "minimum": lambda a, b: np.where(a < b, a, b), "power": power,
    "equal": np.equal, "not_equal": np.not_equal, "less": np.less, "less_equal": np.less_equal,
    "greater": np.greater, "greater_equal": np.greater_equal,
}  # fmt: skip
