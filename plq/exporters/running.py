"""Exported ONNX and QONNX files in use, each by the runtime that it is made for."""

import collections
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from plq.exporters.check import Exported, Integers
from plq.exporters.qdq import QDQ
from plq.exporters.qonnx import QONNX
from plq.exporters.translate import LOGITS, Translator
from plq.runtime.graph import IMAGE
from plq.runtime.nodes import Activation, Normalize


def run_onnx(path: Path, made: QDQ) -> Exported:
    """The ONNX file by ONNX Runtime, on a CPU. ``made``: what it was translated by."""
    session = onnx_session(path.read_bytes())

    def logits(images: np.ndarray) -> np.ndarray:
        return session.run([LOGITS], feed(made, images))[0]

    def integers(images: np.ndarray) -> Integers:
        model = onnx.load(path)
        inside = {name: made.codes[name] for name in quantized(made)}
        names = [codes.name for codes in inside.values()]
        model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.UINT8, None) for name in names)
        found = onnx_session(model.SerializeToString()).run(names, feed(made, images))
        signed = (array.astype(np.float32) - codes.zero for array, codes in zip(found, inside.values(), strict=True))
        return dict(zip(inside, map(channels_last, signed), strict=True))

    return Exported(logits, integers, made.slack)


def onnx_session(model: bytes, threads: int = 0, optimized: str = "") -> Any:
    """A session of ONNX Runtime. ``threads``: 0: one per core. ``optimized``: a file for what it makes of the model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.optimized_model_filepath = optimized
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def operations_of(path: Path) -> dict[str, int]:
    """How often each operation is in what ONNX Runtime makes of a file."""
    with tempfile.TemporaryDirectory() as folder:
        optimized = f"{folder}/optimized.onnx"
        onnx_session(path.read_bytes(), optimized=optimized)
        return dict(collections.Counter(node.op_type for node in onnx.load(optimized).graph.node))


def run_qonnx(path: Path, made: QONNX) -> Exported:
    """The QONNX file by qonnx's own executor. ``made``: what it was translated by."""

    def values(images: np.ndarray) -> dict[str, np.ndarray]:
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.core.onnx_exec import execute_onnx
        from qonnx.transformation.change_batchsize import ChangeBatchSize
        from qonnx.transformation.infer_shapes import InferShapes

        model = ModelWrapper(str(path)).transform(ChangeBatchSize(len(images))).transform(InferShapes())
        return execute_onnx(model, feed(made, images), return_full_exec_context=True)

    def integers(images: np.ndarray) -> Integers:
        found = values(images)
        scaled = {name: found[made.reals[name]] / np.float32(node.scale) for name, node in quantized(made).items()}
        return {name: channels_last(np.round(value)) for name, value in scaled.items()}

    return Exported(lambda images: values(images)[LOGITS], integers)


def feed(made: Translator, images: np.ndarray) -> dict[str, np.ndarray]:
    """What a translated model takes, of uint8 images [batch, height, width, channels]."""
    if made.preprocessing:
        return {IMAGE: images}
    node = made.graph.nodes[0]
    assert isinstance(node, Normalize)
    x = (images.astype(np.float32) - np.array(node.mean, np.float32)) / np.array(node.std, np.float32)
    return {IMAGE: np.ascontiguousarray(x.transpose(0, 3, 1, 2))}


def quantized(made: Translator) -> dict[str, Activation]:
    """The activations with a grid, by name."""
    return {node.name: node for node in made.graph.nodes if isinstance(node, Activation) and node.grid is not None}


def channels_last(x: np.ndarray) -> np.ndarray:
    """[batch, channels, height, width] -> [batch, height, width, channels]; what has other axes stays."""
    return np.moveaxis(x, 1, -1) if x.ndim == 4 else x
