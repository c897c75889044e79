"""What is fixed when an engine is generated; everything else is in its program."""

from collections.abc import Iterable
from dataclasses import dataclass

from amaranth.utils import exact_log2

LANES = 4  # pixels in parallel: a block of 2 x 2
GROUP = 16  # channels in a feature word: synapses per tap and cycle
TAPS = 9
FACTOR_WIDTH, FACTOR_FRACTION = 8, 6  # bits of a spatial factor, and of them after the point
WORD_WIDTH = 64  # bits of a word of the memory
ADDRESS_WIDTH = 15  # bits; a board with fewer words leaves the upper ones unconnected
WINDOW_ROWS = 4  # rows of blocks in the window buffer: three in use, one being filled
WORD_NIBBLES, SHORT_NIBBLES = WORD_WIDTH // 4, 12  # of the words of a stream, whole and short
GATE_SHIFT = 8  # bits dropped of the sums of a gate's layers


def stream_nibbles(short: Iterable[bool]) -> int:
    """Returns the nibbles of a stream's words: the clocks in which a quad flash brings them.

    short : whether a word is without its upper 16 bits.
    """
    return sum(SHORT_NIBBLES if s else WORD_NIBBLES for s in short)


@dataclass(frozen=True, kw_only=True)
class ArrayShape:
    """How large an engine's array and its buffers are.

    pe : output channels in parallel, a power of two; each is `LANES` processing elements with their
        lanes, weights and parameters. With more than one the residual stream lies in a memory of
        its own, whose words are pe times as wide.
    window_depth, weight_depth : entries of the window and weight buffers.
    tokens : multiply-accumulators of a channel, for the 8-bit layers: in so many tokens, pe
        channels each, their sums are handed on.
    resident : whether the weight buffers hold the weights of all steps, which are loaded once.
    """

    pe: int = 1
    window_depth: int = 256
    weight_depth: int = 256
    tokens: int = LANES
    resident: bool = False

    @property
    def step_depth(self) -> int:
        """Entries of the weight buffers for a step, whose next one may be loaded meanwhile."""
        return self.weight_depth if self.resident else self.weight_depth // 2

    @property
    def window_groups(self) -> int:
        """Groups of 16 channels that a row of blocks in the window buffer has room for."""
        return self.window_depth // WINDOW_ROWS

    @property
    def word_width(self) -> int:
        """Bits of a word of the residual stream."""
        return WORD_WIDTH * self.pe

    @property
    def own_stream(self) -> bool:
        """Whether the residual stream lies in a memory of its own."""
        return self.pe > 1

    @property
    def macs(self) -> int:
        """8-bit multiply-accumulators of the stem and the head."""
        return self.pe * self.tokens

    @property
    def array_latency(self) -> int:
        """Cycles from the window and weights to the array's sums: one more to hand them on."""
        return 5 + (self.pe > 1)

    def word_channels(self, slot_width: int) -> int:
        """Channels of a block in one word of the residual stream, in slots of 8 or 16 bits."""
        return self.word_width // (LANES * slot_width)

    def step_channels(self, slot_width: int) -> int:
        """Channels that `shortcut_first` and `shortcut_end` of a step count."""
        return self.pe if self.own_stream else self.word_channels(slot_width)


