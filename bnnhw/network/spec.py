"""A network's shape and its repair methods, without weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from bnnhw.errors import UserError
from bnnhw.network.layers import Layer, check_layers, residual_layers, whole
from bnnhw.network.repair import Repair


def thermometer_levels(count: int) -> list[int]:
    """Returns the byte from which each of `count` bits is 1: 256 in count + 1 parts, rounded."""
    return [round(256 * (level + 1) / (count + 1)) for level in range(count)]


@dataclass(frozen=True)
class NumberFormats:
    """Fixed-point formats of the integer network; bnnhw.network.integer defines how they are used.

    residual_width, residual_fraction : bits, and bits after the point, of the residual stream.
    residual_fractions : bits after the point in each stage; empty where residual_fraction is that
        of all.
    scale_fraction : bits after the point of a channel's scale, counted in residual steps.
    guard : extra bits after the point while a residual is added, rounded away at the end.
    """

    residual_width: int = 8
    residual_fraction: int = 4
    scale_fraction: int = 12
    guard: int = 4
    residual_fractions: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "residual_fractions", tuple(self.residual_fractions))
        whole("residual_width", self.residual_width, 8, 16)
        for fraction in (self.residual_fraction, *self.residual_fractions):
            whole("residual_fraction", fraction, 0, self.residual_width - 1)
        whole("guard", self.guard, 1, 6)
        whole("scale_fraction", self.scale_fraction, self.guard, 14)

    def fraction(self, stage: int) -> int:
        """Returns the bits after the point of a stage's residual stream."""
        return self.residual_fractions[stage] if self.residual_fractions else self.residual_fraction

    def wider(self, width: int) -> NumberFormats:
        """Returns these formats for a stream of other bits, which come or go behind its point."""
        greatest = max(width, self.residual_width)
        more = width - self.residual_width
        return replace(replace(self, residual_width=greatest).finer(more), residual_width=width)

    def at(self, fraction: int) -> NumberFormats:
        """Returns these formats where the stream has this one point."""
        return replace(self, residual_fraction=fraction, residual_fractions=())

    def finer(self, bits: int) -> NumberFormats:
        """Returns these formats with so many bits more after the stream's point, none below 0."""
        return replace(
            self,
            residual_fraction=max(0, self.residual_fraction + bits),
            residual_fractions=tuple(max(0, each + bits) for each in self.residual_fractions),
        )


