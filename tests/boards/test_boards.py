"""The registry, and that a further board of a family is its numbers and its pins, no more."""

import re
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from amaranth.build import Attrs, Clock, Pins, PinsN, Resource, Subsignal
from amaranth.vendor import LatticeECP5Platform
from amaranth_boards.ecpix5 import ECPIX545Platform, ECPIX585Platform
from amaranth_boards.orangecrab_r0_2 import OrangeCrabR0_2_25FPlatform, OrangeCrabR0_2_85FPlatform
from amaranth_boards.resources import LEDResources, UARTResource
from amaranth_boards.upduino_v3 import UpduinoV3Platform

from bnnhw import boards
from bnnhw.boards.ecp5 import LFE5U_45F, ECP5Board
from bnnhw.boards.support import Pins as BoardPins
from bnnhw.sim.board_bench import instance
from tests.flow.fakes import FakeEngine

PACKAGES = ("boards", "gateware", "sim")  # folders beside bnnhw
MODULES = ("colorlight", "ecpix5", "icebreaker", "orangecrab", "ulx3s", "upduino_v3")
IO = Attrs(IO_TYPE="LVCMOS33")


class Platform(LatticeECP5Platform):
    """A board that there is not, as amaranth-boards would have it."""

    device, package, speed = "LFE5U-45F", "BG256", "6"
    default_clk = "clk50"
    connectors = []
    resources = [
        Resource("clk50", 0, Pins("P6", dir="i"), Clock(50e6), IO),
        *LEDResources(pins="T6 R6 P11", invert=True, attrs=IO),
        UARTResource(1, rx="C4", tx="D4", attrs=IO),
        Resource(
            "flash",
            0,
            Subsignal("cs", PinsN("N8", dir="o")),
            Subsignal("copi", Pins("T8", dir="o")),
            Subsignal("cipo", Pins("T7", dir="i")),
            Subsignal("wp", PinsN("M7", dir="o")),
            Subsignal("hold", PinsN("N7", dir="o")),
            IO,
        ),
    ]


MADE_UP = ECP5Board.on(
    LFE5U_45F,
    name="made-up",
    package="CABGA256",
    speed=6,
    crystal_hz=50_000_000,
    clock_hz=48_000_000,
    memory_words=16384,
    flash_offset=0x200000,
    flash_bytes=0x400000,
    max_baud=1_000_000,
    loader="made-up",
    load="load {folder}/top.bit {offset:#x}",
    platform=Platform,
    pins=BoardPins(
        uart=("uart", 1),
        flash=("flash", 0),
        leds=dict(ready=("led", 0), busy=("led", 1), error=("led", 2)),
    ),
)


@cache
def prepared(name):
    """A board's top and its files."""
    board = MADE_UP if name == MADE_UP.name else boards.board(name)
    engine = FakeEngine(frame_bytes=64, classes=10)
    sizes = dict(frame_bytes=64, n_results=12, boot_length=1024)
    top = board.top(engine, clock_hz=board.clock_hz, **sizes)
    return top, board.prepare(top)


def test_boards_are_found_by_name():
    assert {"icebreaker", "upduino_v3", "ulx3s", "colorlight_i5"} < {*boards.BOARDS}
    assert all(board.larger in (None, *boards.BOARDS) for board in boards.BOARDS.values())
    for name, board in boards.BOARDS.items():
        assert boards.board(name) is board and board.name == name


def test_a_name_of_no_board_is_refused():
    with pytest.raises(ValueError, match="board='icebraker': choose one of icebreaker, upduino_v3"):
        boards.board("icebraker")


@pytest.mark.parametrize("board", [*boards.BOARDS.values(), MADE_UP], ids=lambda board: board.name)
def test_the_bench_has_the_ports_of_the_top(board):
    _, files = prepared(board.name)
    wire = re.compile(r"^  wire width \d+ (?:input|output|inout) \d+ +\\(\w+)$", re.MULTILINE)
    ports = wire.findall(files["top.il"].partition("\nmodule \\top\n")[2].partition("\nend\n")[0])
    assert len(ports) >= 7 and sorted(board.bench().ports) == sorted(ports)


