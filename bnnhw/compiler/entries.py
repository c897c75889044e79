"""The contents of the weight buffer for each step: weights and their channels' parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bnnhw.compiler.layout import GROUP, LANES, add_slopes, groups, in_parallel, pack_entries
from bnnhw.errors import UserError
from bnnhw.gateware.parameters import ArrayShape
from bnnhw.network.integer import IntegerActivation, IntegerHead, IntegerStem, Requantiser
from bnnhw.network.spec import NumberFormats

ONE = ArrayShape()  # a channel at a time
HEAD_FOLDS = 16  # entries of a head for each that has room for slopes, which it has none of


@dataclass(frozen=True)
class Slopes:
    """What lanes multiply by where there is no activation, and add.

    one : a slope of 1.0. rounding : half a step. shift_out : whether it is in a memory.
    """

    one: int
    rounding: int
    shift_out: bool

    def table(
        self, part: Requantiser, act: IntegerActivation | None
    ) -> tuple[Requantiser, np.ndarray]:
        """The requantiser and the uint16 (channels, 4) of a convolution or the stem."""
        size = len(part.bias)
        table = np.zeros((GROUP * groups(size), 4), np.int64)
        if act is not None:
            columns = [act.positive, act.negative, act.shift_out]
            table[:size, :3] = np.stack(columns, axis=1)
            return part, table
        table[:size, :2] = self.one
        if self.shift_out:
            return part, table
        return replace(part, bias=part.bias - self.rounding), table


def _parameters(part: Requantiser, channels: int) -> np.ndarray:
    """(padded channels, 3) of scale, bias and threshold; padded channels give y = 0, bit = 1."""
    table = np.zeros((GROUP * groups(channels), 3), np.int64)
    table[:channels] = np.stack([part.scale, part.bias, part.thresholds[0]], axis=1)
    if table[:, 2].max() > 32767:
        raise UserError("threshold 32768 (never) does not fit 16 bits; use a residual_width of 15")
    return table


def threshold_parameters(
    name: str, threshold: np.ndarray | None, formats: NumberFormats
) -> Requantiser:
    """A requantiser whose bit is acc >= threshold: y = saturate(half - ceil(threshold / 2))."""
    if threshold is None:
        raise UserError(f"{name}: has neither scale nor threshold")
    half = -(-threshold.astype(np.int64) // 2)
    bias = -half << formats.guard
    if np.abs(bias).max() > 32767:
        raise UserError(f"{name}: thresholds need more than 16 bits; use a smaller guard")
    return Requantiser(
        scale=np.full(threshold.shape, 1 << formats.scale_fraction, np.int32),
        bias=bias.astype(np.int32),
        threshold=np.zeros(threshold.shape, np.int32),
    )


def binary_taps(weights: np.ndarray) -> np.ndarray:
    """+-1 weights (O, 3, 3, I) to uint16 taps (O padded, folds, 9), bit 1 is +1.

    Features of padded channels are all alike, so alternating weights match half of them and add
    nothing to half the accumulator.
    """
    out, _, _, channels = weights.shape
    padded = np.zeros((GROUP * groups(out), 3, 3, GROUP * groups(channels)), np.uint8)
    padded[..., 1::2] = 1
    padded[:out, :, :, :channels] = weights > 0
    taps = padded.reshape(len(padded), 9, groups(channels), GROUP).transpose(0, 2, 1, 3)
    bits = np.packbits(taps, axis=-1, bitorder="little")
    return np.ascontiguousarray(bits).view("<u2")[..., 0]


def convolution_entries(
    weights: np.ndarray, part: Requantiser, slopes: Slopes | None = None,
    act: IntegerActivation | None = None, pe: int = 1,
) -> np.ndarray:  # fmt: skip
    """Words of channels * folds entries: entry c * folds + f is channel c, input group f; of
    `pe` channels in parallel those of a fold are next to each other.

    slopes : of an engine whose lanes multiply by them, act : those of this convolution.
    """
    taps = binary_taps(weights)
    folds = taps.shape[1]
    last = None
    if slopes is not None:
        part, last = slopes.table(part, act)
    table = np.repeat(_parameters(part, len(weights)), folds, axis=0)
    words = pack_entries(in_parallel(taps.reshape(-1, 9), folds, pe), in_parallel(table, folds, pe))
    return words if last is None else add_slopes(words, last, folds, pe)


def thermometer_weights(weights: np.ndarray, levels: int) -> np.ndarray:
    """+-1 weights (O, 3, 3, C * levels) with each colour's bits in whole groups of 16.

    The bits added are all 0, so alternating weights add nothing.
    """
    out, missing = len(weights), -levels % GROUP
    colours = weights.reshape(out, 3, 3, -1, levels)
    padding = np.resize(np.array([-1, 1], np.int8), (*colours.shape[:-1], missing))
    return np.concatenate([colours, padding], axis=-1).reshape(out, 3, 3, -1)


def scale_entries(
    part: Requantiser, act: IntegerActivation | None, rows: range = range(3),
    slopes: Slopes | None = None, pe: int = 1,
) -> np.ndarray:  # fmt: skip
    """Words (rows * channels,) of a step without weights, an entry a channel; of entries' three
    words those that the step uses.

    The scale is the slope from zero up, the first tap that below.
    """
    if slopes is not None:
        part, table = slopes.table(part, None)
        words = pack_entries(np.zeros((len(table), 9), np.int64), _parameters(part, len(part.bias)))
        return add_slopes(words, table, 1, pe)
    channels = len(part.scale)
    taps = np.zeros((GROUP * groups(channels), 9), np.int64)
    if act is not None:
        taps[:channels, 0] = act.negative
    words = pack_entries(taps, _parameters(part, channels)).reshape(-1, 3)
    return words[:, rows.start : rows.stop].reshape(-1)


def _byte_entries(weights: np.ndarray, shape: ArrayShape = ONE) -> np.ndarray:
    """int8 (outputs, inputs) to taps (walks * inputs * pe, 9): a walk's outputs' bytes in taps 0
    and 1, output token * pe + channel in byte `token` of that channel's entry."""
    outputs, inputs = weights.shape
    padded = np.zeros((-(-outputs // shape.macs) * shape.macs, inputs), np.int8)
    padded[:outputs] = weights
    walks = padded.reshape(-1, shape.tokens, shape.pe, inputs).transpose(0, 3, 2, 1)
    bytes_ = np.zeros((walks[..., 0].size, LANES), np.int8)
    bytes_[:, : shape.tokens] = walks.reshape(-1, shape.tokens)
    taps = np.zeros((len(bytes_), 9), np.uint16)
    taps[:, :2] = bytes_.view("<u2")
    return taps


def pointwise_entries(weights: np.ndarray, part: Requantiser) -> np.ndarray:
    """int8 weights (O, I) of a 1x1 convolution. Entry (quad * inputs + i) / 2 has input i of four
    outputs in taps 0 and 1, and input i + 1 in the next two; channel c's parameters are in entry c.
    """
    out, inputs = (GROUP * groups(size) for size in weights.shape)
    padded = np.zeros((out, inputs), np.int8)
    padded[: weights.shape[0], : weights.shape[1]] = weights
    pairs = _byte_entries(padded)[:, :2].reshape(-1, 4)
    taps = np.zeros((len(pairs), 9), np.uint16)
    taps[:, :4] = pairs
    table = np.zeros((len(taps), 3), np.int64)
    table[:out] = _parameters(part, len(weights))
    return pack_entries(taps, table)


def stem_entries(
    stem: IntegerStem, slopes: Slopes | None = None, shape: ArrayShape = ONE
) -> np.ndarray:
    """Entry (walk * 9 + tap) * in_channels + channel; channel c's parameters are in entry c."""
    out, part = len(stem.weights), stem.requantiser
    weights = np.zeros((GROUP * groups(out), stem.weights[0].size), np.int8)
    weights[:out] = stem.weights.reshape(out, -1)
    if slopes is None:
        return _entries(_byte_entries(weights, shape), _parameters(part, out))
    part, table = slopes.table(part, None)
    words = _entries(_byte_entries(weights, shape), _parameters(part, out))
    return add_slopes(words, table, 1, shape.pe)


def layer_entries(weights: np.ndarray, part: Requantiser) -> np.ndarray:
    """Words of a gate's layer (O, I), of entries' three the first two: for four outputs an entry
    for each input, padded ones too; output o's parameters are in entry o."""
    out, channels = weights.shape
    padded = np.zeros((out, GROUP * groups(channels)), np.int8)
    padded[:, :channels] = weights
    words = _entries(_byte_entries(padded), _parameters(part, out)).reshape(-1, 3)
    return words[:, :2].reshape(-1)


def _entries(taps: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Words of weights and of parameters that are in the same entries, however many of either."""
    size = max(len(taps), len(table))
    all_taps, all_parameters = np.zeros((size, 9), np.int64), np.zeros((size, 3), np.int64)
    all_taps[: len(taps)] = taps
    all_parameters[: len(table)] = table
    return pack_entries(all_taps, all_parameters)


def head_entries(
    head: IntegerHead, shape: ArrayShape = ONE, *, slopes: bool = False
) -> list[np.ndarray]:
    """Words for each head step: as many walks as fit half of the weight buffer's entries.

    A walk gives as many classes as there are multiply-accumulators. It takes an entry per channel,
    padded ones too, and one for the bias. slopes : whether one of HEAD_FOLDS entries has a word
    more. Of channels in parallel each entry has the first of its three words alone.
    """
    classes, channels = head.weights.shape
    weights = np.zeros((classes, GROUP * groups(channels) + 1), np.int8)
    weights[:, :channels] = head.weights
    weights[:, -1] = head.bias_mantissa
    step = shape.macs * max(1, shape.step_depth // weights.shape[1])
    taps = [_byte_entries(weights[at : at + step], shape) for at in range(0, classes, step)]
    words = [pack_entries(part, np.zeros((len(part), 3), np.int64)) for part in taps]
    if shape.pe > 1:
        return [part[::3] for part in words]
    if slopes:
        words = [add_slopes(part, np.zeros((0, 4)), HEAD_FOLDS) for part in words]
    return words
