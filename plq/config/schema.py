"""A configuration's fields, each once: its name, type, default, and beside it what it means."""

import dataclasses
from typing import Any

from plq.checks import at_least, require_types
from plq.config.applies import APPLIES
from plq.config.own_network import check_own_network
from plq.data.crops import CROPS
from plq.data.folder_layout import HOLDOUT
from plq.data.images import size_of
from plq.errors import UserError, nearest
from plq.layers.expanded import MERGES
from plq.layers.factory import QuantConfig
from plq.models.importing import is_own
from plq.models.options import plain_options
from plq.models.own import own_network
from plq.models.registry import OPTIONS, Architecture
from plq.models.trainable import Trainable
from plq.train.factor import FactorSchedule
from plq.train.optimizer import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class Data:
    """Which images, and what is done to them. Units of pixel values are 0..255."""

    name: str = "cifar10"  # digits, folder (pictures in data_dir), or the name of a TFDS data set
    train_split: str = ""  # to train on, in TFDS split syntax; empty: the set's usual one
    test_split: str = ""  # to evaluate on, in the same syntax; empty: the set's usual one
    data_dir: str = ""  # of pictures, or of prepared TFDS sets (empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets)
    labels: str = ""  # with name=folder: a CSV file with the header file,label[,split]; empty: as folders are named
    holdout: float = HOLDOUT  # with name=folder, where no images are there to test on: share of all that is held back
    cache_dir: str = ""  # folder for decoded images; empty: $PLQ_CACHE_DIR, else ~/.cache/plq
    image_size: int | tuple[int, ...] = 0  # resize to this height and width, one number or two; 0: as they are
    crop: str = ""  # read record by record and crop: resized, authors, center; empty: the whole set in memory
    threads: int = 8  # with crop: how many decode, a batch each
    corrupt_share: float = 0.001  # with crop or name=folder: share of unreadable images that a run puts up with
    batch_size: int = 128  # images of one update, over all devices
    mean: tuple[float, ...] = (0.0,)  # x = (pixel - mean) / std, per channel or one for all
    std: tuple[float, ...] = (256.0,)  # see mean; above 0
    pad: int = 0  # pad with zeros by this many pixels and crop back at random
    flip: bool = False  # mirror half of the images
    brightness: float = 0.0  # add up to this much, up or down, drawn anew for each image
    contrast: tuple[float, ...] = (1.0, 1.0)  # low, high: scale around the mean by a factor between these

    def check(self) -> None:
        require_types("data", self)
        for field, least in (("batch_size", 1), ("pad", 0), ("brightness", 0), ("threads", 1)):
            if getattr(self, field) < least:
                raise UserError(f"data.{field}={getattr(self, field)}: allowed {least} or more")
        if self.crop and self.crop not in CROPS:
            raise UserError(f"data.crop={self.crop}: unknown; {nearest(self.crop, CROPS)}")
        if size_of(self.image_size) is None and self.crop:
            raise UserError(f"data.image_size=0: data.crop={self.crop} needs the size to crop to")
        if not 0 <= self.corrupt_share <= 1:
            raise UserError(f"data.corrupt_share={self.corrupt_share}: allowed 0 to 1")
        if not 0 < self.holdout < 1:
            raise UserError(f"data.holdout={self.holdout}: allowed above 0, below 1")
        if len(self.contrast) != 2 or not 0 <= self.contrast[0] <= self.contrast[1]:
            raise UserError(f"data.contrast={self.contrast}: allowed two numbers, 0 <= low <= high")
        if not self.mean or not self.std or min(self.std) <= 0:
            found = f"data.mean={self.mean}, data.std={self.std}"
            raise UserError(f"{found}: allowed one number or one per channel, std above 0")


@dataclasses.dataclass(frozen=True)
class Model:
    """Which network."""

    name: str = "svhn"  # svhn, alexnet, vgg_small, mobilenet_v1, mobilenet_v2, resnet18 20 32 34 44 50 56, module:Net
    options: dict = dataclasses.field(default_factory=dict, hash=False)  # fields of one's own network, by name
    width: float = 1.0  # multiplies the number of channels of every layer
    dropout: float = 0.0  # svhn only: probability that a value is dropped
    shortcut: str = "projection"  # resnets only: projection, padding (no parameters)
    block: str = "post"  # resnets only: post, pre (pre-activation), bireal (pre, every 3x3 convolution with a shortcut)
    stride: int = 32  # mobilenets only: of the whole network; 16, 8 or 4 for small images
    init_from: str = ""  # a model folder of the same network, trained in float, to start from

    def check(self) -> None:
        require_types("model", self)
        plain_options("model.options", self.options)


@dataclasses.dataclass(frozen=True)
class BranchConfig:
    """The ancillary branch."""

    merge: str = "add"  # how the branch joins the low-precision layer: add, subtract, concat
    leave: bool = True  # when f reaches 0 go on without the branch; False: carry it to the end
    norm: bool = True  # whether the branch has a batch norm

    def check(self) -> None:
        require_types("expansion", self)
        if self.merge not in MERGES:
            raise UserError(f"expansion.merge={self.merge}: unknown; {nearest(self.merge, MERGES)}")


