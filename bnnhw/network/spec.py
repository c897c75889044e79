"""A network's shape and its repair methods, without weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from bnnhw.errors import UserError
from bnnhw.network.repair import Repair


def _whole(name: str, value: Any, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise UserError(f"{name}={value!r}: must be a whole number from {low} to {high}")


def thermometer_levels(count: int) -> list[int]:
    """The byte from which each of `count` bits is 1: 256 in count + 1 equal parts, rounded."""
    return [round(256 * (level + 1) / (count + 1)) for level in range(count)]


@dataclass(frozen=True)
class NumberFormats:
    """Fixed-point formats of the integer network; bnnhw.network.integer defines how they are used.

    residual_width, residual_fraction : bits, and bits after the point, of the residual stream.
    scale_fraction : bits after the point of a channel's scale, counted in residual steps.
    guard : extra bits after the point while a residual is added, rounded away at the end.
    """

    residual_width: int = 8
    residual_fraction: int = 4
    scale_fraction: int = 12
    guard: int = 4

    def __post_init__(self) -> None:
        _whole("residual_width", self.residual_width, 8, 16)
        _whole("residual_fraction", self.residual_fraction, 0, self.residual_width - 1)
        _whole("guard", self.guard, 1, 6)
        _whole("scale_fraction", self.scale_fraction, self.guard, 14)


@dataclass(frozen=True)
class Convolution:
    """One binary 3x3 convolution of the network, in order of execution.

    shortcut : whether the residual stream is added to its output (and so continues here).
    shortcut_stride, shortcut_channels : how the stream that is added was: subsampled by this,
        from this many channels, of which the first lands on output channel `shortcut_offset`.
    """

    name: str
    in_channels: int
    out_channels: int
    height: int
    width: int
    stride: int
    shortcut: bool
    shortcut_stride: int
    shortcut_channels: int

    @property
    def out_height(self) -> int:
        return -(-self.height // self.stride)

    @property
    def out_width(self) -> int:
        return -(-self.width // self.stride)

    @property
    def shortcut_offset(self) -> int:
        """Half of the missing channels go in front: an even count of them, and no more than
        leaves room for the shortcut's last, possibly incomplete, group of 16 channels."""
        room = -(-self.out_channels // 16) - -(-self.shortcut_channels // 16)
        return min((self.out_channels - self.shortcut_channels) // 4 * 2, 16 * room)

    @property
    def macs(self) -> int:
        """Binary multiply-accumulates, padded taps counted."""
        return 9 * self.in_channels * self.out_channels * self.out_height * self.out_width


@dataclass(frozen=True)
class NetworkSpec:
    """A CIFAR-style binary ResNet: 8-bit 3x3 stem, W1A1 stages, global pooling, 8-bit head.

    depth : 2 * len(widths) * n + 2 layers, n blocks of two convolutions in each stage;
        8, 14, 20, 32, ... for three stages.
    widths : channels of each stage; even, never falling.
    input : (height, width, channels) of the 8-bit image.
    classes : 2 to 256.
    """

    depth: int = 20
    widths: tuple[int, ...] = (16, 32, 64)
    input: tuple[int, int, int] = (32, 32, 3)
    classes: int = 10
    repair: Repair = field(default_factory=Repair)
    formats: NumberFormats = field(default_factory=NumberFormats)

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        object.__setattr__(self, "input", tuple(self.input))
        if not 1 <= len(self.widths) <= 5:
            raise UserError(f"widths={self.widths}: give one to five stages")
        for width in self.widths:
            _whole("widths", width, 2, 1024)
            if width % 2:
                raise UserError(f"widths={self.widths}: {width} is odd, stage widths must be even")
        if list(self.widths) != sorted(self.widths):
            raise UserError(f"widths={self.widths}: a stage must not be narrower than the last")
        step = 2 * len(self.widths)
        _whole("depth", self.depth, step + 2, 202)
        if (self.depth - 2) % step:
            raise UserError(
                f"depth={self.depth}: must be {step}n+2 for {len(self.widths)} stages, "
                f"such as {step + 2}, {2 * step + 2}, {3 * step + 2}"
            )
        if len(self.input) != 3:
            raise UserError(f"input={self.input}: give height x width x channels")
        smallest = 2 ** len(self.widths)
        for name, size in zip(("height", "width"), self.input[:2], strict=True):
            _whole(f"input {name}", size, smallest, 256)
        _whole("input channels", self.input[2], 1, 8)
        _whole("classes", self.classes, 2, 256)

    @property
    def blocks(self) -> int:
        """Blocks per stage."""
        return (self.depth - 2) // (2 * len(self.widths))

    def convolutions(self) -> tuple[Convolution, ...]:
        """The binary convolutions in order of execution."""
        result = []
        height, width, _ = self.input
        channels = self.widths[0]
        for stage, out in enumerate(self.widths):
            for block in range(self.blocks):
                stride = 2 if stage and not block else 1
                name = f"stage{stage}.{block}"
                double = self.repair.double_residual
                first = Convolution(
                    f"{name}.conv1", channels, out, height, width, stride,
                    double, stride, channels,
                )  # fmt: skip
                height, width = first.out_height, first.out_width
                second = Convolution(
                    f"{name}.conv2", out, out, height, width, 1,
                    True, 1 if double else stride, out if double else channels,
                )  # fmt: skip
                result += [first, second]
                channels = out
        return tuple(result)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts, as JSON and model.pt hold them."""
        plain = asdict(self)
        plain["widths"], plain["input"] = list(self.widths), list(self.input)
        return plain

    @classmethod
    def from_dict(cls, plain: Any) -> NetworkSpec:
        """Inverse of `to_dict`; raises UserError where a key or value is not ours."""
        plain = _known(cls, plain, "spec")
        if "repair" in plain:
            plain["repair"] = Repair(**_known(Repair, plain["repair"], "spec.repair"))
        if "formats" in plain:
            plain["formats"] = NumberFormats(
                **_known(NumberFormats, plain["formats"], "spec.formats")
            )
        for name in ("widths", "input"):
            if not isinstance(plain.get(name, []), (list, tuple)):
                raise UserError(f"spec.{name}={plain[name]!r}: must be a list of numbers")
        return cls(**plain)


def _known(kind: type, plain: Any, where: str) -> dict[str, Any]:
    if not isinstance(plain, dict):
        raise UserError(f"{where}: must be a table of settings, not {type(plain).__name__}")
    unknown = sorted(map(str, set(plain) - {entry.name for entry in fields(kind)}))
    if unknown:
        raise UserError(f"{where}: unknown setting {unknown[0]!r}; a newer bnnhw may know it")
    return dict(plain)
