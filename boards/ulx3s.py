"""The ULX3S with an ECP5-85F: 25 MHz crystal, 16 MB SPI flash, FT231X serial port.

LEDs: 0 is ready, 1 is busy, 7 is error. The serial port is that of USB connector 1.
"""

from dataclasses import dataclass

from amaranth.build import Attrs, Pins, Resource
from amaranth.hdl import (
    ClockDomain,
    ClockSignal,
    Const,
    Elaboratable,
    Instance,
    Module,
    Mux,
    Signal,
)
from amaranth.lib import cdc
from amaranth.lib.memory import Memory as BlockRam
from amaranth_boards.ulx3s import ULX3S_85F_Platform

from bnnhw.boards.board import Board
from bnnhw.boards.parts import BoardTop, input_pin, output_pin, text
from bnnhw.gateware.memory import NIBBLES, WORD_WIDTH, MemorySignature

BOARD = Board(
    name="ulx3s",
    family="ecp5",
    device="LFE5U-85F",
    package="CABGA381",
    crystal_hz=25_000_000,
    clock_hz=48_000_000,
    budget=dict(lut=83640, ff=83640, ebr=208, dsp=156),
    memory_words=32768,
    memory_ebr=128,
    flash_offset=0x200000,
    flash_bytes=0x1000000,
    max_baud=3_000_000,
    synth_opts=("-nowidelut",),
    nextpnr_opts=("--85k", "--package", "CABGA381", "--speed", "6"),
    pack_opts=("--compress", "--freq", "38.8"),
    load="openFPGALoader -b ulx3s -f {folder}/top.bit && "
    "openFPGALoader -b ulx3s -f -o {offset:#x} {folder}/flash.bin",
)


@dataclass(frozen=True)
class PLL:
    """Settings of EHXPLLL: its oscillator is crystal * feedback / reference, CLKOP that over
    `feedback`, which is fed back undivided, and the output, CLKOS, that over `divide`."""

    reference: int
    feedback: int
    divide: int
    output_hz: float


def pll(clock_hz, crystal_hz=BOARD.crystal_hz):
    """The settings whose output is nearest to clock_hz without passing it.

    The phase detector wants 10 MHz or more, the oscillator runs at 400 to 800 MHz. Raises
    ValueError outside 16 to 100 MHz: the flash is read at half the clock, and by the command that
    it knows at no more than 50 MHz.
    """
    if not 16e6 <= clock_hz <= 100e6:
        raise ValueError(f"clock={clock_hz / 1e6:g}: must be from 16 to 100 MHz")
    choices = [
        PLL(reference, feedback, divide, crystal_hz * feedback / reference / divide)
        for reference in (1, 2)
        for feedback in range(1, 129)
        if 400e6 <= crystal_hz * feedback / reference <= 800e6
        for divide in range(1, 129)
    ]
    return max((c for c in choices if c.output_hz <= clock_hz), key=lambda c: c.output_hz)


class Memory(Elaboratable):
    """The large memory. Of `words` as many as here each bit of a word is in two block RAMs of its
    own, so that a write mask costs nothing; the address's upper bit chooses between them."""

    def __init__(self, words=BOARD.memory_words):
        self.port = MemorySignature().flip().create()
        self._words = words

    def elaborate(self, platform):
        m = Module()
        port = self.port
        m.submodules.ram = ram = BlockRam(shape=WORD_WIDTH, depth=self._words, init=[])
        read, write = ram.read_port(), ram.write_port(granularity=WORD_WIDTH // NIBBLES)
        m.d.comb += [
            read.addr.eq(port.address),
            port.read_data.eq(read.data),
            write.addr.eq(port.address),
            write.data.eq(port.write_data),
            write.en.eq(Mux(port.write, port.write_mask, 0)),
        ]
        return m


class Clock(Elaboratable):
    """Drives the clock of domain sync, which has no reset, from the crystal.

    The clock starts when the PLL has locked and the configuration is done, glitch-free: flip-flops
    then still hold their values from the configuration, so no reset is needed.
    """

    def __init__(self, settings):
        self._settings = settings

    def elaborate(self, platform):
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
            i_CLKI=input_pin(m, "clock", platform.request("clk25", dir="-")),
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


class Top(BoardTop):
    """The whole design on this board. clock_hz : wanted; settings has what the PLL makes."""

    def __init__(self, engine, *, clock_hz, **sizes):
        super().__init__(BOARD, pll(clock_hz), engine, **sizes)

    def elaborate(self, platform):
        m = self._assemble(Clock(self.settings), Memory())
        device = self._device

        uart = platform.request("uart", dir={"rx": "-", "tx": "-", "rts": "-", "dtr": "-"})
        flash = platform.request("spi_flash", dir="-")
        m.d.comb += [
            device.rx.eq(input_pin(m, "rx", uart.rx)),
            device.flash_cipo.eq(input_pin(m, "cipo", flash.cipo)),
        ]
        # The first few edges after the configuration are lost: they are of the command that wakes
        # the flash, which has no need of it here, since the configuration leaves it awake.
        m.submodules.mclk = Instance(
            "USRMCLK", i_USRMCLKI=device.flash_clock, i_USRMCLKTS=~device.flash_select
        )
        output_pin(m, "tx", uart.tx, device.tx)
        output_pin(m, "flash_select", flash.cs, device.flash_select)
        output_pin(m, "flash_copi", flash.copi, device.flash_copi)
        output_pin(m, "flash_wp", flash.wp, Const(0, 1))
        output_pin(m, "flash_hold", flash.hold, Const(0, 1))
        output_pin(m, "led_ready", platform.request("led", 0, dir="-"), device.ready)
        output_pin(m, "led_busy", platform.request("led", 1, dir="-"), device.busy)
        output_pin(m, "led_error", platform.request("led", 7, dir="-"), device.error)
        output_pin(m, "boot", platform.request("esp32_boot", dir="-"), Const(1, 1))
        return m


def prepare(top):
    """Elaborate a Top: {file name: text} of its RTLIL (top.il) and its pins (top.lpf).

    No source file is named in it: the design is the same wherever bnnhw lies.
    """
    platform = ULX3S_85F_Platform()
    # Low, which an idle pin is, it would have the ESP32 of the board boot from its serial port.
    platform.add_resources(
        [Resource("esp32_boot", 0, Pins("L2", dir="o"), Attrs(IO_TYPE="LVCMOS33"))]
    )
    files = platform.prepare(top, "top", emit_src=False).files
    return {name: text(files[name]) for name in ("top.il", "top.lpf")}
