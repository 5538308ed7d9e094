"""An ONNX model in the making: nodes in the order in which they are added, constants, and names."""

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

OPSET, IR_VERSION = 17, 8


class Writer:
    """Collects nodes and constants. Values are known by their names, as in ONNX itself."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self._taken: set[str] = set()

    def name(self, wanted: str) -> str:
        """The name, or the first of name_2, name_3, ... that nothing has."""
        name, count = wanted, 1
        while name in self._taken:
            count += 1
            name = f"{wanted}_{count}"
        self._taken.add(name)
        return name

    def constant(self, value: Any, name: str) -> str:
        """The name of an array. One that was asked for by the same name is used again if it is the same."""
        array, known = np.asarray(value), self.constants.get(name)
        if known is not None and known.dtype == array.dtype and np.array_equal(known, array):
            return name
        name = self.name(name)
        self.constants[name] = array
        return name

    def add(self, op: str, inputs: list[str], name: str, domain: str = "", **attributes: Any) -> str:
        """Append a node. Returns the name of its output, which is also in the node's own name."""
        output = self.name(name)
        self.nodes.append(helper.make_node(op, inputs, [output], f"{op}:{output}", domain=domain, **attributes))
        return output

    def rename(self, old: str, new: str) -> None:
        """Give a value that a node computes another name."""
        for node in self.nodes:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    names[index] = new if name == old else name

    def model(
        self,
        image: onnx.ValueInfoProto,
        outputs: list[onnx.ValueInfoProto],
        properties: dict[str, str],
        domains: dict[str, int] | None = None,
    ) -> onnx.ModelProto:
        """The whole model. ``properties``: its metadata. ``domains``: versions of operator sets beside ONNX's own."""
        initializers = [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        graph = helper.make_graph(self.nodes, "plq", [image], outputs, initializers)
        opsets = [helper.make_opsetid(*pair) for pair in {"": OPSET, **(domains or {})}.items()]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="plq")
        helper.set_model_props(model, properties)
        return model
