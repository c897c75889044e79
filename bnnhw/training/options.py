"""The settings of a training: command line and recipe file in, the command that repeats it out.

Both give four tables: spec, repair, formats and recipe. Their keys are the fields of NetworkSpec,
Repair, NumberFormats and Recipe. The command line overrides the file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.table import Table

from bnnhw import datasets
from bnnhw.cli import numbers, read_toml
from bnnhw.errors import UserError
from bnnhw.network.repair import CATEGORIES, Repair
from bnnhw.network.spec import ACTIVATIONS, NetworkSpec, NumberFormats
from bnnhw.training.recipe import Recipe

Tables = dict[str, dict[str, Any]]
TABLES: dict[str, type] = dict(
    spec=NetworkSpec, repair=Repair, formats=NumberFormats, recipe=Recipe
)


@dataclass(frozen=True)
class Setting:
    """One option of the command line, and the field it sets.

    kind : of click; or the separator of a list of whole numbers.
    """

    option: str
    table: str
    field: str
    kind: Any
    help: str

    @property
    def argument(self) -> str:
        """The name under which click passes it."""
        return f"{self.table}_{self.field}"

    def parse(self, given: Any) -> Any:
        """Returns the field's value of the text that was given."""
        return numbers(self.option, given, self.kind) if isinstance(self.kind, str) else given

    def words(self, value: Any) -> str:
        """Returns the option as a user gives it to set this value."""
        if isinstance(value, bool):
            return self.option.split("/")[not value]
        if isinstance(self.kind, str):
            return f"{self.option} {self.kind.join(map(str, value))}"
        return f"{self.option} {value}"


SETTINGS = (
    Setting("--dataset", "recipe", "dataset", click.Choice(datasets.DATASETS),
            "[default: what is at --data, or cifar10]"),
    Setting("--resize/--no-resize", "recipe", "resize", bool,
            "Resize the images to --input. [default: another size is refused]"),
    Setting("--depth", "spec", "depth", int, "2 x stages x n + 2 layers. [default: 20]"),
    Setting("--widths", "spec", "widths", ",", "Channels per stage. [default: 16,32,64]"),
    Setting("--classes", "spec", "classes", int, "Classes; the data set's if not given."),
    Setting("--input", "spec", "input", "x", "HEIGHTxWIDTHxCHANNELS; the data set's if not given."),
    Setting("--stages", "spec", "stages", ",",
            "Blocks in each stage, such as 3,4,6,3. [default: as many as depth has room for]"),
    Setting("--pad", "spec", "pad", ",", "Bytes around the image, by colour. [default: 128]"),
    Setting("--levels", "spec", "levels", ",",
            "Bytes from which a thermometer stem's bits are 1. [default: 32 equal parts]"),
    Setting("--stem-activation", "spec", "stem_activation", click.Choice(ACTIVATIONS),
            "After the stem. [default: none]"),
    Setting("--adabin-padding", "spec", "adabin_padding", click.Choice(("centre", "zero")),
            "Of features with a centre. [default: centre]"),
    Setting("--residual-width", "formats", "residual_width", int,
            "Bits of the residual stream. [default: 8]"),
    Setting("--residual-fraction", "formats", "residual_fraction", int,
            "How many of them are after the point. [default: 4]"),
    Setting("--residual-fractions", "formats", "residual_fractions", ",",
            "The same by stage, such as 3,3,4. [default: one for all]"),
    Setting("--guard", "formats", "guard", int,
            "Further bits after the point while they are added up. [default: 4]"),
    Setting("--epochs", "recipe", "epochs", int, "Epochs; 0 writes an untrained network."),
    Setting("--budget-minutes", "recipe", "minutes", float, "Schedule ends with this time."),
    Setting("--batch", "recipe", "batch", int, "Images per step. [default: 64]"),
    Setting("--lr", "recipe", "lr", float, "Greatest rate. [default: 0.01; 0.1 for sgd]"),
    Setting("--warm-up", "recipe", "warm_up", float,
            "Part of the schedule that leads to it. [default: 0.03]"),
    Setting("--weight-decay", "recipe", "weight_decay", float,
            "Of the weights. [default: 0; 1e-4 for sgd]"),
    Setting("--penalty", "recipe", "penalty", float,
            "Weight of the regularization. [default: by method]"),
    Setting("--crop", "recipe", "crop", int, "Greatest random shift in pixels. [default: 2]"),
    Setting("--flip/--no-flip", "recipe", "flip", bool,
            "Mirror at random; default: CIFAR only."),
    Setting("--distil", "recipe", "distil", float, "Weight of the teacher. [default: 0.5]"),
    Setting("--exact-epochs", "recipe", "exact_epochs", int,
            "Train the integers' arithmetic in so many last epochs. [default: 0]"),
    Setting("--all-images/--held-out", "recipe", "all_images", bool,
            "Train on the validation images, too. [default: they are held out]"),
    Setting("--seed", "recipe", "seed", int, "[default: 0]"),
)  # fmt: skip


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a click command every option of SETTINGS. An option that is not given has no value."""
    for setting in reversed(SETTINGS):
        kind = str if isinstance(setting.kind, str) else setting.kind
        add = click.option(
            setting.option, setting.argument, type=kind, default=None, help=setting.help
        )
        command = add(command)
    return command


def parse_repairs(settings: tuple[str, ...]) -> dict[str, Any]:
    """Returns `NAME=VALUE` settings as a table. on and off are True and False."""
    chosen: dict[str, Any] = {}
    known = asdict(Repair())
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or name not in known:
            raise UserError(f"--repair {setting}: give NAME=VALUE with NAME of {', '.join(known)}")
        switch = {"on": True, "off": False}
        if isinstance(known[name], bool) and value not in switch:
            raise UserError(f"--repair {setting}: {name} is on or off")
        chosen[name] = switch[value] if isinstance(known[name], bool) else value
    return chosen


def read_config(path: Path) -> Tables:
    """Returns the tables of a recipe file (TOML). Raises UserError with an unknown table or key."""
    tables = read_toml(path, "recipe file")
    for name, table in tables.items():
        if name not in TABLES or not isinstance(table, dict):
            raise UserError(f"{path}: {name}: there are only tables {', '.join(TABLES)}")
        known = [field.name for field in fields(TABLES[name]) if field.name not in TABLES]
        for key in table:
            if key not in known:
                raise UserError(f"{path}: unknown {name}.{key}; choose from {', '.join(known)}")
    return tables


def given_tables(given: dict[str, Any], repairs: tuple[str, ...]) -> Tables:
    """Returns the tables of the options that were given: click's arguments and each --repair."""
    tables: Tables = {name: {} for name in TABLES}
    for setting in SETTINGS:
        if given[setting.argument] is not None:
            tables[setting.table][setting.field] = setting.parse(given[setting.argument])
    tables["repair"] = parse_repairs(repairs)
    return tables


