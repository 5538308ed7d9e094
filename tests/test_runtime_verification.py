"""The frozen model computes what the network computes, code by code, but for ties; anything else is noticed."""

import dataclasses
from functools import cache

import numpy as np
import pytest
from frozen import Mixed, used, with_node, with_tensor

from plq.errors import UserError
from plq.layers.factory import QuantConfig, plain_factory
from plq.runtime.nodes import IMAGE_NODES
from plq.runtime.verification import DRAWS, TIE, changed_by_last_bits, differences, with_other_last_bits

CASES = {
    "dorefa 1/1": QuantConfig("dorefa", 1, "abs", 1, first_bits=8, last_bits=8),
    "xnor 1/2": QuantConfig("xnor", 1, "clip", 2),
    "syq 2/2, per position": QuantConfig("syq", 2, "abs", 2),
    "syq 1/1, per row": QuantConfig("syq", 1, "clip", 1, granularity="row"),
    "lsq 4/4, per channel": QuantConfig("lsq", 4, "lsq_plus", 4, granularity="channel", last_bits=4),
    "apot 3/3": QuantConfig("apot", 3, "apot", 3),
    "sawb 3, pact 8": QuantConfig("sawb", 3, "pact", 8),
    "dorefa 8, lsq 8": QuantConfig("dorefa", 8, "lsq", 8, first_bits=8),
    "float weights": QuantConfig(weight_bits=32, activation_bits=2),
    "float activations": QuantConfig(weight_bits=2, activation_bits=32),
}
made = cache(used)


@pytest.mark.parametrize("case", CASES)
def test_codes_are_equal_at_every_layer_but_for_ties(case):
    model, reference, images = made(CASES[case])
    found = differences(model, reference, images)
    assert all(difference.tie for difference in found) and len(found) <= 2


def test_the_network_compared_has_every_node():
    graph = made(CASES["xnor 1/2"])[0].frozen.graph
    assert {node.op for node in graph.nodes} == {kind.op for kind in IMAGE_NODES}


def test_the_model_does_not_depend_on_the_batch():
    model, _, images = made(CASES["lsq 4/4, per channel"])
    one_by_one = np.concatenate([model(image[None]) for image in images[:3]])
    np.testing.assert_allclose(np.asarray(model(images))[:3], one_by_one, rtol=1e-5, atol=1e-5)


def flipped(codes: np.ndarray) -> np.ndarray:
    codes.flat[0] ^= 1
    return codes


WRONG = {
    "one code": lambda model: with_tensor(model, "uneven/conv/kernel", flipped),
    "a scale": lambda model: with_tensor(model, "grouped/conv/scale", lambda scale: scale * 1.01),
    "batch norm": lambda model: with_tensor(model, "wide/norm/shift", lambda shift: shift + 0.1),
    "padding": lambda model: with_node(model, "uneven/conv", padding=((1, 1), (1, 1))),
    "dilation": lambda model: with_node(model, "depthwise/conv", dilation=(1, 1), padding=((1, 1), (1, 1))),
    "pooling": lambda model: with_node(model, "stem/max_pool", padding=((0, 1), (1, 1))),
    "activation": lambda model: with_node(model, "stem/act", nonlinearity="abs"),
    "pixels": lambda model: with_node(model, "normalize", std=(255.0,)),
    "the last layer": lambda model: with_tensor(model, "last/conv/kernel", lambda kernel: kernel[:, ::-1]),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_model_that_is_not_the_network_is_noticed(wrong):
    model, reference, images = made(CASES["xnor 1/2"])
    found = differences(WRONG[wrong](model), reference, images)
    assert found and not all(difference.tie for difference in found)


def test_what_is_a_tie():
    """With a shift that is off by a hundredth of a step, codes change only where a middle between two is that near."""
    model, reference, images = made(CASES["dorefa 8, lsq 8"])
    step = next(node.scale for node in model.frozen.graph.nodes if node.name == "stem/act")
    nudged = lambda by: with_tensor(model, "stem/norm/shift", lambda shift: shift + np.float32(by * step))
    found = differences(nudged(0.01), reference, images)
    assert len(found) > 8 and {difference.node for difference in found} == {"stem/act"}
    assert all(difference.tie for difference in found) and 0 < max(d.apart for d in found) <= 0.0101 / 255 < TIE
    assert not any(difference.tie for difference in differences(nudged(1.0), reference, images))


def test_products_in_bfloat16_are_another_network():
    """Freezing compares with exact products: see `plq.cli.freeze.read_source`."""
    model, reference, images = made(CASES["xnor 1/2"])
    rough = Mixed(plain_factory(QuantConfig("xnor", 1, "clip", 2, dtype="bfloat16")))
    found = differences(model, dataclasses.replace(reference, network=rough), images)
    assert not all(difference.tie for difference in found)


def test_images_are_checked_and_fitted():
    model, _, images = made(CASES["xnor 1/2"])
    assert model(images[:2, ::2, ::2]).shape == (2, 10)
    with pytest.raises(UserError, match="images: found float64 .*allowed uint8"):
        model(images / 2)


def test_a_tie_that_some_draws_leave_alone_is_found():
    """Two numbers, equal but for a last bit: which one is larger changes in the draws that move them apart."""
    numbers = {"a": np.float32([1.0]), "b": np.float32([1.0 + 2**-23])}
    classes = lambda variables: np.array([int(variables["b"][0] > variables["a"][0]), 1])
    draws = [classes(with_other_last_bits(numbers, draw))[0] for draw in range(DRAWS)]
    assert 0 < sum(draws) < DRAWS
    assert changed_by_last_bits(classes, numbers, classes(numbers)) == 1
    apart = {"a": np.float32([1.0]), "b": np.float32([1.1])}
    assert changed_by_last_bits(classes, apart, classes(apart)) == 0
