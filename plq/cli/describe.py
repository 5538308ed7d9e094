"""What a network costs, without training: ``plq describe --config configs/X.py[:ARGUMENT]``."""

import dataclasses
import json
import sys

from plq.cli.common import Parser, whole_number, words
from plq.cli.config_arguments import config_arguments, parse_config
from plq.errors import UserError

DESCRIPTION = """Parameters, bytes and operations of a config's network, layer by layer.
Nothing is trained. Of data.name=folder it also says what the folder holds; no other data is read.
"""
EPILOG = """W, in, out    bits of the weights, of what the layer is given (8: the image; 32: float) and of what it gives
training      bytes of all variables in float32 as training starts, with the branch, without the optimizer's moments
float32       bytes of the variables of the network that is served, in float32
deployed      the same with kernels packed at their bits
MACs          multiply-accumulates of convolutions and dense layers for one image, at f = 0
BOPs          bit operations, MACs x W x in (van Baalen et al., arXiv 2005.07093)
"""


def parser() -> Parser:
    """The arguments."""
    made = config_arguments("describe", DESCRIPTION, EPILOG)
    shape = "what the network sees, where the data set is not at hand to say so"
    made.add_argument("--image_shape", metavar="H,W,C", type=words, help=shape)
    classes = "how many classes it tells apart, likewise"
    made.add_argument("--num_classes", metavar="N", type=whole_number("--num_classes", 1), help=classes)
    made.add_argument("--json", action="store_true", help="the same as JSON")
    return made


def _stated_shape(given: tuple[str, ...] | None) -> tuple[int, int, int] | None:
    if given is None:
        return None
    if len(given) != 3 or not all(number.isdecimal() and int(number) > 0 for number in given):
        raise UserError(f"--image_shape={','.join(given)}: allowed height, width and channels, as 224,224,3")
    height, width, channels = map(int, given)
    return height, width, channels


def main(argv: list[str] | None = None) -> None:
    """The program; see the module's first line."""
    given = parse_config(parser(), sys.argv[1:] if argv is None else argv)
    stated = _stated_shape(given.image_shape)
    from plq.config.selection import select
    from plq.distributed.devices import devices
    from plq.trainer.data_shape import described_folder, shape_and_classes
    from plq.trainer.describe import print_table, rows_of, totals
    from plq.trainer.describe_folder import facts_of, print_facts

    config = select(given.config, given.changes).config
    devices()
    folder = described_folder(config.data)
    if folder is not None and not given.json:
        print_facts(folder)
    image_shape, num_classes = shape_and_classes(config.data, stated, given.num_classes)
    rows = rows_of(config, image_shape, num_classes)
    if not given.json:
        print_table(rows)
        return
    what = {"network": config.model.name, "image_shape": image_shape, "num_classes": num_classes}
    if folder is not None:
        what["images"] = facts_of(folder)
    print(json.dumps({**what, "layers": [dataclasses.asdict(row) for row in rows], "total": totals(rows)}, indent=1))
