"""python -m bnnhw.train: train a binary ResNet, or write an untrained one with --epochs 0."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from bnnhw import checkpoint, data
from bnnhw.cli import Command
from bnnhw.errors import UserError
from bnnhw.nn import untrained
from bnnhw.nn.teacher import load_teacher, teach
from bnnhw.nn.team import ALONE, Team, team
from bnnhw.nn.training import Log, Recipe, Trainer
from bnnhw.spec import NetworkSpec, Repair


def train(
    spec: NetworkSpec, recipe: Recipe, directory: str | None, out: Path,
    resume: bool = False, start: str | None = None, teacher: str | None = None, *,
    log: Log = lambda entry: None, team: Team = ALONE,
) -> Trainer:  # fmt: skip
    """Train and leave model.pt at `out` after every epoch, its training state in `out`.state.

    resume : go on from that state. start : a model.pt to begin with, of the same spec but for its
    formats. teacher : state dict of a float CIFAR-10 ResNet-20, for recipe.distil.
    team : of which this process is one; each must make the same call.
    """
    parts = [data.load(recipe.dataset, directory, split) for split in ("train", "validation")]
    for option, mine, theirs in (
        ("--input", spec.input, parts[0].pixels.shape[1:]),
        ("--classes", spec.classes, parts[0].classes),
    ):
        if mine != theirs:
            raise UserError(f"{option}: the network takes {mine}, {recipe.dataset} has {theirs}")
    taught = None
    if teacher is not None:
        state = checkpoint.read_inert(Path(teacher), "teacher's state dict")
        taught = teach(load_teacher(state, teacher), parts[0].pixels)
    trainer = Trainer(spec, recipe, *parts, team, taught)
    kept = out.with_name(out.name + ".state")
    before: dict[str, Any] = {}
    if start is not None:
        before = dict(started_from=_begin(trainer, checkpoint.find(start)))
    if resume:
        trainer.restore(checkpoint.read_inert(kept, "training state"), kept)

    def keep(top1: float) -> None:
        metrics = dict(
            epochs=trainer.epoch, seconds=round(trainer.seconds), seed=recipe.seed,
            validation=round(top1, 2), recipe=asdict(recipe), command=command_line(spec, recipe),
            **before,
        )  # fmt: skip
        checkpoint.save(out, trainer.model, metrics)
        checkpoint.write_atomic(trainer.state(), kept)

    trainer.run(log, keep)
    return trainer


def _begin(trainer: Trainer, start: Path) -> dict[str, Any]:
    """Take over the parameters of `start`; returns what its file says of their training."""
    loaded, spec = checkpoint.load(start), trainer.model.spec
    if replace(loaded.spec, formats=spec.formats) != spec:
        raise UserError(f"{start}: its network is {loaded.spec}, asked for is {spec}")
    trainer.model.load_state_dict(loaded.state)
    return loaded.metrics


def command_line(spec: NetworkSpec, recipe: Recipe) -> str:
    """The command that trains this network so, but for --data and --out."""
    words = ["python -m bnnhw.train", f"--dataset {recipe.dataset}", f"--depth {spec.depth}"]
    words.append(f"--widths {','.join(map(str, spec.widths))}")
    for name, value in asdict(spec.repair).items():
        text = ("off", "on")[value] if isinstance(value, bool) else value
        words.append(f"--repair {name}={text}")
    words += [f"--epochs {recipe.epochs}"] if recipe.epochs is not None else []
    words += [f"--budget-minutes {recipe.minutes:g}"] if recipe.minutes is not None else []
    words.append(f"--batch {recipe.batch} --lr {recipe.lr:g} --crop {recipe.crop}")
    words += [f"--distil {recipe.distil:g}"] if recipe.distil else []
    return " ".join([*words, "--flip" if recipe.flip else "--no-flip", f"--seed {recipe.seed}"])


def parse_repairs(settings: tuple[str, ...]) -> Repair:
    """`NAME=VALUE` settings as a Repair; on and off are True and False."""
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
    return Repair(**chosen)


def numbers(option: str, text: str, separator: str) -> tuple[int, ...]:
    """Whole numbers between separators, such as 16,32,64 and 32x32x3."""
    try:
        return tuple(int(part) for part in text.split(separator))
    except ValueError:
        raise UserError(f"{option} {text}: give whole numbers such as 8{separator}16") from None


class Progress:
    """A line with the time left on a terminal, one line per epoch elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Left

        console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>4.1f} %"),
            TimeElapsedColumn(), TextColumn("left"), Left(), console=console,
        )  # fmt: skip
        self.task = self.bar.add_task("training", total=1.0)

    def __call__(self, entry: dict[str, Any]) -> None:
        if "done" in entry:
            self.bar.update(self.task, completed=entry["done"])
            return
        self.bar.console.print(
            f"epoch {entry['epoch']}: loss {entry['loss']}, "
            f"validation {entry['validation']} %, {entry['seconds']} s", highlight=False,
        )  # fmt: skip


