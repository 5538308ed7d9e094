"""Image shape and classes of a config's data set, also where the set is not at hand."""

from plq.config.schema import Data
from plq.data import prepared
from plq.data.folder import FOLDER, ImageFolder
from plq.data.images import size_of
from plq.errors import UserError
from plq.trainer.describe import Shape
from plq.trainer.evaluation import folder_of

KNOWN: dict[str, tuple[Shape, int]] = {  # of sets that many configs name, for when they are not on disk; 0: it varies
    "digits": ((8, 8, 1), 10),
    "cifar10": ((32, 32, 3), 10),
    "cifar100": ((32, 32, 3), 100),
    "svhn_cropped": ((32, 32, 3), 10),
    "fashion_mnist": ((28, 28, 1), 10),
    "imagenette": ((0, 0, 3), 10),
    "imagenet2012": ((0, 0, 3), 1000),
}


def shape_and_classes(data: Data, image_shape: Shape | None, num_classes: int | None) -> tuple[Shape, int]:
    """What the network sees and gives: as stated, or as the config and its data set say.

    Raises UserError, naming the flags, if the set is not at hand and not a known one, or if its images vary in size.
    """
    if image_shape is not None and num_classes is not None:
        return image_shape, num_classes
    (height, width, channels), classes = _of_set(data)
    shape = image_shape or (*(size_of(data.image_size) or (height, width)), channels)
    if not min(shape):
        raise UserError(f"data.name={data.name}: its images vary in size; give --image_shape=H,W,C or data.image_size")
    return shape, num_classes or classes


def described_folder(data: Data) -> ImageFolder | None:
    """The pictures that the config names; None of other sets, and where no folder is named."""
    return folder_of(data) if data.name == FOLDER and data.data_dir else None


def _of_set(data: Data) -> tuple[Shape, int]:
    """Image shape (0: it varies) and classes of a set: of the prepared one, or of a known one."""
    if data.name == FOLDER:
        folder = _opened(data)
        return folder.image_shape, len(folder.class_names)
    try:
        builder = prepared.open_set(data.name, data.data_dir)
    except UserError as error:
        known = KNOWN.get(data.name.split("/")[0])
        if known is None:
            raise UserError(f"{error}; or give --image_shape=H,W,C and --num_classes=N") from error
        return known
    height, width, channels = prepared.image_shape(builder)
    return (height or 0, width or 0, channels), len(prepared.class_names(builder))


def _opened(data: Data) -> ImageFolder:
    try:
        return folder_of(data)
    except UserError as error:
        raise UserError(f"{error}; or give --image_shape=H,W,C and --num_classes=N") from error
