"""A network as data: any of ours can be written down, and a graph that does not fit is refused in one line."""

import dataclasses
import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frozen import small, some_variables, written

from plq.errors import UserError
from plq.layers.factory import QuantConfig, plain_factory
from plq.layers.operations import OPERATIONS, flatten, max_pool_2x2
from plq.models.registry import NETWORKS, Architecture
from plq.quant.registry import ACTIVATIONS
from plq.runtime.activations import FORMULAS, activation_fields
from plq.runtime.graph import Graph, parse_nodes
from plq.runtime.grid import Grid
from plq.runtime.lowering import lower as record
from plq.runtime.nodes import NODES, Activation, Conv, Dense, MaxPool

FLOAT = QuantConfig(weight_bits=32, activation_bits=32)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_can_be_written_down(name):
    shape = (96, 96, 3) if name == "alexnet" else (40, 40, 3)
    graph = written(Architecture(name, 7, FLOAT, width=0.05), shape)
    assert graph.values[graph.output].shape == (7,)
    assert parse_nodes(graph.to_json()) == (shape, graph.nodes)


def test_shapes_are_those_of_the_network():
    """The stem of ResNet-18 pads and pools, AlexNet pads "SAME" at stride 2, both unevenly."""
    for name, size in (("resnet18", 50), ("alexnet", 101)):
        network = Architecture(name, 3, FLOAT, width=0.05).plain()
        variables = some_variables(network, (size, size, 3))
        graph = record(network, variables, (size, size, 3), (0.0,), (1.0,))
        convolutions = [node for node in graph.nodes if isinstance(node, (Conv, Dense))]
        found = {node.name: graph.values[node.name].shape for node in convolutions}
        seen = {}

        def watch(next_function, args, kwargs, context, seen=seen):
            output = next_function(*args, **kwargs)
            seen["/".join(context.module.path)] = getattr(output, "shape", None)
            return output

        with nn.intercept_methods(watch):
            jax.eval_shape(network.apply, variables, np.zeros((1, size, size, 3), np.float32))
        assert found == {path: seen[path][1:] for path in found} and len(found) > 7


def test_every_operation_has_a_node_with_the_same_options():
    for name, function in OPERATIONS.items():
        options = set(inspect.signature(function).parameters) - {"x"}
        assert {field.name for field in dataclasses.fields(NODES[name])} == {"name", "inputs"} | options


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_can_be_written_down_with_its_codes(name):
    """`activation_fields` itself compares the codes on both sides of every boundary."""
    assert ACTIVATIONS[name] in FORMULAS
    legal = [bits for bits in (1, 2, 4, 32) if bits in ACTIVATIONS[name].legal_bits]
    for bits in legal:
        quantizer = ACTIVATIONS[name](bits)
        scales = {scale: jnp.float32(0.37) for scale in quantizer.scale_names}
        if "offset" in scales:
            scales["offset"] = jnp.float32(-0.4)
        fields = activation_fields(quantizer, scales)
        assert (fields.get("grid") is None) == (bits == 32)


def test_an_activation_whose_formula_has_changed_is_noticed(monkeypatch):
    quantizer = ACTIVATIONS["clip"](2)
    monkeypatch.setitem(FORMULAS, type(quantizer), FORMULAS[ACTIVATIONS["lsq_plus"]])
    with pytest.raises(UserError, match=r"ClipActivation: its formula in .* is out of date"):
        activation_fields(quantizer, {})


def test_kernels_are_those_that_training_multiplies_by():
    graph = small().graph
    precision = QuantConfig("dorefa", 2, "clip", 2)
    network = Architecture("svhn", 10, precision, width=0.02).plain()
    variables = some_variables(network, graph.image_shape)
    for node in graph.nodes:
        if isinstance(node, Conv) and node.grid is not None:
            unit = node.name.split("/")[0]
            wanted = precision.weight_quantizer().fake_quantize(variables["params"][unit]["conv"]["kernel"])
            np.testing.assert_array_equal(graph.kernel(node), wanted)


class Odd(nn.Module):
    """A network of one layer with any field."""

    kit: object
    fields: dict
    after: object = flatten

    @nn.compact
    def __call__(self, x, train=False):
        return self.after(self.kit.inner(**{"features": 2, "name": "layer", **self.fields})(x, train))


def odd(after=flatten, **fields):
    network = Odd(plain_factory(FLOAT), fields, after)
    return record(network, some_variables(network, (8, 8, 1)), (8, 8, 1), (0.0,), (1.0,))