@dataclasses.dataclass(frozen=True)
class FactorConfig:
    """The factor f of the branch (see `plq.train.factor`)."""

    name: str = "cosine"  # how f falls: cosine, staircase, linear, polynomial, or constant
    end: float = 0.25  # share of the run after which f is 0
    rate: float = 0.5  # staircase: times this at each stage
    cutoff: float = 0.001  # staircase: 0 once f would be this or less
    power: float = 2.0  # polynomial: the exponent
    value: float = 0.0  # constant: f itself; 0 is the plain low-precision network
    order: str = "together"  # of the layers: together, or one after another from the front or the back (front, back)

    def check(self) -> None:
        require_types("factor", self)
        if not 0 < self.end <= 1:
            raise UserError(f"factor.end={self.end}: allowed above 0, up to 1 (a share of the run)")
        self.over(1)

    def over(self, total_steps: int) -> FactorSchedule:
        """The factor for a run of this many steps."""
        steps = max(1, round(self.end * at_least("total_steps", total_steps, 1)))
        return FactorSchedule(self.name, steps, self.rate, self.cutoff, self.power, self.value, self.order)


@dataclasses.dataclass(frozen=True)
class Train:
    """Length of the run and the loss."""

    epochs: float = 10.0  # passes over the training set; a fraction is allowed
    accumulate: int = 1  # parts of a batch, taken in turn; one update, but batch norm sees one part at a time
    label_smoothing: float = 0.0  # share of each label spread over all classes; 0: off
    seed: int = 0  # of initial weights, data order, augmentation, dropout

    def check(self) -> None:
        require_types("train", self)
        if not self.epochs > 0:
            raise UserError(f"train.epochs={self.epochs}: allowed above 0")
        if self.accumulate < 1:
            raise UserError(f"train.accumulate={self.accumulate}: allowed 1 or more")
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"train.label_smoothing={self.label_smoothing}: allowed 0 or above, below 1")
        if not 0 <= self.seed < 2**31:
            raise UserError(f"train.seed={self.seed}: allowed 0 to 2147483647")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis (see `plq.train.mesh`). A run's figures do not depend on them."""

    data: int = -1  # over which the batch is split; -1: all devices that are left
    fsdp: int = 1  # over which the weights and what the optimizer keeps are split too

    def check(self) -> None:
        require_types("mesh", self)
        for field in ("data", "fsdp"):
            if getattr(self, field) != -1 and getattr(self, field) < 1:
                raise UserError(f"mesh.{field}={getattr(self, field)}: allowed 1 or more, or -1 for all devices")
        if self.data == self.fsdp == -1:
            raise UserError("mesh.data=-1 mesh.fsdp=-1: allowed -1 for one of them")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """When to save, what to keep. A save also comes at the end and on SIGTERM or Ctrl-C."""

    every_steps: int = 0  # steps between saves; 0: at the end of each epoch, after the evaluation
    keep_latest: int = 2  # how many of the newest to keep
    keep_best: int = 1  # how many to keep beside them: the best test accuracy among the steps with f = 0

    def check(self) -> None:
        require_types("checkpoint", self)
        for field, least in (("every_steps", 0), ("keep_latest", 1), ("keep_best", 0)):
            if getattr(self, field) < least:
                raise UserError(f"checkpoint.{field}={getattr(self, field)}: allowed {least} or more")


@dataclasses.dataclass(frozen=True)
class Report:
    """What is written down while training."""

    every_steps: int = 50  # steps between two lines of metrics.jsonl
    tensorboard: bool = True  # whether TensorBoard files are written too
    branch: bool = False  # at each evaluation, the share of each layer's output that the branch carries

    def check(self) -> None:
        require_types("report", self)
        if self.every_steps < 1:
            raise UserError(f"report.every_steps={self.every_steps}: allowed 1 or more")


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole configuration, checked: every field has its type and a legal value."""

    data: Data = Data()
    model: Model = Model()
    quant: QuantConfig = QuantConfig()
    expansion: BranchConfig = BranchConfig()
    factor: FactorConfig = FactorConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: Train = Train()
    mesh: MeshConfig = MeshConfig()
    checkpoint: Checkpoint = Checkpoint()
    report: Report = Report()

    def architecture(self, num_classes: int, image_shape: tuple[int, ...] = ()) -> Trainable:
        """The network for so many classes, and images [height, width, channels].

        The code of somebody's own is imported here, and run abstractly. Raises UserError for whatever is wrong with it.
        """
        if is_own(self.model.name):
            return own_network(self.model.name, self.model.options, self.quant, num_classes, image_shape)
        return self._of_plq(num_classes)

    def _of_plq(self, num_classes: int) -> Architecture:
        options = {name: getattr(self.model, name) for name in OPTIONS}
        return Architecture(self.model.name, num_classes, self.quant, **options)

    def check(self) -> None:
        """Raise UserError unless every section is legal. Imports nothing."""
        self.model.check()
        if is_own(self.model.name):
            check_own_network(self, Config())
        else:
            self._of_plq(num_classes=2).check()
        for section in dataclasses.fields(self):
            check = getattr(getattr(self, section.name), "check", None)
            if check is not None:
                check()
        for name, applies in APPLIES.items():
            value, unset = self.value(name), Config().value(name)
            if value != unset and not applies(self):
                raise UserError(f"{name}={value}: has no effect with the other fields; leave it at {unset}")

    def value(self, name: str) -> Any:
        """The value of "section.field"."""
        section, field = name.split(".")
        return getattr(getattr(self, section), field)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
