"""Small prepared TFDS sets, written by the tests without TensorFlow."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze()).save(buffer, "PNG")
    return buffer.getvalue()


def write_set(
    folder, images: dict[str, list[np.ndarray]], name="tiny_set", shape=None, label=None, file_format="array_record"
):
    """``images``: for each split, uint8 arrays; the label of image i is i % 3."""
    first = next(image for split in images.values() for image in split)
    features = {"image": tfds.features.Image(shape=shape or first.shape)}
    features["label"] = label or tfds.features.ClassLabel(names=["ant", "bee", "cow"])

    class Written(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.2.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in images}

        def _generate_examples(self, split):
            for index, image in enumerate(images[split]):
                yield index, {"image": io.BytesIO(png(image)), "label": index % 3}

    Written.name = name
    Written(data_dir=str(folder), file_format=file_format).download_and_prepare()
    return folder


def noise(count: int, shape=(9, 9, 3), seed=0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8))
