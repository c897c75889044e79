"""How tensors lie in the engine's memories, 64-bit words of four lanes or of weights.

A map is stored block by block, row-major, a block being 2 x 2 pixels; lane = 2 * row + column
in the block. Channels are padded to groups of 16.
Bits:       a word per block and group: lane l in bits 16l.., its channel c in bit 16l + c % 16.
Residuals:  8-bit slots: a word per block and two channels, [channel][lane];
            16-bit slots: a word per block and channel, [lane]. In an engine with passes a
            residual is a wide number like the sums, guard bits below. Where these have a memory of
            their own, its words are as many of these, the first lowest.
Entries:    of the weight buffers, those of channels in parallel one after the other.
Factors:    a word per block, [lane] of 16 bits: one convolution's in the lower byte of each,
            another's in the upper.
Numbers:    of a gate's layers, a word each, the number in every lane.
"""

from __future__ import annotations

import numpy as np

GROUP = 16
LANES = 4


def groups(channels: int) -> int:
    """Groups of 16 channels that `channels` take."""
    return -(-channels // GROUP)


def blocks(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of 2 x 2 blocks of a map."""
    return -(-height // 2), -(-width // 2)


def slot_width(residual_width: int) -> int:
    """Bits a residual takes in memory."""
    return 8 if residual_width <= 8 else 16


def bit_words(height: int, width: int, channels: int) -> int:
    """Words that a map of bits takes."""
    rows, columns = blocks(height, width)
    return rows * columns * groups(channels)


def residual_words(height: int, width: int, channels: int, per_word: int) -> int:
    """Words that a map of residuals takes, with so many channels in each."""
    return bit_words(height, width, channels) * GROUP // per_word


def pack_factors(factors: np.ndarray) -> np.ndarray:
    """Factors (H, W), none negative, to uint64 words; lanes outside the map are 0."""
    rows, columns = blocks(*factors.shape)
    padded = np.zeros((2 * rows, 2 * columns), "<u2")
    padded[: factors.shape[0], : factors.shape[1]] = factors
    lanes = padded.reshape(rows, 2, columns, 2).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(lanes.reshape(-1, LANES)).view("<u8")[:, 0].astype(np.uint64)


def _unblock(values: np.ndarray, height: int, width: int, channels: int) -> np.ndarray:
    """(block row, block column, lane, channel) to (H, W, C)."""
    rows, columns, _, padded = values.shape
    grid = values.reshape(rows, columns, 2, 2, padded).transpose(0, 2, 1, 3, 4)
    return grid.reshape(2 * rows, 2 * columns, padded)[:height, :width, :channels]


def unpack_bits(words: np.ndarray, height: int, width: int, channels: int) -> np.ndarray:
    """uint64 words to bits, uint8 (H, W, C)."""
    rows, columns = blocks(height, width)
    bits = np.unpackbits(
        np.ascontiguousarray(words).astype("<u8").view(np.uint8), bitorder="little"
    )
    lanes = bits.reshape(rows, columns, groups(channels), LANES, GROUP).transpose(0, 1, 3, 2, 4)
    return _unblock(lanes.reshape(rows, columns, LANES, -1), height, width, channels)


def unpack_residuals(
    words: np.ndarray, height: int, width: int, channels: int, residual_width: int
) -> np.ndarray:
    """uint64 words to residuals, int32 (H, W, C)."""
    rows, columns = blocks(height, width)
    slot = np.dtype(f"<i{slot_width(residual_width) // 8}")
    values = np.ascontiguousarray(words).astype("<u8").view(slot).astype(np.int32)
    lanes = values.reshape(rows, columns, -1, LANES).transpose(0, 1, 3, 2)
    return _unblock(lanes, height, width, channels)


def unpack_numbers(words: np.ndarray) -> np.ndarray:
    """uint64 words to numbers, none negative, int32 (1, 1, C)."""
    return (words & np.uint64(0x7FFF)).astype(np.int32)[None, None]


def pack_entries(taps: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """Entries of the weight buffer: uint16 taps (N, 9) and parameters (N, 3) to words (3N,).

    Word ky of an entry holds taps (ky, 0..2) in bits 0, 16, 32 and parameter ky in bits 48..63;
    the parameters are scale, bias and threshold.
    """
    entries = np.concatenate([taps.reshape(-1, 3, 3), parameters.reshape(-1, 3, 1)], axis=2)
    return np.ascontiguousarray(entries.astype("<u2")).view("<u8").reshape(-1).astype(np.uint64)


def in_parallel(entries: np.ndarray, folds: int, pe: int) -> np.ndarray:
    """Entries (channels * folds, ...) in the order of an engine of `pe` channels in parallel: for
    as many channels and for each fold one of each."""
    split = entries.reshape(-1, pe, folds, *entries.shape[1:])
    return np.moveaxis(split, 1, 2).reshape(entries.shape)


def add_slopes(words: np.ndarray, slopes: np.ndarray, folds: int, pe: int = 1) -> np.ndarray:
    """Entries' words (3N,) with a fourth word in the first of each `folds` entries of a channel.

    slopes : uint16 (M, 4), a channel's slopes above and below zero, its shift_out and 0; entries
    of no channel, after those of the first M, have 0. pe : channels in parallel.
    """
    entries = np.arange(len(words) // 3)
    first = entries[entries // pe % folds == 0]
    rows = np.zeros((len(first), 4), "<u2")
    rows[: len(slopes)] = slopes
    fourth = np.ascontiguousarray(rows).view("<u8")[:, 0].astype(np.uint64)
    return np.insert(words, 3 * first + 3, fourth)
