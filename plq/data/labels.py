"""Labels: integers from 0 up to the number of classes; TFDS writes -1 where an example has none."""

import numpy as np

from plq.errors import UserError


def require_labels(labels: np.ndarray, classes: int, source: str) -> None:
    """Raise UserError, naming ``source``, unless ``labels`` are integers [N] in 0..classes-1."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"{source}: labels are {labels.dtype} {list(labels.shape)}, allowed integers [examples]")
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        value = int(labels[wrong[0]])
        found = f"{len(wrong):,} of {len(labels):,} labels are outside 0..{classes - 1}"
        unlabelled = " (an example without a label)" if value == -1 else ""
        raise UserError(f"{source}: {found}, the first is {value}{unlabelled}; allowed a labelled split")