def test_what_cannot_be_written_down_is_refused_by_name():
    assert odd(dilation=(2, 2), padding="SAME").nodes[1].padding == ((2, 2), (2, 2))
    with pytest.raises(UserError, match="Odd: cannot be traced with these variables"):
        record(Odd(plain_factory(FLOAT), {}), {"params": {}}, (8, 8, 1), (0.0,), (1.0,))
    assert [node.op for node in odd(after=lambda y: (flatten(y), max_pool_2x2(y))[0]).nodes] == [
        "normalize",
        "conv",
        "affine",
        "activation",
        "flatten",
    ]
    assert odd(after=lambda y: y).output_shape == (8, 8, 2)


@pytest.mark.parametrize(("after", "message"), [
    (lambda y: jnp.sort(y), "network: found the operation sort on what depends on the images, allowed one with a node"),
    (lambda y: y.astype(jnp.bfloat16), "found a conversion from float32 to bfloat16, allowed float32 throughout"),
    (lambda y: y - y.mean(0, keepdims=True), "found a sum over the images of a batch, allowed axes of one image"),
    (lambda y: y.reshape(-1, 2), "found a reshape of .2, 8, 8, 2. to .128, 2., allowed one that keeps the axis of the"),
    (lambda y: y[:1], "found a slice of the images of a batch"),
    (lambda y: jnp.concatenate([y, y]), "found a concatenation along the images of a batch"),
    (lambda y: jnp.zeros((2, 3)), "Odd: gives a result that does not have one row"),
    (lambda y: (y, jnp.ones(2)), "Odd: gives a result that does not have one row"),
    (lambda y: y + jnp.arange(2.0).reshape(2, 1, 1, 1), "found a constant that differs from image to image"),
    (lambda y: y.T, "Odd: gives a result that does not have one row"),
])  # fmt: skip
def test_what_has_no_node_is_one_line(after, message):
    with pytest.raises(UserError, match=message) as caught:
        odd(after=after)
    assert "\n" not in str(caught.value)


def replaced(graph: Graph, node: str, **fields) -> Graph:
    nodes = tuple(dataclasses.replace(n, **fields) if n.name == node else n for n in graph.nodes)
    return dataclasses.replace(graph, nodes=nodes)


def changed(graph: Graph, name: str, **values) -> Graph:
    """Tensors of a node with other values: conv1__scale=np.ones(3)."""
    return dataclasses.replace(graph, tensors={**graph.tensors, **{f"{name}/{role}": v for role, v in values.items()}})


