"""Where a network departs from a reference: its float numbers, their rounding, or its integers."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bnnhw import golden
from bnnhw.errors import UserError
from bnnhw.lowering.align import aligned
from bnnhw.lowering.lower import lower
from bnnhw.network import real
from bnnhw.network.folded import FoldedNetwork
from bnnhw.network.real import Map
from bnnhw.network.spec import NetworkSpec

LOGITS = "logits"
REMEDY = "write it with np.savez(FILE, x=images, logits=logits)"
STEPS = ("float", "rounded", "integer")
Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Departure:
    """How far a tensor is from what it is compared with.

    tensor : its name. own : what this part alone adds, as all before it had the same input.
    total : what has come together from the image on. Both are the root mean square of the
        difference, over that of the tensor.
    greatest : the greatest difference of its own, at the index `place` (N, H, W, C).
    """

    tensor: str
    own: float
    total: float
    greatest: float
    place: tuple[int, ...]


@dataclass(frozen=True)
class Link:
    """One step of the chain from a reference to the integers.

    before, after : reference and float, float and rounded, or rounded and integer.
    departures : of each tensor that both have, in order of computation. limit : the part of its own
        from which on a tensor departs. same : the share of images with the same class.
    """

    before: str
    after: str
    departures: tuple[Departure, ...]
    limit: float
    same: float

    @property
    def first(self) -> Departure | None:
        """Returns the first tensor that departs, or None if none does."""
        return next((each for each in self.departures if self.departs(each)), None)

    def departs(self, each: Departure) -> bool:
        """Returns whether a tensor departs."""
        return not each.own <= self.limit

    def __str__(self) -> str:
        """Returns one sentence with the first tensor that departs, and by how much."""
        told, each = "nothing departs", max(self.departures, key=lambda each: each.own)
        if self.first is not None:
            told, each = f"{self.first.tensor} departs first", self.first
        return (
            f"{self.before} to {self.after}: {told}; {each.tensor} by {100 * each.own:.2g} % of "
            f"its own, {each.greatest:.4g} at {each.place}; {100 * self.same:.4g} % of the classes "
            f"are the same"
        )


@dataclass(frozen=True)
class Reference:
    """pixels : uint8 (N, H, W, C). tensors : float by name, in order of computation."""

    pixels: np.ndarray
    tensors: Tensors


def shapes(spec: NetworkSpec) -> dict[str, tuple[int, ...]]:
    """Returns every tensor that a reference may have, in order of computation, with its shape.

    stem and the names of the convolutions are (H, W, C), what continues after them in real units
    before it is rounded: the residual stream where there is a shortcut, else what the next
    binarizer takes. logits is (classes,).
    """
    height, width, _ = spec.input
    found: dict[str, tuple[int, ...]] = {"stem": (height, width, spec.stem_channels)}
    for shape in spec.convolutions():
        found[shape.name] = (shape.out_height, shape.out_width, shape.out_channels)
    return found | {LOGITS: (spec.classes,)}


def read_reference(path: Path, spec: NetworkSpec) -> Reference:
    """Returns the content of an .npz with x, logits and any other of `shapes`.

    x : images uint8 (N, H, W, C). Every tensor : floats, (N, ...).
    Raises UserError, naming the array, for one that is missing, unknown or of a wrong shape.
    """
    if path.is_file() and not zipfile.is_zipfile(path):
        raise UserError(f"{path}: not an .npz, or cut off; {REMEDY}")
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; {REMEDY}") from None
    except Exception as error:  # a damaged archive can raise nearly anything
        raise UserError(f"{path}: not an .npz of plain arrays ({error}); {REMEDY}") from None
    known = {"x": spec.input} | shapes(spec)
    for name in ("x", LOGITS):
        if name not in found:
            raise UserError(f"{path}: {name} is missing; {REMEDY}")
    for name, array in found.items():
        if name not in known:
            raise UserError(f"{path}: unknown array {name!r}; give some of {', '.join(known)}")
        wanted = (len(found["x"]), *known[name])
        kind = "uint8" if name == "x" else "floats"
        right = array.dtype == np.uint8 if name == "x" else array.dtype.kind == "f"
        if array.shape != wanted or not right or not len(array):
            raise UserError(
                f"{path}: {name} is {array.dtype} {array.shape}, must be {kind} {wanted}: images, "
                f"rows, columns, channels"
            )
        if name != "x" and not np.isfinite(array).all():
            raise UserError(f"{path}: {name} has NaN or infinite values; make the reference anew")
    tensors = {name: found[name] for name in shapes(spec) if name in found}
    return Reference(found["x"], tensors)


def real_tensors(
    network: FoldedNetwork, pixels: np.ndarray, *, rounded: bool, given: Tensors | None = None
) -> dict[str, np.ndarray]:
    """Returns every tensor of `shapes` that the network makes of uint8 pixels (N, H, W, C).

    rounded : whether the stream is rounded.
    given : what takes the place of the tensors of these names in all that follows them. So each
        part gets the same input as the one that made them.
    """
    found: dict[str, list[np.ndarray]] = {}
    forced = given or {}

    def keep(name: str, x: Map) -> Map | None:
        start = sum(map(len, found.setdefault(name, [])))
        found[name].append(x)
        if name not in forced:
            return None
        return forced[name][start : start + len(x)].astype(np.float64)

    logits = real.run(network, pixels, rounded=rounded, keep=keep)
    return {name: np.concatenate(parts) for name, parts in found.items()} | {LOGITS: logits}


def integer_tensors(source: FoldedNetwork, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the residual streams and the logits of the network's integers, in real units."""
    network = lower(source)
    shapes = network.spec.convolutions()
    fractions = {"stem": network.spec.formats.fraction(0)}
    fractions |= {shape.name: shape.fraction for shape in shapes if shape.shortcut}
    run = golden.run(network, pixels, [f"{name}.residual" for name in fractions])
    last = shapes[-1]
    unit = source.head.unit / (last.out_height * last.out_width * 2.0**last.fraction)
    found = {name: run[f"{name}.residual"] * 2.0**-bits for name, bits in fractions.items()}
    return found | {LOGITS: run["head.logits"] * unit}


