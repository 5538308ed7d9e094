"""A look into one stripped model: which codes its weights and activations use, and what it takes for what."""

import base64
import contextlib
import io
import json
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from plq.compare.comparison import Comparison
from plq.compare.reestimate import reestimated
from plq.compare.runs import say, show
from plq.config.schema import Config, Data
from plq.data.augment import normalize
from plq.data.loader import DataLoader
from plq.data.sets import default_splits
from plq.layers.activation import Activation
from plq.layers.describe import layer_table, quantized_layers
from plq.layers.variables import flatten
from plq.models.importing import is_own
from plq.quant.base import FLOAT_BITS, Scales
from plq.runtime import stripped_model
from plq.runtime.stripped_model import Model
from plq.storage.output import write_text_atomic
from plq.trainer.evaluation import all_logits, evaluation, open_loader

PROBE = "probe.json"
SEARCHED, SHOWN = 2000, 12  # errors are looked for among the first images, and the most confident ones shown
Diagnostics = dict[str, Any]


def diagnosed(folder: Path, config: Config, seed: int, batches: int) -> Diagnostics:
    """The probe of the model in a training's folder; kept there, and looked up the next time.

    Args:
        config: of the training, as a person gave it. batches: of training images, for new batch statistics; 0: none.
    """
    data, network = config.data, config.model.name if is_own(config.model.name) else None
    file = folder / PROBE
    kept: Diagnostics = json.loads(file.read_text("utf-8")) if file.exists() else {}
    if kept and batches in (0, kept["batches"]):
        return kept
    model = stripped_model.load(folder / "model", network)
    found = {"batches": batches, **probe(model, data, seed, batches)}
    write_text_atomic(file, json.dumps(found) + "\n")
    return found


def probe(model: Model, data: Data, seed: int, batches: int) -> Diagnostics:
    """JSON values: accuracy as trained and re-estimated, codes by layer, confusion [true, taken for], errors."""
    train_split, test_split = default_splits(data.name)
    test = open_loader(data, data.test_split or test_split)
    logits, labels = all_logits(model, test)
    return {
        "accuracy": evaluation(logits, labels)["accuracy"],
        "reestimated": _reestimated(model, open_loader(data, data.train_split or train_split, seed), test, batches),
        "weights": weight_codes(model),
        "activations": activation_codes(model, next(test.eval_batches())[0]),
        "class_names": list(model.class_names),
        "confusion": confusion(logits, labels).tolist(),
        "errors": errors(logits, labels, test),
    }


def _reestimated(model: Model, train: DataLoader, test: DataLoader, batches: int) -> float | None:
    """Test accuracy with batch statistics of the first so many training batches; None for none."""
    if not batches:
        return None
    with contextlib.closing(train.batches(0, batches)) as chosen:
        renewed = reestimated(model, (images for images, _ in chosen))
    return evaluation(*all_logits(renewed, test))["accuracy"]


def weight_codes(model: Model) -> dict[str, list[float]]:
    """The share of each code among a layer's weights, for the layers whose weights are quantized."""
    params, found = flatten(model.variables["params"]), {}
    for path, quantizer in quantized_layers(model.network, model.image_shape).items():
        if quantizer.bits == FLOAT_BITS or not {f"{path}/{name}" for name in quantizer.scale_names} <= set(params):
            continue  # of a wrapped layer (`plq.layers.dropin.LowPrecision.home`) the kernel is not a parameter
        scales = {name: params[f"{path}/{name}"] for name in quantizer.scale_names}
        codes = np.asarray(quantizer.quantize(params[f"{path}/kernel"], scales).codes)
        found[path.removesuffix("/conv")] = _shares(np.bincount(codes.ravel(), minlength=2**quantizer.bits))
    return found


def activation_codes(model: Model, images: np.ndarray) -> dict[str, list[float]]:
    """The share of each code among a layer's activations on these images, uint8 [batch, height, width, channels]."""

    def counted(variables: Any, x: jax.Array) -> dict[str, jax.Array]:
        counts: dict[str, jax.Array] = {}

        def record(next_function: Any, args: Any, kwargs: Any, context: Any) -> Any:
            output, module = next_function(*args, **kwargs), context.module
            if isinstance(module, Activation) and module.quantizer.bits != FLOAT_BITS:
                scales: Scales = {name: module.get_variable("params", name) for name in module.quantizer.scale_names}
                codes = module.quantizer.quantize(args[0], scales).codes
                counts["/".join(module.path)] = jnp.bincount(codes.ravel(), length=2**module.quantizer.bits)
            return output

        with nn.intercept_methods(record):
            model.network.apply(variables, normalize(x, model.mean, model.std))
        return counts

    counts = jax.device_get(jax.jit(counted)(model.variables, images))
    names = [layer.name for layer in layer_table(model.network, model.image_shape)]
    return {name: _shares(counts[f"{name}/act"]) for name in names if f"{name}/act" in counts}


def _shares(counts: np.ndarray) -> list[float]:
    return [round(float(share), 6) for share in counts / counts.sum()]


def confusion(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many images of each class (row) were taken for each class (column), int [classes, classes]."""
    classes = logits.shape[1]
    return np.bincount(classes * labels + logits.argmax(1), minlength=classes**2).reshape(classes, classes)


def errors(logits: np.ndarray, labels: np.ndarray, test: DataLoader) -> list[dict[str, Any]]:
    """Of the first test images that are taken for something else, those of which the model is most certain."""
    certain = np.asarray(jax.nn.softmax(logits[:SEARCHED], -1)).max(1)
    taken_for, true = logits[:SEARCHED].argmax(1), labels[:SEARCHED]
    wrong = np.flatnonzero(taken_for != true)
    chosen = wrong[np.argsort(-certain[wrong], kind="stable")][:SHOWN]
    images = _images(test, set(chosen.tolist()))
    return [
        {"image": images[i], "label": int(true[i]), "taken_for": int(taken_for[i]), "certain": float(certain[i])}
        for i in chosen.tolist()
    ]


def _images(test: DataLoader, wanted: set[int]) -> dict[int, str]:
    """Images of the test set by place, as data URIs."""
    found: dict[int, str] = {}
    start = 0
    for images, _, _ in test.eval_batches():
        found.update({start + i: _data_uri(image) for i, image in enumerate(images) if start + i in wanted})
        start += len(images)
        if len(found) == len(wanted):
            break
    return found


def _data_uri(image: np.ndarray) -> str:
    """uint8 [height, width, 1 or 3] as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def diagnostics_of(found: Comparison, batches: int) -> dict[str, dict[str, dict[int, Diagnostics]]]:
    """A look into every trained model, by label, variant and seed. batches: for `plq.compare.reestimate`."""
    probes: dict[str, dict[str, dict[int, Diagnostics]]] = {
        label: {variant: {} for variant in found.variants} for label in found.points
    }
    done = {place: training for place, training in found.trainings.items() if training.done}
    say(f"report: looking into {len(done)} models")
    for number, ((label, variant, seed), training) in enumerate(done.items(), 1):
        show(f"[{number}/{len(done)}] {training.folder.name}")
        probes[label][variant][seed] = diagnosed(training.folder, training.cell.config, seed, batches)
    show("")
    return probes
