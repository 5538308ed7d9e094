"""Which trainings a comparison consists of: every variant at every point of a grid, for every seed."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from plq.compare.variants import VARIANTS
from plq.config.load import build_config, fields_of
from plq.config.schema import Config
from plq.config.selection import parse_value
from plq.errors import UserError, nearest

Point = dict[str, Any]  # the varied fields of one grid point, such as {"quant.weights": "xnor"}; empty: none varied


@dataclasses.dataclass(frozen=True)
class Axis:
    """Fields that vary together, and the values that they take together: one tuple per place on the axis."""

    fields: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One training. ``folder``: where, relative to the comparison's; cells with one folder are one training."""

    point: str
    variant: str
    seed: int
    config: Config
    folder: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """``points`` by label; ``left_out``: what was illegal and is not trained, one line each."""

    points: dict[str, Point]
    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: tuple[RunConfig, ...]
    left_out: tuple[str, ...]

    def trainings(self) -> list[RunConfig]:
        """The cells without repetition: a variant that leaves a varied field unused is trained once."""
        by_folder: dict[str, RunConfig] = {}
        for cell in self.cells:
            by_folder.setdefault(cell.folder, cell)
        return list(by_folder.values())


def parse_axis(text: str) -> Axis:
    """The axis of quant.weights=dorefa,xnor; of quant.weights+quant.weight_bits=xnor+1,syq+2 both vary together.

    A field that only one section has may go without it: width=0.125,0.25. Raises UserError for an unknown field, one
    that cannot be varied, or a value of another type.
    """
    names, _, listed = text.partition("=")
    fields, places = tuple(map(_field, names.split("+"))), [place.split("+") for place in listed.split(",")]
    for place in places:
        if len(place) != len(fields) or not all(place):
            found = f"found {'+'.join(place) or 'nothing'}"
            raise UserError(f"--vary {text}: {found}, allowed {len(fields)} value(s) a place, as in a,b or a+1,b+2")
    values = tuple(tuple(_value(field, value) for field, value in zip(fields, place, strict=True)) for place in places)
    if len(set(values)) < len(values):
        raise UserError(f"--vary {text}: a value is there twice")
    return Axis(fields, values)


def _field(name: str) -> str:
    """The full name of a field that can be varied."""
    legal = Config().to_json()
    full = [f"{section}.{name}" for section in legal if name in legal[section]]
    if len(full) > 1:
        raise UserError(f"--vary {name}: several sections have it; allowed: {', '.join(full)}")
    section, _, field = (full[0] if full else name).partition(".")
    if section not in legal:
        raise UserError(f"--vary {name}: unknown section {section}; {nearest(section, legal)}")
    single = [field for field, value in legal[section].items() if not isinstance(value, (tuple, dict))]
    if field not in single:
        raise UserError(f"--vary {name}: unknown, or a list of numbers; {nearest(field, single)}")
    if (section, field) == ("train", "seed"):
        raise UserError("--vary train.seed: seeds are counted by --seeds, from train.seed of the config on")
    return f"{section}.{field}"


def _value(field: str, text: str) -> Any:
    try:
        return parse_value(field, text)
    except UserError as error:
        raise UserError(f"--vary {error}") from error


def make_plan(
    base: Config, axes: Sequence[Axis], variants: Sequence[str], seeds: int, skip_illegal: bool = False
) -> Plan:
    """The grid of a config. Seeds are those from its ``train.seed`` on.

    Raises UserError for what is not known, and for illegal points unless ``skip_illegal`` leaves them out.
    """
    _check_variants(variants)
    if seeds < 1:
        raise UserError(f"--seeds {seeds}: allowed 1 or more")
    points, legal, left_out = _points(axes), {}, []
    for label, point in points.items():
        try:
            legal[label] = {variant: variant_settings(base, point, variant) for variant in variants}
        except UserError as error:
            left_out.append(f"{label}: {error}" if label else str(error))
    if left_out and not (skip_illegal and legal):
        how = f"; {len(left_out)} of {len(points)} combinations are illegal, --skip_illegal leaves them out"
        raise UserError(left_out[0] + (how if legal else ""))
    all_seeds = tuple(range(base.train.seed, base.train.seed + seeds))
    cells = [
        _cell(base, label, points[label], variant, chosen, seed)
        for seed in all_seeds
        for label, by_variant in legal.items()
        for variant, chosen in by_variant.items()
    ]
    return Plan({label: points[label] for label in legal}, tuple(variants), all_seeds, tuple(cells), tuple(left_out))


def _check_variants(variants: Sequence[str]) -> None:
    for variant in variants:
        if variant not in VARIANTS:
            raise UserError(f"--variants: {variant} is unknown; {nearest(variant, VARIANTS)}")
    if not variants or len(set(variants)) < len(variants):
        raise UserError(f"--variants {','.join(variants)}: allowed each of {', '.join(VARIANTS)} at most once")


def _points(axes: Sequence[Axis]) -> dict[str, Point]:
    fields = [field for axis in axes for field in axis.fields]
    for field in fields:
        if fields.count(field) > 1:
            raise UserError(f"--vary {field}: given twice")
    grid = itertools.product(*(axis.values for axis in axes))
    points = [dict(zip(fields, itertools.chain(*places), strict=True)) for places in grid]
    return {label_of(point): point for point in points}


def label_of(point: Point) -> str:
    """As weights=xnor width=0.25; a field called name goes by its section; empty for the config as it is."""
    short = lambda field: field.removesuffix(".name").split(".")[-1]
    return " ".join(f"{short(field)}={value}" for field, value in point.items())


def variant_settings(base: Config, point: Point, variant: str) -> Config:
    """The checked settings of a variant at a point. Raises UserError if they are illegal."""
    given = base.to_json()
    for name, value in {**point, **VARIANTS[variant], "report.branch": variant == "expanded"}.items():
        section, field = name.split(".")
        given[section][field] = value
    chosen = build_config(given)
    if variant == "expanded" and chosen.factor.over(1).end_step != 1:
        found = f"factor.name=constant, factor.value={chosen.factor.value}"
        raise UserError(f"{found}: found no decay, allowed an f that falls to 0 (the plain network is a variant)")
    return chosen


def _cell(base: Config, label: str, point: Point, variant: str, chosen: Config, seed: int) -> RunConfig:
    """The folder names the varied fields that are not the config's own, so that other grids find the training again;
    those that the variant sets anyway are left out.
    """
    own = {name: value for name, value in point.items() if name not in VARIANTS[variant] and value != base.value(name)}
    name = "_".join([variant, *label_of(own).split()]).replace("/", "-")
    seeded = dataclasses.replace(chosen, train=dataclasses.replace(chosen.train, seed=seed))
    return RunConfig(label, variant, seed, seeded, f"cells/{name}_{seed}")


def changed_fields(bare: Config, chosen: Config) -> list[str]:
    """The --config.SECTION.FIELD=VALUE arguments that make a config file's settings these."""
    before = dict(fields_of(bare.to_json()))
    return [f"--config.{name}={value}" for name, value in fields_of(chosen.to_json()) if value != before[name]]