@click.command(cls=Command)
@click.option("--dataset", type=click.Choice(data.DATASETS), default="cifar10", show_default=True)
@click.option("--data", "directory", help="Directory of the data set (digits need none).")
@click.option("--depth", default=20, show_default=True, help="2 x stages x n + 2 layers.")
@click.option("--widths", default="16,32,64", show_default=True, help="Channels per stage.")
@click.option("--classes", type=int, help="Classes; the data set's if not given.")
@click.option("--input", "shape", help="HEIGHTxWIDTHxCHANNELS; the data set's if not given.")
@click.option("--repair", "repairs", multiple=True, metavar="NAME=VALUE", help="Repair method.")
@click.option("--epochs", type=int, help="Epochs; 0 writes an untrained network.")
@click.option("--budget-minutes", "minutes", type=float, help="Schedule ends with this time.")
@click.option("--batch", default=64, show_default=True)
@click.option("--lr", default=1e-2, show_default=True)
@click.option("--crop", default=2, show_default=True, help="Greatest random shift in pixels.")
@click.option("--flip/--no-flip", default=None, help="Mirror at random; default: not for digits.")
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option("--start", help="Model.pt or bundled model to begin with instead of random weights.")
@click.option("--teacher", help="State dict of a float CIFAR-10 ResNet-20 to learn from.")
@click.option("--distil", default=0.0, show_default=True, help="Weight of the teacher's logits.")
@click.option("--processes", default=1, show_default=True, help="Share batches among so many.")
@click.option("--resume", is_flag=True, help="Go on from OUT.state.")
def main(
    dataset: str, directory: str | None, depth: int, widths: str, classes: int | None,
    shape: str | None, repairs: tuple[str, ...], epochs: int | None, minutes: float | None,
    batch: int, lr: float, crop: int, flip: bool | None, seed: int, out: Path, resume: bool,
    start: str | None, teacher: str | None, distil: float, processes: int,
) -> None:  # fmt: skip
    """Train a binary ResNet and write it as OUT (model.pt)."""
    spec = NetworkSpec(
        depth=depth,
        widths=numbers("--widths", widths, ","),
        input=numbers("--input", shape, "x") if shape else data.SHAPES[dataset][0],
        classes=classes or data.SHAPES[dataset][1],
        repair=parse_repairs(repairs),
    )
    if epochs == 0:
        checkpoint.save(out, untrained(spec, seed), dict(epochs=0, seed=seed))
        return
    flip = dataset != "digits" if flip is None else flip
    recipe = Recipe(dataset, epochs, minutes, batch, lr, crop, flip, seed, distil)
    progress = Progress()
    work = (spec, recipe, directory, out, resume, start, teacher)
    with team(processes, train, *work) as place, progress.bar:
        train(*work, log=progress, team=place)


if __name__ == "__main__":
    main()