def test_a_second_ecp5_board_is_its_numbers_and_pins():
    """All else is the family's: device, memory, PLL for another crystal, flash clock, options."""
    top, files = prepared(MADE_UP.name)
    assert (top.baud, MADE_UP.memory_ebr, MADE_UP.budget["dsp"]) == (1_000_000, 64, 72)
    settings = top.settings
    oscillator = 50e6 * settings.feedback / settings.reference
    assert 400e6 <= oscillator <= 800e6 and 50e6 / settings.reference >= 10e6
    assert settings.output_hz == pytest.approx(48e6) == oscillator / settings.divide
    assert MADE_UP.nextpnr_opts == (
        "--45k", "--package", "CABGA256", "--speed", "6", "--router", "router2",
    )  # fmt: skip
    for primitive in ("EHXPLLL", "DCCA", "USRMCLK"):
        assert files["top.il"].count(f"cell \\{primitive} ") == 1
    assert 'LOCATE COMP "uart_1__tx__io" SITE "D4";' in files["top.lpf"]
    assert 'FREQUENCY PORT "clk50_0__io" 50000000.0 HZ;' in files["top.lpf"]


def test_the_bench_of_a_second_ecp5_board():
    lines = instance(MADE_UP.bench()).splitlines()
    assert "      .flash_0__cs__io(select_n)," in lines
    assert "  assign led_ready = !ready;" in lines and "  assign clock = dut.mclk.mclk;" in lines


WIRINGS = {
    "orangecrab_25f": "bnnhw.boards.orangecrab", "orangecrab_85f": "bnnhw.boards.orangecrab",
    "ecpix5_45": "bnnhw.boards.ecpix5", "ecpix5_85": "bnnhw.boards.ecpix5",
    "upduino_v3": "bnnhw.boards.upduino_v3",
}  # fmt: skip
SOURCES = {  # platforms of amaranth-boards with the same sites
    "orangecrab_25f": OrangeCrabR0_2_25FPlatform,
    "orangecrab_85f": OrangeCrabR0_2_85FPlatform,
    "ecpix5_45": ECPIX545Platform,
    "ecpix5_85": ECPIX585Platform,
    "upduino_v3": UpduinoV3Platform,
}


@pytest.mark.parametrize("name", SOURCES)
def test_sites_are_those_of_amaranth_boards(name):
    """Clock, flash, lamp and, where there is one, the serial port."""
    source, board = SOURCES[name](), boards.board(name)
    ours, wiring = board.platform(), import_module(WIRINGS[name]).WIRING
    assert (ours.device, ours.package) == (source.device, source.package)
    clock = "clk12" if name == "upduino_v3" else source.default_clk
    assert sites(source, clock) == {"": wiring.clock}
    assert source.lookup(clock).clock.frequency == board.crystal_hz
    flash = sites(source, "spi_flash", "1x")
    assert (flash["cs"], flash["copi"], flash["cipo"]) == (
        wiring.select, wiring.copi, wiring.cipo
    )  # fmt: skip
    assert wiring.flash_clock in (None, flash["clk"])
    assert {*wiring.high.values()} <= {flash["wp"], flash["hold"]}
    lamp = sites(source, "rgb_led")
    assert {*wiring.leds.values()} == {*lamp.values()} and wiring.lit_low
    if ("uart", 0) in source.resources:
        assert sites(source, "uart") == {"rx": wiring.rx, "tx": wiring.tx}


def sites(platform, name, suffix=""):
    """The sites of a resource's parts, by their names; of one without parts by ""."""
    resource = platform.lookup(f"{name}_{suffix}" if suffix else name, 0)
    return {
        part.name if isinstance(part, Subsignal) else "": pins.names[0]
        for part in resource.ios
        for pins in (part.ios if isinstance(part, Subsignal) else [part])
        if hasattr(pins, "names")
    }


@pytest.mark.parametrize("name", ["orangecrab_25f", "upduino_v3"])
def test_a_wired_board_has_its_pins_in_its_constraints(name):
    _, files = prepared(name)
    text = files["top.lpf" if name == "orangecrab_25f" else "top.pcf"]
    wiring = import_module(WIRINGS[name]).WIRING
    for port, site in {"uart_0__rx": wiring.rx, "flash_0__cs": wiring.select}.items():
        assert re.search(rf"{port}__io\"? (SITE \"{site}\"|{site}\b)", text), (port, text)


def test_families_are_named_in_their_own_files_alone():
    """Nothing else asks of what family a board is; the tools that build for them are in two."""
    own = {"boards/ice40.py", "boards/ecp5.py", "flow/families.py", "flow/tools.py"}
    root = Path(__file__).parents[2]
    files = [*root.glob("bnnhw/**/*.py"), *(f for p in PACKAGES for f in root.glob(f"{p}/*.py"))]
    assert len(files) > 100
    name = re.compile(r"ice40_|_ice40|\"ice40|\"ecp5|ecp5_|ICE40|ECP5|\bSB_[A-Z]|iCE40UP")
    found = {f.relative_to(root).as_posix() for f in files if name.search(f.read_text())}
    modules = {"boards/wiring.py", *(f"boards/{name}.py" for name in MODULES)}
    assert {n.removeprefix("bnnhw/") for n in found} == own | modules
