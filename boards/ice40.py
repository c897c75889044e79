"""What boards with an iCE40UP have in common: device, PLL, large memory and clock."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from amaranth.build import Platform
from amaranth.hdl import ClockDomain, ClockSignal, Const, Elaboratable, Instance, Module, Signal
from amaranth.lib import cdc

from bnnhw.boards.bench import Models
from bnnhw.boards.numbers import Coefficient, Part
from bnnhw.boards.support import BoardSupport, input_pin
from bnnhw.gateware.device import Device
from bnnhw.gateware.memory import NIBBLES, MemorySignature
from bnnhw.gateware.parameters import WORD_WIDTH

SPRAM_WORDS, SPRAM_WIDTH = 16384, 16
EBR_BITS, EBR_WIDTH = 4096, 16  # of a block RAM


_CURRENTS = "github.com/tinyvision-ai-inc/ice40_power, iCE40UP5K, core at 1.219 V"
_CALIBRATED = f"scripts/calibrate_energy.py from {_CURRENTS}"
_HOROWITZ = "Horowitz, ISSCC 2014, 64 bits of a cache at 45 nm and 0.9 V"
_SCALED = "x (1.219 / 0.9)^2 x 40 / 45 for voltage and process"

UP5K = Part(
    device="iCE40UP5K",
    option="--up5k",
    budget=dict(lc=5280, ff=5280, ebr=30, spram=4, dsp=8),
    energy=dict(
        load=Coefficient(
            0.122e-12, f"{_CALIBRATED}: a product of 8 bits in LUTs takes 351 uA more at 12 MHz"
        ),
        multiplier_input=Coefficient(
            2.35e-12, f"{_CALIBRATED}: the same in a multiplier takes 237 uA more"
        ),
        flip_flop=Coefficient(
            0.0144e-12, f"{_CURRENTS}: 196 flip-flops more take 27.8 uA more at 12 MHz"
        ),
        clock=Coefficient(
            41.9e-12, f"{_CALIBRATED}: 1,154 uA more at 48 than at 16 MHz of the PLL, less the rest"
        ),
        ebr=Coefficient(
            1.02e-12, f"{_HOROWITZ}: 10 pJ of 8 KB, x sqrt(0.5 / 8) for 512 bytes, / 4 for 16 "
            f"bits, {_SCALED}",
        ),
        spram=Coefficient(8.15e-12, f"{_HOROWITZ}: 20 pJ of 32 KB, / 4 for 16 bits, {_SCALED}"),
        static=Coefficient(104e-6, f"{_CURRENTS}: 85.6 uA with a blank design"),
        pll=Coefficient(169e-6, f"{_CURRENTS}: 138.7 uA of the PLL's supply at 16 and 32 MHz"),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class PLL:
    """Settings of SB_PLL40 in simple feedback: output = crystal * (divf + 1) / 2**divq."""

    divf: int
    divq: int
    output_hz: int


def pll(clock_hz: float, crystal_hz: int) -> PLL:
    """Returns the settings whose output is nearest to clock_hz without passing it.

    A 12 MHz crystal is only in the phase detector's range (10 to 133 MHz) undivided; the
    oscillator runs at 533 to 1066 MHz. Raises ValueError outside 16 to 66 MHz, where the array
    cannot run or the oscillator not reach.
    """
    if not 16e6 <= clock_hz <= 66e6:
        raise ValueError(f"clock={clock_hz / 1e6:g}: must be from 16 to 66 MHz")
    choices = [
        PLL(divf, divq, crystal_hz * (divf + 1) >> divq)
        for divq in range(1, 7)
        for divf in range(128)
        if 533e6 <= crystal_hz * (divf + 1) <= 1066e6
    ]
    return max((c for c in choices if c.output_hz <= clock_hz), key=lambda c: c.output_hz)


class Memory(Elaboratable):
    """The large memory: four SPRAMs side by side, the first holding bits 15 to 0.

    Nothing is left in the design of the address's upper bit.

    Attributes
    ----------
    port : flipped MemorySignature    whose docstring has its members and their timing
    """

    def __init__(self) -> None:
        self.port: Any = MemorySignature().flip().create()

    def elaborate(self, platform: Platform) -> Module:
        m = Module()
        for index in range(WORD_WIDTH // SPRAM_WIDTH):
            bits = slice(SPRAM_WIDTH * index, SPRAM_WIDTH * (index + 1))
            nibbles = slice(bits.start * NIBBLES // WORD_WIDTH, bits.stop * NIBBLES // WORD_WIDTH)
            m.submodules[f"spram{index}"] = Instance(
                "SB_SPRAM256KA",
                i_CLOCK=ClockSignal(),
                i_ADDRESS=self.port.address[: (SPRAM_WORDS - 1).bit_length()],
                i_DATAIN=self.port.write_data[bits],
                i_MASKWREN=self.port.write_mask[nibbles],
                i_WREN=self.port.write,
                i_CHIPSELECT=Const(1, 1),
                i_STANDBY=Const(0, 1),
                i_SLEEP=Const(0, 1),
                i_POWEROFF=Const(1, 1),  # active low
                o_DATAOUT=self.port.read_data[bits],
            )
        return m


class Clock(Elaboratable):
    """Drives the clock of domain sync from the crystal; bnnhw.boards.support says when it starts.

    at_pll : whether the crystal is at the PLL's own pin.

    Its frequency is nextpnr's --freq: constraints do not pass the gate, and names change.
    Block RAM, which reads as zero for 3 us after configuration, is not read before the boot image
    is in, 10 ms later. A reset would cost logic in each enable.
    """

    def __init__(self, settings: PLL, *, at_pll: bool = True) -> None:
        self._settings = settings
        self._at_pll = at_pll

    def elaborate(self, platform: Platform) -> Module:
        m = Module()
        raw = Signal()
        lock = Signal()
        run = Signal()
        m.domains.raw = raw_domain = ClockDomain(reset_less=True, clk_edge="neg", local=True)
        crystal = platform.request(platform.default_clk, dir="-")
        if self._at_pll:
            primitive, source = "SB_PLL40_PAD", dict(i_PACKAGEPIN=crystal.io)
        else:
            primitive, source = "SB_PLL40_CORE", dict(i_REFERENCECLK=input_pin(m, "clk", crystal))
        m.submodules.pll = Instance(
            primitive,
            **source,
            p_FEEDBACK_PATH="SIMPLE",
            p_DIVR=Const(0, 4),
            p_DIVF=Const(self._settings.divf, 7),
            p_DIVQ=Const(self._settings.divq, 3),
            p_FILTER_RANGE=Const(1, 3),
            i_RESETB=Const(1, 1),
            i_BYPASS=Const(0, 1),
            o_PLLOUTCORE=raw,
            o_LOCK=lock,
        )
        m.submodules.lock_sync = cdc.FFSynchronizer(lock, run, o_domain="raw", stages=3)
        m.submodules.gate = Instance(
            "SB_GB",
            i_USER_SIGNAL_TO_GLOBAL_BUFFER=raw & run,
            o_GLOBAL_BUFFER_OUTPUT=ClockSignal(),
        )
        m.d.comb += raw_domain.clk.eq(raw)
        return m


@dataclass(frozen=True, kw_only=True)
class ICE40Board(BoardSupport):
    """A board with an iCE40UP. The flash's clock is an ordinary pin.

    clock_at_pll : whether the crystal is at the PLL's own pin, as it should be.
    """

    family: ClassVar[str] = "ice40"
    constraints: ClassVar[str] = "pcf"
    models: ClassVar[Models] = Models(
        "ice40.v",
        library="ice40/cells_sim.v",
        replaced=("SB_PLL40_PAD", "SB_PLL40_CORE", "SB_IO"),
        define="NO_ICE40_DEFAULT_ASSIGNMENTS",
    )

    clock_at_pll: bool = True

    @classmethod
    def on(cls, part: Part, *, package: str, **numbers: Any) -> Self:
        """Returns a board with a part; numbers : all that the part and the family leave open."""
        return cls(
            device=part.device,
            package=package,
            budget=part.budget,
            energy=part.energy,
            memory_words=SPRAM_WORDS,
            memory_ebr=0,
            ebr_bits=EBR_BITS,
            ebr_width=EBR_WIDTH,
            synth_opts=("-device", "u", "-dsp"),
            nextpnr_opts=(part.option, "--package", package.lower(), "--router", "router2"),
            pack_opts=("-s",),  # else the flash is asleep after the configuration
            **numbers,
        )

    def pll(self, clock_hz: float) -> PLL:
        return pll(clock_hz, self.crystal_hz)

    def clock(self, settings: Any) -> Clock:
        return Clock(settings, at_pll=self.clock_at_pll)

    def memory(self, words: int | None = None) -> Memory:
        return Memory()

    def clock_flash(self, m: Module, device: Device) -> None:
        pass
