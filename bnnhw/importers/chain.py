"""The layers of a foreign graph in order, each with what it consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from bnnhw.errors import UserError
from bnnhw.importers.binary import Binary, binary, thresholds
from bnnhw.importers.values import (
    Convolved,
    Logits,
    Moved,
    Real,
    Reduced,
    Stem,
    Step,
    Sum,
    Unsupported,
    reduced,
)

Blame = Callable[[str], str]


@dataclass(frozen=True)
class Part:
    """One layer.

    levels, falls : of its input, as thresholds() has them.
    branch : what lies between convolution and addition, or all that follows without one.
    shortcut : what is added, a stream or a Moved. after : what lies between addition and stream.
    """

    node: str
    convolved: Convolved
    binary: Binary
    levels: np.ndarray
    falls: np.ndarray
    branch: Reduced
    shortcut: Real | None = None
    after: Reduced | None = None


@dataclass(frozen=True)
class Chain:
    """A whole network. steps : between the stem's convolution and the stream."""

    stem: Stem
    steps: Reduced
    parts: tuple[Part, ...]
    logits: Logits


@contextmanager
def blaming(node: str, blame: Blame) -> Iterator[None]:
    """Turns Unsupported into a UserError that names the node, its neighbours and the reason."""
    try:
        yield
    except Unsupported as reason:
        raise UserError(f"{blame(node)}: {reason}") from None


def chain(logits: Logits, blame: Blame) -> Chain:
    """Returns the layers that lead to these logits.

    blame : a node's name -> it with its neighbours, for errors.
    """
    links: list[tuple[Real, Convolved, Real | None]] = []
    taken = stream = logits.map  # by the bits, and by the shortcut, of the layer after
    streams: dict[int, tuple[Step, ...]] = {}
    while not isinstance(taken.root, Stem):
        root = taken.root
        if isinstance(root, Moved):
            raise UserError(f"{blame(root.node)}: a shortcut goes on without a convolution")
        if isinstance(root, Convolved):
            links.append((taken, root, None))
            taken = root.bits.map
            continue
        with blaming(root.node, blame):
            _same_stream(root, stream)
        streams[id(root)] = stream.steps
        convolved, given = root.branch.root, root.shortcut
        assert isinstance(convolved, Convolved)
        links.append((taken, convolved, given))
        stream = given.root.stream if isinstance(given.root, Moved) else given
        taken = convolved.bits.map
    with blaming(taken.root.node, blame):
        _same_stream(taken.root, stream)
        stem = reduced(stream.steps, stream.shape[0])
    streams[id(taken.root)] = stream.steps
    if not links or links[0][2] is None:
        raise UserError(f"{blame(logits.node)}: the layer before must have a shortcut")
    parts = [_part(link, streams, blame) for link in links[::-1]]
    return Chain(taken.root, stem, tuple(parts), logits)


def _same_stream(root: Stem | Sum, stream: Real) -> None:
    """Whether the stream that the next shortcut takes is the one that the next bits are made of."""
    if stream.root is not root:
        raise Unsupported("the next shortcut, or the head, does not take this stream")


def _part(
    link: tuple[Real, Convolved, Real | None], streams: dict[int, tuple[Step, ...]], blame: Blame
) -> Part:
    made, convolved, shortcut = link
    out = len(convolved.weights)
    with blaming(convolved.node, blame):
        found = binary(convolved)
        if not isinstance(made.root, Sum):
            branch = reduced(made.steps, out)
    with blaming(convolved.bits.node, blame):
        levels, falls = _levels(convolved, streams)
        if falls.any() and found.minus_one:
            raise Unsupported("falls with the stream, which padding with -1 does not allow")
    if not isinstance(made.root, Sum):
        return Part(convolved.node, convolved, found, levels, falls, branch)
    with blaming(made.root.node, blame):
        branch = reduced(made.root.branch.steps, out)
        after = reduced(streams[id(made.root)], out)
        if branch.activation is not None and not after.identity:
            raise Unsupported(
                "has an activation before it and a function after it; only one of both can be had"
            )
    return Part(convolved.node, convolved, found, levels, falls, branch, shortcut, after)


def _levels(
    convolved: Convolved, streams: dict[int, tuple[Step, ...]]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns thresholds of the stream, or of the real output of the convolution before."""
    bits = convolved.bits
    if isinstance(bits.map.root, Convolved):
        return bits.level, np.zeros(len(bits.level), bool)
    known = streams[id(bits.map.root)]
    if bits.map.steps[: len(known)] != known:
        raise Unsupported("takes the stream before it is what the shortcut takes")
    return thresholds(bits, reduced(bits.map.steps[len(known) :], len(bits.level)).function())
