"""python -m bnnhw.train: train a binary ResNet, or write an untrained one with --epochs 0."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bnnhw import checkpoint, data
from bnnhw.cli import Command
from bnnhw.errors import UserError
from bnnhw.nn import BinaryResNet, untrained
from bnnhw.spec import NetworkSpec, Repair

LATENT_LIMIT = 1.5
WARM_UP = 0.03
Log = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Recipe:
    """How to train. The schedule ends with `epochs` or with `minutes`, whichever comes first."""

    dataset: str = "cifar10"
    epochs: int | None = None
    minutes: float | None = None
    batch: int = 64
    lr: float = 1e-2
    crop: int = 2
    flip: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs is None and self.minutes is None:
            raise UserError("no end to the training: give --epochs, --budget-minutes or both")
        for name in ("epochs", "minutes", "batch", "lr"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{name}={value}: must be greater than 0")


class Batches:
    """Shuffled, randomly shifted and mirrored batches of a training set, without a loop.

    Pixels that a shift brings in from outside are 128, the stem's zero.
    """

    def __init__(self, images: data.Images, recipe: Recipe, device: torch.device) -> None:
        pad = recipe.crop
        self.height, self.width = images.pixels.shape[1:3]
        padded = np.pad(
            images.pixels, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=128
        )
        self.pixels = torch.from_numpy(padded).to(device)
        self.labels = torch.from_numpy(images.labels).to(device)
        self.recipe = recipe

    def __len__(self) -> int:
        return len(self.labels) // self.recipe.batch

    def epoch(self, generator: torch.Generator) -> Any:
        """Yields (uint8 (B, C, H, W) channels last, int64 (B,)); the last rest is dropped."""
        device, batch = self.pixels.device, self.recipe.batch
        count = len(self.labels)
        order = torch.randperm(count, generator=generator).to(device)
        shift = torch.randint(0, 2 * self.recipe.crop + 1, (count, 2), generator=generator)
        mirror = torch.rand(count, generator=generator) < (0.5 if self.recipe.flip else 0.0)
        rows = (shift[:, :1] + torch.arange(self.height)).to(device)
        across = torch.arange(self.width)
        across = torch.where(mirror[:, None], across.flip(0), across)
        columns = (shift[:, 1:] + across).to(device)
        for start in range(0, len(self) * batch, batch):
            part = slice(start, start + batch)
            chosen = order[part]
            pixels = self.pixels[chosen[:, None, None], rows[part, :, None], columns[part, None]]
            yield pixels.permute(0, 3, 1, 2), self.labels[chosen]


@torch.inference_mode()
def accuracy(model: BinaryResNet, images: data.Images, batch: int = 250) -> float:
    """Top-1 percent of the float model, in float32."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    right = 0
    for start in range(0, len(images), batch):
        pixels = torch.from_numpy(images.pixels[start : start + batch]).to(device)
        labels = torch.from_numpy(images.labels[start : start + batch]).to(device)
        right += int((model(pixels.permute(0, 3, 1, 2)).argmax(1) == labels).sum())
    model.train(training)
    return 100.0 * right / len(images)


