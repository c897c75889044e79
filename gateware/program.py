"""The engine's program, at the memory's start: the first step's Load, then five words a step."""

from amaranth import signed, unsigned
from amaranth.lib import data, enum

from bnnhw.gateware.parameters import ADDRESS_WIDTH

DESCRIPTOR_WORDS = 5
PERIOD_WIDTH = 8  # bits: as many channels as 16 folds have
WALK_WIDTH = 14  # bits: as many words as a map that the multipliers walk may have
LOAD_WIDTH = 16  # bits: as many words as the entries of the weight buffers have
ENTRY_WIDTH = 12  # bits: as many entries as the weight buffers that hold all weights have


class Kind(enum.Enum, shape=2):  # type: ignore[call-arg]
    """What a step does: the stem, 8-bit or a binary convolution that waits for the image's bits; a
    binary convolution; pooling and the head; an 8-bit 1x1 convolution of every other pixel of the
    residual stream.
    """

    STEM = 0
    CONV = 1
    HEAD = 2
    POINTWISE = 3


class Geometry(data.Struct):
    """Word 0. A position is a block of 2 x 2 input pixels of a convolution, or, in the stem,
    one pixel; it gives `lanes` outputs if `single` is 0 and one otherwise (stride 2, 8-bit stem).

    last : the frame ends with this step.
    add, keep, emit : read a shortcut, write the residual stream, write bits.
    mask : zero padding.
    keep of a head: a gate's layer, which leaves a wide number in each lane of a word in place of a
    logit, every `shortcut_first` words; with `mask` gates.
    columns, rows : positions less one; in the head `columns` is its fours of classes, less one.
    odd_columns, odd_rows : the last block's second column or row is not there.
    folds, groups : 16-channel groups of the input and the output, less one each.
    shortcut_first, shortcut_end : the output words of a position that a shortcut is added to.
    in_place : what is added are single pixels, which lie as those written; with `single`.
    wide_out : what is written is a wide number (bits are not).
    scaled : the operand from memory is scaled in place of the accumulator.
    centre : only the middle tap of each window counts; with `single` alone.
    mean : what is added is the mean of the position's block, wide; with `single`.
    spatial : features are factors, a word a block, by which the operand is scaled; with `scaled`.
    more_left, more_right : of a strip of the image: the columns next to it are in the image. What
        lies there is read on either side, from `features` on, and counts on these.
    above, below : the map goes on there, past the positions' window.
    """

    kind: Kind
    last: 1
    single: 1
    add: 1
    keep: 1
    emit: 1
    mask: 1
    columns: 8
    rows: 8
    odd_columns: 1
    odd_rows: 1
    folds: 4
    groups: 6
    shortcut_first: 9
    shortcut_end: 9
    above: 1
    below: 1
    in_place: 1
    wide_out: 1
    scaled: 1
    centre: 1
    mean: 1
    spatial: 1
    more_left: 1
    more_right: 1


class EntryRows(data.Struct):
    """Which of the three words of an entry of the weights are there: not the first where it is
    skipped, not the last where it is; the first alone, and none of slopes, of entries of bytes."""

    skip_first: 1
    skip_last: 1
    first_only: 1


class Sources(data.Struct):
    """Word 1. Word addresses of what is read: `features` (bits or factors; residuals in the head
    and pointwise) and `shortcut`, of which a mean has `period` + 1: the output's channels after
    theirs have them from the first on.
    """

    features: unsigned(ADDRESS_WIDTH)
    shortcut: unsigned(ADDRESS_WIDTH)
    period: PERIOD_WIDTH
    _unused: 26


class Sinks(data.Struct):
    """Word 2. Word addresses of what is written: bits and residuals; `head_words` are feature words
    less one, in the head of the map, pointwise of a block. `operand` is read: what is scaled.
    `upper` : factors are the upper bytes of their words."""

    bits: unsigned(ADDRESS_WIDTH)
    residual: unsigned(ADDRESS_WIDTH)
    head_words: WALK_WIDTH
    operand: unsigned(ADDRESS_WIDTH)
    upper: 1
    _unused: 4


class Walk(data.Struct):
    """Word 3. How what is written goes on after a position, and after a row of positions: by so
    many groups of 16 channels further than the next, or by fewer than none, back. Of single pixels
    the one is back to the block's first, after its left columns, the other to the row's, after its
    upper rows. A step may make a tile of a map's channels, then both are over the others; or a
    strip of the map, then the second is over the rest of the row.

    entry : first of the step's in the weight buffers, where these hold the weights of all steps.
    """

    position: signed(8)
    row: signed(ADDRESS_WIDTH)
    entry: ENTRY_WIDTH
    _unused: 29


class Load(data.Struct):
    """Word 4. Of the next step's weights, which are loaded while this step runs if `ahead`, else
    after it: `weights` is the first word's address, `words` their number. `rows` of each entry are
    there; others keep what they hold. With an activation the first of each `folds` + 1 entries has
    a fourth row. In the program's word 0: the first step's. Where the buffers hold the weights of
    all steps, all are loaded once, from `entry` on, before the first frame.
    """

    weights: unsigned(ADDRESS_WIDTH)
    words: LOAD_WIDTH
    rows: EntryRows
    folds: 4
    ahead: 1
    entry: ENTRY_WIDTH
    _unused: 13


class Descriptor(data.Struct):
    """A whole step, as the units of the engine see it."""

    geometry: Geometry
    sources: Sources
    sinks: Sinks
    walk: Walk
    load: Load
