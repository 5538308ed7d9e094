"""The 1,797 real 8x8 handwritten digits that scikit-learn ships (UCI, Alpaydin and Kaynak): no download."""

import numpy as np

from plq.errors import UserError

TRAIN_EXAMPLES = 1437
SHUFFLE_SEED = 0


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """uint8 images [1797, 8, 8, 1] scaled to 0..255 and int32 labels, in a fixed shuffled order.

    The first `TRAIN_EXAMPLES` are the training split, the other 360 the test split.
    Raises UserError if scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        found = "needs scikit-learn, which is not installed"
        raise UserError(f"data.name=digits: {found}; pip install 'plq[digits]'") from error
    raw = datasets.load_digits()
    order = np.random.Generator(np.random.Philox(SHUFFLE_SEED)).permutation(len(raw.target))
    images = np.round(raw.images[order] * (255 / 16)).astype(np.uint8)[..., None]
    return images, raw.target[order].astype(np.int32)