WRONG = {
    "no image": (lambda g: dataclasses.replace(g, image_shape=(40, 0, 1)), "image_shape: found width 0"),
    "huge image": (lambda g: dataclasses.replace(g, image_shape=(40, 40, 10**9)), "image_shape: found channels 10000"),
    "no nodes": (lambda g: dataclasses.replace(g, nodes=()), "nodes: found 0"),
    "same name": (lambda g: replaced(g, "conv2/conv", name="conv1/conv"), "conv1/conv: there is another one"),
    "path": (lambda g: replaced(g, "conv2/conv", name="../conv"), "'../conv': allowed letters"),
    "absolute": (lambda g: replaced(g, "conv2/conv", name="/conv"), "'/conv': allowed letters"),
    "newline": (lambda g: replaced(g, "conv2/conv", name="a\nb"), r"'a\\nb': allowed letters"),
    "later": (lambda g: replaced(g, "conv1/conv", inputs=("conv2/conv",)), "found the input 'conv2/conv', allowed res"),
    "itself": (lambda g: replaced(g, "conv1/conv", inputs=("conv1/conv",)), "found the input 'conv1/conv'"),
    "two inputs": (lambda g: replaced(g, "conv1/conv", inputs=("conv0/act",) * 2), "found 2 inputs, allowed 1"),
    "image twice": (lambda g: replaced(g, "conv1/conv", inputs=("image",)), "a normalize node first"),
    "unused": (lambda g: replaced(g, "conv1/norm", inputs=("conv0/act",)), "found a result that is not used"),
    "mean": (lambda g: replaced(g, "normalize", mean=(1.0, 2.0)), "found 2 numbers in mean, allowed 1 or 1"),
    "mean size": (lambda g: replaced(g, "normalize", mean=(-1e39,)), "found mean .-1e.39., allowed -3.4e.38 to"),
    "std": (lambda g: replaced(g, "normalize", std=(0.0,)), "found std .0.0., allowed 1.2e-38 to 3.4e.38"),
    "std size": (lambda g: replaced(g, "normalize", std=(1e-46,)), "found std .1e-46., allowed 1.2e-38"),
    "stride": (lambda g: replaced(g, "conv1/conv", strides=(0, 1)), r"found strides \[0, 1\], allowed 1 to"),
    "pads": (lambda g: replaced(g, "conv1/conv", padding=((-1, 0), (0, 0))), r"found padding \[-1, 0, 0, 0\]"),
    "too small": (lambda g: replaced(g, "conv6/conv", dilation=(9, 9)), "found 5x5 pixels, allowed as many as the"),
    "groups": (lambda g: replaced(g, "conv2/conv", groups=7), "found 7 groups, allowed a divisor of"),
    "features": (lambda g: replaced(g, "conv2/conv", features=10**6), "features .1000000., allowed 1 to"),
    "kernel": (lambda g: replaced(g, "conv2/conv", features=5), "found a kernel of shape"),
    "bits": (lambda g: replaced(g, "conv1/conv", grid=Grid(9)), "found 9 bits, allowed 1 to 8"),
    "offset": (lambda g: replaced(g, "conv1/conv", grid=Grid(2, 0.3)), "found offset 0.3, allowed multiples of 1/2"),
    "levels": (lambda g: replaced(g, "conv1/conv", grid=Grid(2, 0.0, (1, 1, 2))), "levels must rise"),
    "many levels": (
        lambda g: replaced(g, "conv1/conv", grid=Grid(1, 0.0, (1, 2, 3))),
        "found 3 levels, allowed 2 to 2",
    ),
    "code": (lambda g: replaced(g, "conv1/conv", grid=Grid(2, 0.0, (0, 1))), "found the code 3, allowed 0 to 1"),
    "scales": (
        lambda g: changed(g, "conv1/conv", scale=np.ones((1, 1, 1), np.float32)),
        r"found scales of shape \[1, 1",
    ),
    "more scales": (lambda g: changed(g, "conv2/conv", scale=np.ones((1, 1, 1, 9), np.float32)), "found scales of"),
    "act offset": (lambda g: replaced(g, "conv1/act", grid=Grid(2, -0.5)), "found offset -0.5, allowed an integer"),
    "act scale": (lambda g: replaced(g, "conv1/act", scale=-1.0), "allowed float32 numbers above 0"),
    "act float": (lambda g: replaced(g, "conv1/act", factor=0.1), "allowed float32 numbers above 0"),
    "act quotient": (lambda g: replaced(g, "conv1/act", scale=0.5), "found scale 0.5, allowed divisor / factor"),
    "act name": (lambda g: replaced(g, "conv1/act", nonlinearity="rleu"), "'rleu' is unknown; did you mean relu"),
    "act rounding": (lambda g: replaced(g, "conv1/act", rounding="up"), "rounding 'up' is unknown"),
    "float with scale": (lambda g: replaced(g, "conv1/act", grid=None), "without a grid"),
    "missing": (lambda g: dataclasses.replace(g, tensors={}), "'conv0/conv/add/scale': missing"),
    "extra": (lambda g: changed(g, "x", y=np.ones(1)), "tensor 'x/y': belongs to no node"),
    "dtype": (lambda g: changed(g, "conv1/norm", scale=np.ones(3)), "found float64, allowed float32"),
    "nan": (lambda g: changed(g, "conv1/norm", scale=np.full(1, np.nan, np.float32)), "not finite"),
    "channels": (lambda g: changed(g, "conv1/norm", scale=np.ones(9, np.float32)), r"found scale of shape \[9\]"),
    "no vector": (
        lambda g: replaced(g, "dense/conv", inputs=("conv6/act",)),
        "allowed one that a later|allowed .channels",
    ),
    "on a grid": (
        lambda g: dataclasses.replace(g, nodes=(*g.nodes, Activation("a", (g.output,), "relu", Grid(2), 1.0))),
        "is the last one, found values on a grid",
    ),
    "window": (
        lambda g: dataclasses.replace(g, nodes=(*g.nodes, MaxPool("a", (g.output,), 2, 2, ((0, 0), (0, 0))))),
        r"found an input of shape \[10\], allowed \[height, width, channels\]",
    ),
}


def test_the_graph_that_is_changed_below_is_right():
    small().graph.check()


@pytest.mark.parametrize("wrong", WRONG)
def test_whatever_does_not_fit_is_one_line(wrong):
    change, message = WRONG[wrong]
    with pytest.raises(UserError, match=message) as caught:
        change(small().graph).check()
    assert "\n" not in str(caught.value)