def compare(
    network: FoldedNetwork, reference: Reference, limits: Mapping[str, float]
) -> tuple[Link, ...]:
    """Returns the links from a reference over float and rounded numbers to the integers.

    limits : from which part of its own on a tensor departs, for each of STEPS.
    The later links need nothing but the reference's images.
    """
    pixels, integer = reference.pixels, integer_tensors(network, reference.pixels)
    moved = network if network.rounded else aligned(network, lower(network).spec.formats)
    free = {
        rounded: real_tensors(source, pixels, rounded=rounded)
        for rounded, source in ((False, network), (True, moved))
    }
    own_of_integer = real_tensors(moved, pixels, rounded=True, given=integer)
    own_of_rounded = real_tensors(moved, pixels, rounded=False, given=free[True])
    own_of_real = real_tensors(network, pixels, rounded=False, given=reference.tensors)
    return (
        _link("reference", "float", reference.tensors, free[False], own_of_real, limits),
        _link("float", "rounded", free[True], free[False], own_of_rounded, limits),
        _link("rounded", "integer", integer, free[True], own_of_integer, limits),
    )


def _link(
    before: str, after: str, tensors: Tensors, total: Tensors, own: Tensors,
    limits: Mapping[str, float],
) -> Link:  # fmt: skip
    """Returns a link. total, own : the other end's tensors, of the images and of `tensors`."""
    departures = tuple(_departure(name, tensors[name], total[name], own[name]) for name in tensors)
    same = (tensors[LOGITS].argmax(1) == total[LOGITS].argmax(1)).mean()
    return Link(before, after, departures, limits[after], float(same))


def _departure(name: str, tensor: np.ndarray, total: np.ndarray, own: np.ndarray) -> Departure:
    size, difference = _size(tensor), np.abs(own - tensor.astype(np.float64))
    place = np.unravel_index(difference.argmax(), difference.shape)
    return Departure(
        name, _share(_size(difference), size), _share(_size(total - tensor), size),
        float(difference.max()), tuple(map(int, place)),
    )  # fmt: skip


def _size(values: np.ndarray) -> float:
    """Returns the root mean square."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float(np.inf if part else 0.0)