def settle(
    config: Tables, given: Tables, data: str | None = None
) -> tuple[NetworkSpec, dict[str, Any]]:
    """Returns the network and the fields of the Recipe: the file's settings, overridden by those
    given.

    The data set says what neither does: input, classes, and whether images are mirrored.
    data : --data, which says what data set it is unless `given` does.
    """
    merged = {name: {**config.get(name, {}), **given[name]} for name in TABLES}
    recipe, spec = merged["recipe"], merged["spec"]
    source = datasets.find(data, given["recipe"].get("dataset"), recipe.get("dataset"))
    recipe["dataset"] = source.name
    recipe.setdefault("flip", source.name.startswith("cifar"))
    if recipe.get("resize") and "input" not in spec:
        raise UserError("--resize: to what size? give --input HEIGHTxWIDTHxCHANNELS")
    if not {"input", "classes"} <= spec.keys():
        shape, classes = source.size(spec.get("input") if recipe.get("resize") else None)
        spec = dict(dict(input=shape, classes=classes), **spec)
    return NetworkSpec.from_dict(
        {**spec, "repair": merged["repair"], "formats": merged["formats"]}
    ), recipe


def command_line(spec: NetworkSpec, recipe: Recipe) -> str:
    """Returns the command that repeats this training, without the files it reads and writes."""
    tables: dict[str, Any] = dict(spec=spec, formats=spec.formats, recipe=recipe)
    words = ["python -m bnnhw.train"]
    for setting in SETTINGS:
        value = getattr(tables[setting.table], setting.field)
        own = setting.field == "dataset" and value not in datasets.DATASETS
        if value is not None and value != () and not own:
            words.append(setting.words(value))
    for name, value in asdict(spec.repair).items():
        words.append(f"--repair {name}={_repair_text(value)}")
    return " ".join(words)


def repairs_table() -> Table:
    """Returns every repair method with its values and their sources, the default marked."""
    table = Table("--repair", "meaning (source)", box=box.SIMPLE_HEAD, pad_edge=False)
    default = Repair()
    for category in CATEGORIES:
        table.add_row(f"[bold]{category.name}=", f"[dim]{category.cost}")
        for value, meaning in category.values.items():
            chosen = value == getattr(default, category.name)
            cost = category.cost_of(value)
            if cost != category.cost:
                meaning += f" [dim]{cost}"
            table.add_row(
                f"  {_repair_text(value)}{' *' if chosen else ''}", meaning,
                style="bold" if chosen else None,
            )  # fmt: skip
    table.caption = "* default"
    return table


def _repair_text(value: Any) -> str:
    return ("off", "on")[value] if isinstance(value, bool) else str(value)
