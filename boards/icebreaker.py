"""The iCEBreaker: iCE40UP5K-SG48, 12 MHz crystal, 16 MB SPI flash, FT2232H serial port.

LEDs: green (37) is ready, red (11) is error, and the green LED on pin 8 of the break-off part is
busy. The serial port is that of the USB cable.
"""

from dataclasses import dataclass

from amaranth.hdl import ClockDomain, ClockSignal, Const, Elaboratable, Instance, Module, Signal
from amaranth.lib import cdc
from amaranth_boards.icebreaker import ICEBreakerPlatform

from bnnhw.boards.board import Board
from bnnhw.boards.parts import BoardTop, input_pin, output_pin, text
from bnnhw.gateware.memory import MemorySignature

BOARD = Board(
    name="icebreaker",
    family="ice40",
    device="iCE40UP5K",
    package="SG48",
    crystal_hz=12_000_000,
    clock_hz=24_000_000,
    budget=dict(lc=5280, ff=5280, ebr=30, spram=4, dsp=8),
    memory_words=16384,
    memory_ebr=0,
    flash_offset=0x100000,
    flash_bytes=0x1000000,
    max_baud=3_000_000,
    synth_opts=("-device", "u", "-dsp"),
    nextpnr_opts=("--up5k", "--package", "sg48", "--router", "router2"),
    pack_opts=(),
    load="iceprog {folder}/top.bin && iceprog -o {offset:#x} {folder}/flash.bin",
)


@dataclass(frozen=True)
class PLL:
    """Settings of SB_PLL40 in simple feedback: output = crystal * (divf + 1) / 2**divq."""

    divf: int
    divq: int
    output_hz: int


def pll(clock_hz, crystal_hz=BOARD.crystal_hz):
    """The settings whose output is nearest to clock_hz without passing it.

    The 12 MHz crystal is only in the phase detector's range (10 to 133 MHz) undivided; the
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
    """The large memory: four SPRAMs side by side, the first holding bits 15 to 0. Nothing is left
    in the design of the address's upper bit."""

    def __init__(self):
        self.port = MemorySignature().flip().create()

    def elaborate(self, platform):
        m = Module()
        for index in range(4):
            bits, nibbles = slice(16 * index, 16 * index + 16), slice(4 * index, 4 * index + 4)
            m.submodules[f"spram{index}"] = Instance(
                "SB_SPRAM256KA",
                i_CLOCK=ClockSignal(),
                i_ADDRESS=self.port.address[:14],
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
    """Drives the clock of domain sync, which has no reset, from the crystal.

    The clock starts when the PLL has locked, glitch-free: flip-flops then still hold their
    values from the configuration, so no reset is needed, which would cost logic in each enable.
    Its frequency is nextpnr's --freq: constraints do not pass the gate, and names change.
    Block RAM, which reads as zero for 3 us after configuration, is not read before the boot image
    is in, 10 ms later.
    """

    def __init__(self, settings):
        self._settings = settings

    def elaborate(self, platform):
        m = Module()
        raw = Signal()
        lock = Signal()
        run = Signal()
        m.domains.raw = raw_domain = ClockDomain(reset_less=True, clk_edge="neg", local=True)
        m.submodules.pll = Instance(
            "SB_PLL40_PAD",
            p_FEEDBACK_PATH="SIMPLE",
            p_DIVR=Const(0, 4),
            p_DIVF=Const(self._settings.divf, 7),
            p_DIVQ=Const(self._settings.divq, 3),
            p_FILTER_RANGE=Const(1, 3),
            i_PACKAGEPIN=platform.request("clk12", dir="-").io,
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


class Top(BoardTop):
    """The whole design on this board. clock_hz : wanted; settings has what the PLL makes."""

    def __init__(self, engine, *, clock_hz, **sizes):
        super().__init__(BOARD, pll(clock_hz), engine, **sizes)

    def elaborate(self, platform):
        m = self._assemble(Clock(self.settings), Memory())
        device = self._device

        uart = platform.request("uart", dir={"rx": "-", "tx": "-"})
        flash = platform.request("spi_flash_1x", dir="-")
        m.d.comb += [
            device.rx.eq(input_pin(m, "rx", uart.rx)),
            device.flash_cipo.eq(input_pin(m, "cipo", flash.cipo)),
        ]
        output_pin(m, "tx", uart.tx, device.tx)
        output_pin(m, "flash_select", flash.cs, device.flash_select)
        output_pin(m, "flash_clock", flash.clk, device.flash_clock)
        output_pin(m, "flash_copi", flash.copi, device.flash_copi)
        output_pin(m, "flash_wp", flash.wp, Const(0, 1))
        output_pin(m, "flash_hold", flash.hold, Const(0, 1))
        output_pin(m, "led_ready", platform.request("led_g", 0, dir="-"), device.ready)
        output_pin(m, "led_error", platform.request("led_r", 0, dir="-"), device.error)
        output_pin(m, "led_busy", platform.request("led_g", 3, dir="-"), device.busy)
        return m


def prepare(top):
    """Elaborate a Top: {file name: text} of its RTLIL (top.il) and its pins (top.pcf).

    No source file is named in it: the design is the same wherever bnnhw lies.
    """
    platform = ICEBreakerPlatform()
    platform.add_resources(platform.break_off_pmod)
    files = platform.prepare(top, "top", emit_src=False).files
    return {name: text(files[name]) for name in ("top.il", "top.pcf")}