class Trainer:
    """A model in training and all the state needed to go on exactly where it stopped."""

    def __init__(
        self, spec: NetworkSpec, recipe: Recipe, train: data.Images, validation: data.Images
    ) -> None:
        self.recipe, self.validation = recipe, validation
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(recipe.seed)
        self.generator = torch.Generator().manual_seed(recipe.seed)
        model = BinaryResNet(spec).to(self.device, memory_format=torch.channels_last)
        self.model = model
        self.optimiser = torch.optim.Adam(model.parameters(), lr=recipe.lr)
        self.batches = Batches(train, recipe, self.device)
        if not len(self.batches):
            raise UserError(f"batch={recipe.batch}: there are only {len(train)} training images")
        self.epoch, self.seconds = 0, 0.0

    def progress(self, step: int, seconds: float) -> float:
        """Part of the schedule that is done, in [0, 1]."""
        parts = [0.0]
        if self.recipe.epochs is not None:
            parts.append((self.epoch + step / len(self.batches)) / self.recipe.epochs)
        if self.recipe.minutes is not None:
            parts.append(seconds / (60 * self.recipe.minutes))
        return min(1.0, max(parts))

    def run(self, log: Log, after_epoch: Callable[[], None]) -> None:
        """Train to the end of the schedule; `after_epoch` is called when state can be kept."""
        while self.progress(0, self.seconds) < 1:
            started, before = time.monotonic(), self.seconds
            loss = self._run_epoch(started, log)
            self.epoch += 1
            self.seconds = before + time.monotonic() - started
            top1 = accuracy(self.model, self.validation)
            log(dict(epoch=self.epoch, seconds=round(self.seconds), loss=round(loss, 4),
                     validation=round(top1, 2)))  # fmt: skip
            after_epoch()

    def _run_epoch(self, started: float, log: Log) -> float:
        self.model.train()
        total = torch.zeros(())
        step = 0
        for step, (pixels, labels) in enumerate(self.batches.epoch(self.generator), 1):
            seconds = self.seconds + time.monotonic() - started
            done = self.progress(step - 1, seconds)
            if done >= 1:
                break
            total += self._step(pixels, labels, done)
            if step % 10 == 0:
                log(dict(done=done, seconds=seconds))
        return float(total) / max(1, step)

    def _step(self, pixels: Tensor, labels: Tensor, done: float) -> Tensor:
        rate = self.recipe.lr * min(1.0, (done + 1e-3) / WARM_UP)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * done))
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = F.cross_entropy(self.model(pixels), labels)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        with torch.no_grad():
            torch._foreach_clamp_min_(self.model.latent_weights(), -LATENT_LIMIT)
            torch._foreach_clamp_max_(self.model.latent_weights(), LATENT_LIMIT)
        return loss.detach().cpu()

    def state(self) -> dict[str, Any]:
        """Everything `restore` needs, as plain values and tensors."""
        return dict(
            recipe=asdict(self.recipe), spec=self.model.spec.to_dict(), epoch=self.epoch,
            seconds=self.seconds, generator=self.generator.get_state(),
            model=self.model.state_dict(), optimiser=self.optimiser.state_dict(),
        )  # fmt: skip

    def restore(self, state: Any, where: Path) -> None:
        """Go on from `state`; the recipe and the spec must be the ones it was made with."""
        mine = self.state()
        if not isinstance(state, dict) or state.keys() != mine.keys():
            raise UserError(f"{where}: not a training state of this bnnhw; start without --resume")
        for name in ("recipe", "spec"):
            if state[name] != mine[name]:
                raise UserError(
                    f"{where}: was started with {name} {state[name]}, now {mine[name]}; resume "
                    f"with the same options"
                )
        self.epoch, self.seconds = state["epoch"], state["seconds"]
        self.generator.set_state(state["generator"])
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])


def train(
    spec: NetworkSpec, recipe: Recipe, directory: str | None, out: Path,
    *, resume: bool = False, log: Log = lambda entry: None,
) -> Trainer:  # fmt: skip
    """Train and leave model.pt at `out` after every epoch, its training state in `out`.state."""
    parts = [data.load(recipe.dataset, directory, split) for split in ("train", "validation")]
    shape = (*parts[0].pixels.shape[1:], parts[0].classes)
    if shape != (*spec.input, spec.classes):
        raise UserError(
            f"--input and --classes say {(*spec.input, spec.classes)}, {recipe.dataset} has {shape}"
        )
    trainer = Trainer(spec, recipe, *parts)
    kept = out.with_name(out.name + ".state")
    if resume:
        trainer.restore(checkpoint.read_inert(kept, "training state"), kept)
    metrics = dict(recipe=asdict(recipe), history=[])

    def keep() -> None:
        metrics.update(epochs=trainer.epoch, seconds=round(trainer.seconds))
        checkpoint.save(out, trainer.model, metrics)
        checkpoint.write_atomic(trainer.state(), kept)

    trainer.run(log, keep)
    return trainer


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
@click.option("--resume", is_flag=True, help="Go on from OUT.state.")
def main(
    dataset: str, directory: str | None, depth: int, widths: str, classes: int | None,
    shape: str | None, repairs: tuple[str, ...], epochs: int | None, minutes: float | None,
    batch: int, lr: float, crop: int, flip: bool | None, seed: int, out: Path, resume: bool,
) -> None:  # fmt: skip
    """Train a binary ResNet and write it as OUT (model.pt)."""
    spec = NetworkSpec(
        depth=depth,
        widths=numbers("--widths", widths, ","),
        input=numbers("--input", shape, "x") if shape else data.SHAPES[dataset][0],  # type: ignore[arg-type]
        classes=classes or data.SHAPES[dataset][1],
        repair=parse_repairs(repairs),
    )
    if epochs == 0:
        checkpoint.save(out, untrained(spec, seed), dict(epochs=0, seed=seed))
        return
    recipe = Recipe(
        dataset, epochs, minutes, batch, lr, crop, dataset != "digits" if flip is None else flip, seed
    )
    torch.set_num_threads(1)  # a second thread makes these small kernels slower
    progress = Progress()
    with progress.bar:
        train(spec, recipe, directory, out, resume=resume, log=progress)


if __name__ == "__main__":
    main()
