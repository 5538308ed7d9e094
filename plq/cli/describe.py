"""What a network costs, without data or training: ``plq describe --config configs/X.py[:ARGUMENT]``."""

import dataclasses
import json
import sys

from absl import flags

from plq.config.flags import Command, read
from plq.config.schema import Data
from plq.data import prepared
from plq.data.images import size_of
from plq.distributed.devices import devices
from plq.errors import UserError
from plq.report.table import format_table, human_bytes
from plq.trainer.describe import BYTES, HEADER, Row, Shape, cells_of, rows_of, totals

USAGE = """usage: plq describe --config FILE[:ARGUMENT] [--json] [--image_shape H,W,C] [--num_classes N]
                              [--config.SECTION.FIELD=VALUE ...]

Parameters, bytes and operations of a config's network, layer by layer. Nothing is trained and no data is read.

  --image_shape H,W,C   what the network sees, where the data set is not at hand to say so
  --num_classes N
  --json                the same as JSON

W, in, out    bits of the weights, of what the layer is given (8: the image; 32: float) and of what it gives
training      bytes of all variables in float32 as training starts, with the branch, without the optimizer's moments
float32       bytes of the variables of the network that is served, in float32
deployed      the same with kernels packed at their bits
MACs          multiply-accumulates of convolutions and dense layers for one image, at f = 0
BOPs          bit operations, MACs x W x in (van Baalen et al., arXiv 2005.07093)
"""
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


def _of_set(data: Data) -> tuple[Shape, int]:
    """Image shape (0: it varies) and classes of a set: of the prepared one, or of a known one."""
    try:
        builder = prepared.open_set(data.name, data.data_dir)
    except UserError as error:
        known = KNOWN.get(data.name.split("/")[0])
        if known is None:
            raise UserError(f"{error}; or give --image_shape=H,W,C and --num_classes=N") from error
        return known
    height, width, channels = prepared.image_shape(builder)
    return (height or 0, width or 0, channels), len(prepared.class_names(builder))


def print_table(rows: list[Row]) -> None:
    *cells, last = cells_of(rows)
    print(format_table(HEADER, cells, last))
    total = totals(rows)
    sizes = (human_bytes(total[name]) for name in BYTES)
    print("variables: {} in training, {} in float32, {} deployed with packed weights".format(*sizes))
    print(f"per image: {total['macs']:,} multiply-accumulates, {total['bit_operations']:,} bit operations")


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_list("image_shape", None, "H,W,C", flag_values=values)
    flags.DEFINE_integer("num_classes", None, "N", lower_bound=1, flag_values=values)
    flags.DEFINE_bool("json", False, "as JSON", flag_values=values)


def _stated_shape(command: Command) -> Shape | None:
    given = command.flags["image_shape"].value
    if given is None:
        return None
    if len(given) != 3 or not all(number.isdecimal() and int(number) > 0 for number in given):
        raise UserError(f"--image_shape={','.join(given)}: allowed height, width and channels, as 224,224,3")
    height, width, channels = map(int, given)
    return height, width, channels


def main(argv: list[str] | None = None) -> None:
    """The program; see the module's first line."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or {"--help", "-h", "-help", "--helpfull"} & set(argv):
        print(USAGE)
        return
    command = read(argv, _define)
    devices()
    config, stated = command.config, command.flags["num_classes"].value
    image_shape, num_classes = shape_and_classes(config.data, _stated_shape(command), stated)
    rows = rows_of(config, image_shape, num_classes)
    if not command.flags["json"].value:
        print_table(rows)
        return
    what = {"network": config.model.name, "image_shape": image_shape, "num_classes": num_classes}
    print(json.dumps({**what, "layers": [dataclasses.asdict(row) for row in rows], "total": totals(rows)}, indent=1))