@dataclass(frozen=True)
class Convolution:
    """One binary 3x3 convolution of the network, in order of execution.

    shortcut : whether the residual stream is added to its output (and so continues here).
    shortcut_stride, shortcut_channels : how the stream that is added was: subsampled by this,
        from this many channels, of which the first lands on output channel `shortcut_offset`.
    fraction, shortcut_fraction : bits after the point of the numbers it makes, and of the stream
        that is added. stage : of the network, from 0. repair : its methods, where
        they are not the network's.
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
    fraction: int = 0
    shortcut_fraction: int = 0
    stage: int = 0
    repair: Repair | None = None

    @property
    def out_height(self) -> int:
        return -(-self.height // self.stride)

    @property
    def out_width(self) -> int:
        return -(-self.width // self.stride)

    @property
    def shortcut_offset(self) -> int:
        """How many of the missing channels go in front: half of them, rounded to an even count.

        It is no more than leaves room for the shortcut's last, possibly incomplete, group of 16
        channels.
        """
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
    stages : blocks of two convolutions in each stage, such as (3, 4, 6, 3); empty is as depth says.
        depth follows from them.
    layers : every binary convolution, in place of what depth, widths and stages make; they follow
        from it. Empty is that formula, `residual_layers`.
    widths : channels of each stage; even, never falling.
    input : (height, width, channels) of the 8-bit image.
    classes : 2 to 256.
    pad : the byte of padded pixels, for each colour. Empty is 128, and for a thermometer stem what
        repair.padding says.
    levels : of a thermometer stem, the bytes from which its bits are 1; an even number of rising
        ones. Empty is thermometer_levels of as many as its stem has.
    stem_activation : the repair's kinds of activations; after the stem.
    adabin_padding : what binary_sets=adabin pads features with: the centre of their values, which
        leaves a padded tap out, or zero as the published code does.
    """

    depth: int = 20
    widths: tuple[int, ...] = (16, 32, 64)
    input: tuple[int, int, int] = (32, 32, 3)
    classes: int = 10
    repair: Repair = field(default_factory=Repair)
    formats: NumberFormats = field(default_factory=NumberFormats)
    pad: tuple[int, ...] = ()
    levels: tuple[int, ...] = ()
    stem_activation: str = "none"
    adabin_padding: str = "centre"
    stages: tuple[int, ...] = ()
    layers: tuple[Layer, ...] = ()

    def __post_init__(self) -> None:
        for name in LISTS:
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "layers", tuple(self.layers))
        if self.layers:
            self._follow_layers()
        else:
            self._check_formula()
        if len(self.input) != 3:
            raise UserError(f"input={self.input}: give height x width x channels")
        smallest = 2
        for layer in self.convolution_layers():
            smallest *= layer.stride
        for name, size in zip(("height", "width"), self.input[:2], strict=True):
            whole(f"input {name}", size, smallest, 256)
        whole("input channels", self.input[2], 1, 8)
        whole("classes", self.classes, 2, 256)
        self._check_stem()
        self._check_sets()
        fractions = self.formats.residual_fractions
        if fractions and len(fractions) != len(self.widths):
            raise UserError(
                f"residual_fractions={fractions}: give one for each of {len(self.widths)} stages"
            )
        self.convolutions()  # whose strides must go together

    def _check_formula(self) -> None:
        """Whether depth, widths and stages make a network."""
        if not 1 <= len(self.widths) <= 5:
            raise UserError(f"widths={self.widths}: give one to five stages")
        for width in self.widths:
            whole("widths", width, 2, 1024)
            if width % 2:
                raise UserError(f"widths={self.widths}: {width} is odd, stage widths must be even")
        if list(self.widths) != sorted(self.widths):
            raise UserError(f"widths={self.widths}: a stage must not be narrower than the last")
        if self.stages:
            if len(self.stages) != len(self.widths):
                raise UserError(f"stages={self.stages}: give one for each of widths={self.widths}")
            for blocks in self.stages:
                whole("stages", blocks, 1, 100)
            object.__setattr__(self, "depth", 2 * sum(self.stages) + 2)
            return
        step = 2 * len(self.widths)
        whole("depth", self.depth, step + 2, 202)
        if (self.depth - 2) % step:
            raise UserError(
                f"depth={self.depth}: must be {step}n+2 for {len(self.widths)} stages, "
                f"such as {step + 2}, {2 * step + 2}, {3 * step + 2}"
            )

    def _follow_layers(self) -> None:
        """Let depth, widths and stages be those of the layers."""
        if self.stages:
            raise UserError(f"stages={self.stages}: layers say it all; give one of both")
        check_layers(self.layers, self.repair)
        count = self.layers[-1].stage + 1
        widths = [0] * count
        for layer in self.layers:
            widths[layer.stage] = layer.out_channels
        object.__setattr__(self, "widths", tuple(widths))
        object.__setattr__(self, "depth", len(self.layers) + 2)

    def _check_stem(self) -> None:
        _choose("stem_activation", self.stem_activation, ACTIVATIONS)
        if self.pad and len(self.pad) != self.input[2]:
            raise UserError(f"pad={self.pad}: give a byte for each of {self.input[2]} colours")
        for byte in self.pad:
            whole("pad", byte, 0, 255)
        for level in self.levels:
            whole("levels", level, 1, 255)
        if self.levels and self.repair.stem != "thermometer":
            raise UserError(f"levels: only stem=thermometer has them, not {self.repair.stem}")
        if len(self.levels) % 2 or list(self.levels) != sorted(set(self.levels)):
            raise UserError(f"levels={self.levels}: give an even number of rising bytes")

    def _check_sets(self) -> None:
        _choose("adabin_padding", self.adabin_padding, ("centre", "zero"))
        repairs = [layer.repair or self.repair for layer in self.convolution_layers()]
        sets = [repair for repair in repairs if repair.binary_sets == "adabin"]
        if self.adabin_padding == "zero" and not sets:
            raise UserError(
                "adabin_padding=zero: only features of binary_sets=adabin have a centre"
            )
        if self.adabin_padding == "zero" and any(each.scaling == "spatial" for each in sets):
            raise UserError("adabin_padding=zero: cannot be had with scaling=spatial")

    @property
    def stem_channels(self) -> int:
        """Channels that the stem leaves."""
        return self.layers[0].in_channels if self.layers else self.widths[0]

    @property
    def blocks(self) -> tuple[int, ...]:
        """Blocks of two convolutions in each stage; of layers half as many as convolutions."""
        if self.stages:
            return self.stages
        if self.layers:
            found = [layer.stage for layer in self.layers]
            return tuple(max(1, found.count(stage) // 2) for stage in range(len(self.widths)))
        return ((self.depth - 2) // (2 * len(self.widths)),) * len(self.widths)

    def convolution_layers(self) -> tuple[Layer, ...]:
        """Returns the binary convolutions as layers, in order of execution."""
        if self.layers:
            return self.layers
        return residual_layers(self.widths, self.blocks, self.repair.double_residual)

    def convolutions(self) -> tuple[Convolution, ...]:
        """Returns the binary convolutions with their maps' sizes, in order of execution."""
        result = []
        height, width, _ = self.input
        channels, stride, before = self.stem_channels, 1, self.formats.fraction(0)
        for layer in self.convolution_layers():
            fraction, stride = self.formats.fraction(layer.stage), stride * layer.stride
            if layer.shortcut and stride > 2:
                raise UserError(f"{layer.name}: its shortcut would be of stride {stride}, above 2")
            shape = Convolution(
                layer.name, layer.in_channels, layer.out_channels, height, width, layer.stride,
                layer.shortcut, stride if layer.shortcut else layer.stride, channels, fraction,
                before, layer.stage, layer.repair,
            )  # fmt: skip
            height, width = shape.out_height, shape.out_width
            if layer.shortcut:
                channels, stride, before = layer.out_channels, 1, fraction
            result.append(shape)
        return tuple(result)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain numbers, strings, lists and dicts, as JSON and model.pt hold them.

        Fields of LATER are left out where they have their default. So a network that could always
        be described is described as ever, and what is named after that is found again.
        """
        plain = asdict(self)
        plain |= {name: list(getattr(self, name)) for name in LISTS}
        plain["layers"] = list(plain["layers"])
        fractions = list(plain["formats"].pop("residual_fractions"))
        if fractions:
            plain["formats"]["residual_fractions"] = fractions
        usual = NetworkSpec()
        for name in LATER:
            if getattr(self, name) == getattr(usual, name):
                del plain[name]
        return plain

    @classmethod
    def from_dict(cls, plain: Any) -> NetworkSpec:
        """Returns the inverse of `to_dict`. Raises UserError where a key or value is not ours."""
        plain = _known(cls, plain, "spec")
        if "repair" in plain:
            plain["repair"] = Repair(**_known(Repair, plain["repair"], "spec.repair"))
        if "formats" in plain:
            formats = _known(NumberFormats, plain["formats"], "spec.formats")
            if not isinstance(formats.get("residual_fractions", []), (list, tuple)):
                raise UserError("spec.formats.residual_fractions: must be a list of numbers")
            plain["formats"] = NumberFormats(**formats)
        if "layers" in plain:
            plain["layers"] = [_layer(each) for each in _listed(plain, "layers")]
        for name in LISTS:
            if not isinstance(plain.get(name, []), (list, tuple)):
                raise UserError(f"spec.{name}={plain[name]!r}: must be a list of numbers")
        return cls(**plain)


LATER = ("pad", "levels", "stem_activation", "adabin_padding", "stages", "layers")
LISTS = ("widths", "input", "pad", "levels", "stages")  # fields that are tuples of numbers
ACTIVATIONS = ("none", "prelu", "rprelu", "maxout")


def _choose(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"{name}={value!r}: choose one of {', '.join(allowed)}")


def stage_fractions(text: str, spec: NetworkSpec) -> tuple[int, ...]:
    """Returns the bits after the point of each stage: of a text such as stage0=3,stage2=4, and of
    the spec where it does not say."""
    points = [spec.formats.fraction(stage) for stage in range(len(spec.widths))]
    for setting in text.split(","):
        name, _, value = setting.partition("=")
        stage = name.removeprefix("stage")
        if not (stage.isdecimal() and value.isdecimal() and int(stage) < len(points)):
            raise UserError(
                f"--fraction {setting}: give stageN=BITS with N from 0 to {len(points) - 1}"
            )
        points[int(stage)] = int(value)
    return tuple(points)


def _listed(plain: dict[str, Any], name: str) -> list[Any]:
    if not isinstance(plain[name], (list, tuple)):
        raise UserError(f"spec.{name}: must be a list")
    return list(plain[name])


def _layer(plain: Any) -> Layer:
    known = _known(Layer, plain, "spec.layers")
    if known.get("repair") is not None:
        known["repair"] = Repair(**_known(Repair, known["repair"], "spec.layers.repair"))
    try:
        return Layer(**known)
    except TypeError:
        raise UserError("spec.layers: each needs name, in_channels and out_channels") from None


def _known(kind: type, plain: Any, where: str) -> dict[str, Any]:
    if not isinstance(plain, dict):
        raise UserError(f"{where}: must be a table of settings, not {type(plain).__name__}")
    unknown = sorted(map(str, set(plain) - {entry.name for entry in fields(kind)}))
    if unknown:
        raise UserError(f"{where}: unknown setting {unknown[0]!r}; a newer bnnhw may know it")
    return dict(plain)
