"""The constants of NAME.c: arrays, each written down once, and how the numbers of a value are read."""

from collections.abc import Callable

import numpy as np

from plq.exporters.c.chain import c_float
from plq.exporters.c.plan import BYTES, INTEGERS, PIXELS, REALS, Plan, Store
from plq.exporters.c.text import array, structure
from plq.runtime.nodes import Normalize

TYPES = {PIXELS: "uint8_t", BYTES: "uint8_t", INTEGERS: "int32_t", REALS: "float"}
KINDS = {REALS: 0, BYTES: 1, PIXELS: 2, INTEGERS: 4}  # of `struct reals`


class Constants:
    """``parts``: pieces of text in their order, functions too. ``flash``: bytes of all arrays."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.parts: list[str] = []
        self.flash = 0
        self._arrays: dict[str, str] = {}
        self._reals: dict[str, str] = {}

    def array(self, values: np.ndarray, key: str) -> str:
        """The C name of an array. One that was asked for by the same key is used again."""
        if key not in self._arrays:
            self._arrays[key] = f"a{len(self._arrays)}"
            self.flash += values.nbytes
            self.parts.append(array(self._arrays[key], np.ascontiguousarray(values).reshape(-1)))
        return self._arrays[key]

    def tensor(self, name: str) -> str:
        """The C name of a tensor of the graph."""
        return self.array(self.plan.graph.tensors[name], f"tensor {name}")

    def type(self, name: str) -> str:
        """The C type of a value."""
        return TYPES[self.plan.stores[name].kind]

    def element(self, store: Store, x: str, of_group: Callable[[str], str] = str) -> str:
        """The real numbers that stand at f of a value; "@" as in `chain.c_steps`.

        ``of_group``: from a constant with one number per channel to that of the group at hand.
        """
        if store.kind == REALS:
            return f"@load({x} + f)"
        if store.kind == PIXELS:
            channels = self.plan.graph.image_shape[2]
            minus, std = (np.broadcast_to(numbers, (channels,)) for numbers in self._normalization())
            names = [of_group(self.array(values, key)) for values, key in ((minus, "minus mean"), (std, "std"))]
            return f"@div(@add(@from_bytes({x} + f, 0), @load({names[0]} + f)), @load({names[1]} + f))"
        numbers = f"@from_bytes({x} + f, {store.base})" if store.kind == BYTES else f"@from_integers({x} + f)"
        return f"@mul({numbers}, @all({c_float(store.scale)}))"

    def _normalization(self) -> tuple[np.ndarray, np.ndarray]:
        """What is added to pixels, and what they are divided by then."""
        node = self.plan.graph.nodes[0]
        assert isinstance(node, Normalize)
        return -np.array(node.mean, np.float32), np.array(node.std, np.float32)

    def reals(self, name: str) -> str:
        """The C name of the `struct reals` that tells how a value is read."""
        if name not in self._reals:
            store = self.plan.stores[name]
            table, shared = "NULL", 0
            if store.kind == PIXELS:
                minus, std = self._normalization()
                normalized = (np.arange(256, dtype=np.float32)[:, None] + minus) / std
                table, shared = self.array(normalized.T, "normalized"), int(normalized.shape[1] == 1)
            self._reals[name] = f"r{len(self._reals)}"
            fields = [str(KINDS[store.kind]), str(store.base), str(shared), c_float(store.scale), table]
            self.parts.append(structure("reals", self._reals[name], fields))
        return self._reals[name]