@dataclass(frozen=True, kw_only=True)
class EngineParameters(ArrayShape):
    """Shape of an engine.

    residual_width : bits of the residual stream; it is stored in slots of 8 or 16 bits.
    guard, shift : requantisation, y = ((r << guard) + (half * scale >> shift) + bias) >> guard.
    acc_width : signed bits that hold half an accumulator of the largest fan-in.
    thresholds : whether any bit is compared with other than zero (a memory and comparators).
    minus_one : whether padded features are -1 rather than absent.
    odd_maps : whether any feature map has an odd height or width.
    image_height, image_width, image_channels : the 8-bit input.
    pre_shift : bits dropped from a stem accumulator. bias_shift : of the head's bias.
    most_groups : groups of 16 channels that a map has at most. most_words : words of the residual
        stream in the largest map that the multipliers walk.
    classes : logits per frame. sum_width : signed bits that hold any of them.
    passes : whether a layer may take several steps, between which its sums lie in memory as wide
        numbers, and steps may scale what lies there; it is then stored in slots of 16 bits.
    activation : whether lanes multiply a second time, by a slope of each channel, before they
        saturate; without `passes`. positive : whether slopes from zero up differ from 1.0.
        shift_out : whether what is added then is a channel's own, not the rounding half alone.
    tiles : whether a step may make some of its map's channels; without `passes`.
    streams : whether program and weights come from a stream of words in place of the memory, which
        then has maps alone; at pe = 1, without `gates` and `spatial`.
    in_place : whether a step may add single pixels that lie as those it writes; with `passes`.
    averages : whether a step may add the mean of each block.
    spatial : whether a step may scale by a factor for each pixel; with `passes`.
    shortcut_shift : bits dropped from sums of pointwise steps; with `passes`. None: there are none.
    levels : bits of a thermometer that are stored of each byte in its place, level l being
        256 * (l + 1) / (levels + 1), rounded; an even number. 0: the 8-bit stem.
    limits : the levels, where they are others. pad : the byte outside the image, for each colour.
        Empty: 128, and with `levels` what lies outside any map.
    strip_gap : where the image's bits are convolved in strips, the words of features from the end
        of a strip's row to the next. None: the whole image at once.
    gates : whether steps may make scales for a later step, from the map that it scales: layers of
        int8 weights, on the multiply-accumulators; with `passes`.
    """

    residual_width: int
    guard: int
    shift: int
    acc_width: int
    thresholds: bool
    minus_one: bool
    odd_maps: bool
    image_height: int
    image_width: int
    image_channels: int
    pre_shift: int
    bias_shift: int
    classes: int
    most_groups: int = 64
    most_words: int = 1 << 14
    passes: bool = False
    in_place: bool = False
    averages: bool = False
    spatial: bool = False
    sum_width: int = 32
    shortcut_shift: int | None = None
    levels: int = 0
    limits: tuple[int, ...] = ()
    pad: tuple[int, ...] = ()
    strip_gap: int | None = None
    gates: bool = False
    activation: bool = False
    positive: bool = False
    shift_out: bool = False
    tiles: bool = False
    streams: bool = False

    def __post_init__(self) -> None:
        if not 8 <= self.residual_width <= 16:
            raise ValueError(f"residual_width={self.residual_width} is not in [8, 16]")
        if self.passes and self.residual_width + self.guard > 15:
            raise ValueError(
                f"passes: residual_width + guard = {self.residual_width + self.guard}, not 15"
            )
        if self.activation and self.passes:
            raise ValueError("activation: not with passes")
        if self.activation and (self.residual_width + self.guard > 15 or not 8 <= self.shift <= 13):
            raise ValueError(
                f"activation: residual_width + guard = {self.residual_width + self.guard}, not 15, "
                f"or shift={self.shift} not in [8, 13]"
            )
        if self.pe not in (1, 2, 4, 8):
            raise ValueError(f"pe={self.pe} is not 1, 2, 4 or 8")
        if self.tokens not in (1, 2, LANES) or self.macs > GROUP:
            raise ValueError(f"tokens={self.tokens}, pe={self.pe}: more than {GROUP} sums at once")
        if self.tokens < LANES and (self.gates or self.pointwise):
            raise ValueError(f"tokens={self.tokens}: gates and shortcut_shift need {LANES}")
        if self.pe > 1 and (self.gates or self.pointwise or self.spatial):
            raise ValueError(f"pe={self.pe}: gates, shortcut_shift and spatial need 1")
        if self.streams and (self.pe > 1 or self.gates or self.spatial):
            raise ValueError(f"streams: pe={self.pe} is not 1, or there are gates or factors")
        if self.tiles and self.passes:
            raise ValueError("tiles: not with passes")
        for name in ("positive", "shift_out"):
            if getattr(self, name) and not self.activation:
                raise ValueError(f"{name}: needs activation")
        for name in ("in_place", "spatial", "gates"):
            if getattr(self, name) and not self.passes:
                raise ValueError(f"{name}: needs passes")
        if self.spatial and not FACTOR_FRACTION <= self.shift <= 13:
            raise ValueError(f"spatial: shift={self.shift} is not in [{FACTOR_FRACTION}, 13]")
        if not 1 <= self.image_channels <= 8:
            raise ValueError(f"image_channels={self.image_channels} is not in [1, 8]")
        if self.pointwise and not self.passes:
            raise ValueError("shortcut_shift: needs passes")
        if self.levels % 2 or not 0 <= self.levels < 256:
            raise ValueError(f"levels={self.levels} is not an even number below 256")
        if len(self.limits) not in (0, self.levels):
            raise ValueError(f"limits={self.limits} are not {self.levels}")
        if len(self.pad) not in (0, self.image_channels):
            raise ValueError(f"pad={self.pad}: not a byte for each of {self.image_channels}")
        if self.strips and not self.levels:
            raise ValueError("strip_gap: needs levels")
        for name in ("window_depth", "weight_depth"):
            depth = getattr(self, name)
            if depth < 16 or depth & (depth - 1):
                raise ValueError(f"{name}={depth} is not a power of two from 16")

    @property
    def slot_width(self) -> int:
        """Bits a residual takes in memory."""
        return 8 if self.residual_width <= 8 and not self.passes else 16

    @property
    def stream_width(self) -> int:
        """Signed bits of what is read from a slot."""
        return 16 if self.passes else self.residual_width

    @property
    def added_width(self) -> int:
        """Signed bits of what lanes add: residuals, or wide numbers where there are means."""
        return self.residual_width + self.guard if self._means_alone else self.stream_width

    @property
    def _means_alone(self) -> bool:
        return self.averages and not self.passes

    @property
    def pointwise(self) -> bool:
        """Whether there are 8-bit 1x1 convolutions of the stream."""
        return self.shortcut_shift is not None

    @property
    def byte_groups(self) -> int:
        """Groups of 16 bits that are stored of a byte of the image."""
        return -(-self.levels // GROUP)

    @property
    def pad_groups(self) -> list[int]:
        """The bits outside the image of each group of 16; none where they are as of any map."""
        if not self.levels:
            return []
        reached = [
            sum(bit << at for at, bit in enumerate(self._reached(byte))) for byte in self.pad
        ]
        ones = (1 << GROUP) - 1
        return [bits >> GROUP * at & ones for bits in reached for at in range(self.byte_groups)]

    def _reached(self, byte: int) -> list[bool]:
        count = self.levels + 1
        limits = self.limits or [(512 * at + count) // (2 * count) for at in range(1, count)]
        return [byte >= limit for limit in limits]

    @property
    def slot_fraction(self) -> int:
        """Guard bits in a slot, below a residual; with passes residuals lie as wide numbers do."""
        return self.guard if self.passes else 0

    @property
    def gate_drop(self) -> int:
        """Bits dropped of the sum of four numbers that a gate's layer takes."""
        return max(2, self.residual_width + self.guard - 8)

    @property
    def map_bits(self) -> int:
        """Bits of a row or a column of a map, counted with a border."""
        return (max(self.image_height, self.image_width) + 1).bit_length()

    @property
    def group_bits(self) -> int:
        """Bits of a group's number."""
        return max(1, (self.most_groups - 1).bit_length())

    @property
    def class_bits(self) -> int:
        """Bits of a class, or of the outputs of a gate's layer in fours."""
        most = max(self.classes, GROUP // LANES * self.most_groups if self.gates else 0)
        return max(exact_log2(self.macs), (most - 1).bit_length())

    @property
    def strips(self) -> bool:
        """Whether the image's bits are convolved in strips."""
        return self.strip_gap is not None

    @property
    def group_words(self) -> int:
        """Words of the residual stream that a block's 16 channels are."""
        return GROUP // self.per_word

    @property
    def per_word(self) -> int:
        """Channels of a block in one word of the residual stream."""
        return self.word_channels(self.slot_width)

    @property
    def halves(self) -> int:
        """Tokens whose channels are in one word of the residual stream."""
        return WORD_WIDTH // (LANES * self.slot_width)
