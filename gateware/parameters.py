"""What is fixed when an engine is generated; everything else is in its program."""

from dataclasses import dataclass

LANES = 4  # pixels in parallel: a block of 2 x 2
GROUP = 16  # channels in a feature word: synapses per tap and cycle
TAPS = 9
FACTOR_WIDTH, FACTOR_FRACTION = 8, 6  # bits of a spatial factor, and of them after the point
MACS = 4  # 8-bit multiply-accumulators of the stem and the head
GATE_SHIFT = 8  # bits dropped of the sums of a gate's layers


@dataclass(frozen=True)
class EngineParameters:
    """Shape of an engine.

    residual_width : bits of the residual stream; it is stored in slots of 8 or 16 bits.
    guard, shift : requantisation, y = ((r << guard) + (half * scale >> shift) + bias) >> guard.
    acc_width : signed bits that hold half an accumulator of the largest fan-in.
    thresholds : whether any bit is compared with other than zero (a memory and comparators).
    minus_one : whether padded features are -1 rather than absent.
    odd_maps : whether any feature map has an odd height or width.
    image_height, image_width, image_channels : the 8-bit input.
    pre_shift : bits dropped from a stem accumulator. bias_shift : of the head's bias.
    classes : logits per frame. sum_width : signed bits that hold any of them.
    window_depth, weight_depth : entries of the window and weight buffers.
    passes : whether a layer may take several steps, between which its sums lie in memory as wide
        numbers, and steps may scale what lies there; it is then stored in slots of 16 bits.
    in_place : whether a step may add single pixels that lie as those it writes; with `passes`.
    averages : whether a step may add the mean of each block; with `passes`.
    spatial : whether a step may scale by a factor for each pixel; with `passes`.
    shortcut_shift : bits dropped from sums of pointwise steps; with `passes`. None: there are none.
    levels : bits of a thermometer that are stored of each byte in its place, level l being
        256 * (l + 1) / (levels + 1), rounded; an even number. 0: the 8-bit stem.
    gaps : where the image's bits are convolved in strips, words from the end of a strip's row to
        the next: of features read, bits and residuals written. None: the whole image at once.
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
    window_depth: int = 256
    weight_depth: int = 256
    passes: bool = False
    in_place: bool = False
    averages: bool = False
    spatial: bool = False
    sum_width: int = 32
    shortcut_shift: int | None = None
    levels: int = 0
    gaps: tuple[int, int, int] | None = None
    gates: bool = False

    def __post_init__(self) -> None:
        if not 8 <= self.residual_width <= 16:
            raise ValueError(f"residual_width={self.residual_width} is not in [8, 16]")
        if self.passes and self.residual_width + self.guard > 15:
            raise ValueError(
                f"passes: residual_width + guard = {self.residual_width + self.guard}, not 15"
            )
        for name in ("in_place", "averages", "spatial", "gates"):
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
        if self.gaps and not self.levels:
            raise ValueError("gaps: need levels")
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
    def pointwise(self) -> bool:
        """Whether there are 8-bit 1x1 convolutions of the stream."""
        return self.shortcut_shift is not None

    @property
    def byte_groups(self) -> int:
        """Groups of 16 bits that are stored of a byte of the image."""
        return -(-self.levels // GROUP)

    @property
    def slot_fraction(self) -> int:
        """Guard bits in a slot, below a residual; with passes residuals lie as wide numbers do."""
        return self.guard if self.passes else 0

    @property
    def gate_drop(self) -> int:
        """Bits dropped of the sum of four numbers that a gate's layer takes."""
        return max(2, self.residual_width + self.guard - 8)

    @property
    def word_channels(self) -> int:
        """Channels of a block in one 64-bit word."""
        return 64 // (LANES * self.slot_width)
