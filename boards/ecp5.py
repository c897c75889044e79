"""What boards with an ECP5 have in common: devices, PLL, large memory, clock, the flash's clock."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from amaranth.build import Platform
from amaranth.hdl import (
    ClockDomain,
    ClockSignal,
    Const,
    Elaboratable,
    Instance,
    Module,
    Signal,
)
from amaranth.lib import cdc

from bnnhw.boards.bench import Models
from bnnhw.boards.numbers import Part
from bnnhw.boards.support import BoardSupport, input_pin
from bnnhw.gateware.device import Device
from bnnhw.gateware.parameters import WORD_WIDTH
from bnnhw.gateware.ram import Ram

EBR_BITS, EBR_WIDTH = 16384, 32  # of a block RAM; its parity bits are not used
LFE5U_25F = Part("LFE5U-25F", "--25k", dict(lut=24288, ff=24288, ebr=56, dsp=28))
# A 12F is a 25F by another name: all of it works, and the tools use it.
LFE5U_12F = Part("LFE5U-12F", "--12k", LFE5U_25F.budget)
LFE5U_45F = Part("LFE5U-45F", "--45k", dict(lut=43848, ff=43848, ebr=108, dsp=72))
LFE5U_85F = Part("LFE5U-85F", "--85k", dict(lut=83640, ff=83640, ebr=208, dsp=156))
LFE5UM5G_45F = Part("LFE5UM5G-45F", "--um5g-45k", LFE5U_45F.budget)
LFE5UM5G_85F = Part("LFE5UM5G-85F", "--um5g-85k", LFE5U_85F.budget)


@dataclass(frozen=True)
class PLL:
    """Settings of EHXPLLL.

    Its oscillator is crystal * feedback / reference. CLKOP, that over `feedback`, is fed back
    undivided. The output, CLKOS, is the oscillator over `divide`.
    """

    reference: int
    feedback: int
    divide: int
    output_hz: float


def pll(clock_hz: float, crystal_hz: int) -> PLL:
    """Returns the settings whose output is nearest to clock_hz without passing it.

    The phase detector wants 10 MHz or more, the oscillator runs at 400 to 800 MHz. Raises
    ValueError outside 16 to 100 MHz: the flash is read at half the clock, and by the command that
    it knows at no more than 50 MHz.
    """
    if not 16e6 <= clock_hz <= 100e6:
        raise ValueError(f"clock={clock_hz / 1e6:g}: must be from 16 to 100 MHz")
    choices = [
        PLL(reference, feedback, divide, crystal_hz * feedback / reference / divide)
        for reference in range(1, int(crystal_hz // 10e6) + 1)
        for feedback in range(1, 129)
        if 400e6 <= crystal_hz * feedback / reference <= 800e6
        for divide in range(1, 129)
    ]
    return max((c for c in choices if c.output_hz <= clock_hz), key=lambda c: c.output_hz)


class Clock(Elaboratable):
    """Drives the clock of domain sync from the crystal; bnnhw.boards.support says when it starts.

    The gate stays closed until the configuration is done, too.
    """

    def __init__(self, settings: PLL) -> None:
        self._settings = settings

    def elaborate(self, platform: Platform) -> Module:
        m = Module()
        raw = Signal()
        feedback = Signal()
        lock = Signal()
        run = Signal()
        s = self._settings
        m.domains.raw = raw_domain = ClockDomain(reset_less=True, local=True)
        m.submodules.pll = Instance(
            "EHXPLLL",
            a_ICP_CURRENT="12",
            a_LPF_RESISTOR="8",
            a_MFG_ENABLE_FILTEROPAMP="1",
            a_MFG_GMCREF_SEL="2",
            p_FEEDBK_PATH="CLKOP",
            p_CLKI_DIV=s.reference,
            p_CLKFB_DIV=1,
            p_CLKOP_ENABLE="ENABLED",
            p_CLKOP_DIV=s.feedback,
            p_CLKOP_CPHASE=s.feedback - 1,
            p_CLKOP_FPHASE=0,
            p_CLKOS_ENABLE="ENABLED",
            p_CLKOS_DIV=s.divide,
            p_CLKOS_CPHASE=s.divide - 1,
            p_CLKOS_FPHASE=0,
            i_CLKI=input_pin(m, "clock", platform.request(platform.default_clk, dir="-")),
            i_CLKFB=feedback,
            i_RST=Const(0, 1),
            i_STDBY=Const(0, 1),
            i_PHASESEL0=Const(0, 1),
            i_PHASESEL1=Const(0, 1),
            i_PHASEDIR=Const(1, 1),
            i_PHASESTEP=Const(1, 1),
            i_PHASELOADREG=Const(1, 1),
            i_PLLWAKESYNC=Const(0, 1),
            i_ENCLKOP=Const(0, 1),
            i_ENCLKOS=Const(0, 1),
            o_CLKOP=feedback,
            o_CLKOS=raw,
            o_LOCK=lock,
        )
        m.submodules.lock_sync = cdc.FFSynchronizer(lock, run, o_domain="raw", stages=3)
        m.submodules.gate = Instance("DCCA", i_CLKI=raw, i_CE=run, o_CLKO=ClockSignal())
        m.d.comb += raw_domain.clk.eq(raw)
        return m


@dataclass(frozen=True, kw_only=True)
class ECP5Board(BoardSupport):
    """A board with an ECP5. The flash is the one that the device is configured from."""

    family: ClassVar[str] = "ecp5"
    constraints: ClassVar[str] = "lpf"
    models: ClassVar[Models] = Models("ecp5.v")
    flash_clock: ClassVar[str | None] = "mclk.mclk"
    flash_warm_up: ClassVar[bool] = True

    @classmethod
    def on(cls, part: Part, *, package: str, speed: int, memory_words: int, **numbers: Any) -> Self:
        """Returns a board with a part; numbers : all that the part and the family leave open.

        memory_words : of the large memory, a power of two.
        """
        return cls(
            device=part.device,
            package=package,
            budget=part.budget,
            energy=part.energy,
            memory_words=memory_words,
            memory_ebr=memory_words * WORD_WIDTH // EBR_BITS,
            ebr_bits=EBR_BITS,
            ebr_width=EBR_WIDTH,
            most_pe=8,
            synth_opts=("-nowidelut",),
            nextpnr_opts=(
                part.option,
                "--package",
                package,
                "--speed",
                str(speed),
                "--router",
                "router2",
            ),  # fmt: skip
            pack_opts=("--compress", "--freq", "38.8"),
            **numbers,
        )

    def pll(self, clock_hz: float) -> PLL:
        return pll(clock_hz, self.crystal_hz)

    def clock(self, settings: Any) -> Clock:
        return Clock(settings)

    def memory(self, words: int | None = None) -> Ram:
        """Returns the large memory.

        Where the words are at least as many as a block RAM has bits for each that is written apart,
        a write mask costs nothing. Of more words than a block RAM has bits, upper address bits
        choose.
        """
        return Ram(self.memory_words if words is None else words)

    def stream_memory(self, words: int, width: int, slot_width: int) -> Ram:
        return Ram(words, width, slot_width)

    def clock_flash(self, m: Module, device: Device) -> None:
        """The pin belongs to the configuration: USRMCLK drives it.

        The first few edges after the configuration are lost.
        """
        m.submodules.mclk = Instance(
            "USRMCLK", i_USRMCLKI=device.flash_clock, i_USRMCLKTS=~device.flash_select
        )
