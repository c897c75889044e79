"""Runs an engine's Verilog on images: memory after each step, logits, class and cycle counts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bnnhw.sim.runner import HERE, simulate

MEMORY_WORDS = 16384  # unless it is said how many
SIMULATOR = "verilator"


class Words(Protocol):
    """A stream of words: uint64, and which of them are short."""

    @property
    def words(self) -> np.ndarray: ...

    @property
    def short(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Frame:
    """What one image did.

    logits : (classes,). label : the class the engine named. counted : its own cycle count.
    latency : cycles from the last input byte to the class. total : from the first byte.
    step_ends : [(step, cycles since the first byte)], in order.
    snapshots, stream_snapshots : {step: file of the memory, of the residual stream's own, after
        it}, for `read_snapshot`.
    """

    logits: np.ndarray
    label: int
    counted: int
    latency: int
    total: int
    step_ends: list[tuple[int, int]]
    snapshots: dict[int, Path] = field(default_factory=dict)
    stream_snapshots: dict[int, Path] = field(default_factory=dict)


def read_snapshot(path: Path) -> np.ndarray:
    """Returns the memory as uint64, the lowest of a word's 64 bits first, from a file that
    $writememh made."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith(("//", "@"))]
    words = np.frombuffer(bytes.fromhex("".join(lines)), ">u8").reshape(len(lines), -1)
    return words[:, ::-1].reshape(-1).astype(np.uint64)


def write_words(path: Path, words: Words) -> None:
    """Write a line for each word, its digit above those of the word 1 if it is short."""
    pairs = zip(words.words, words.short, strict=True)
    path.write_text("".join(f"{int(short)}{int(word):016x}\n" for word, short in pairs))


def run_engine(
    sources: Sequence[Path], *, boot: np.ndarray, images: np.ndarray, classes: int, folder: Path,
    environment: Mapping[str, str], byte_cycles: int = 1, snapshots: bool = True,
    load_stream: bool = False, stall: bool = False, cycle_limit: int = 2_000_000,
    memory_words: int = MEMORY_WORDS, stream_words: int = 0, stream_width: int = 64,
    words: Words | None = None,
) -> list[Frame]:  # fmt: skip
    """Simulate images one after the other; returns a Frame for each.

    sources : Verilog files, with a module `engine`. boot : uint64 words, put in the memory from
    word 0 (load_stream: sent as bytes). images : uint8 (N, H, W, C), a byte each byte_cycles
    cycles. folder : kept, so that the next run with the same engine need not compile.
    stall : hold streams back at random. memory_words : of the board, past which the address wraps.
    stream_words, stream_width : of the residual stream's own memory, if the engine has one.
    words : of an engine that takes program and weights as a stream, a nibble a cycle.
    Raises SimulationError if an image takes more than cycle_limit cycles.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("s*_*_*.hex"), folder / "seen.json"):
        old.unlink(missing_ok=True)
    (folder / "boot.hex").write_text("\n".join(f"{int(word):016x}" for word in boot) + "\n")
    if words is not None:
        write_words(folder / "words.hex", words)
    (folder / "pixels.bin").write_bytes(np.ascontiguousarray(images).tobytes())
    settings = {
        "frames": len(images), "results": classes + 2, "snapshots": int(snapshots),
        "cycle_limit": cycle_limit, "byte_cycles": byte_cycles,
    }  # fmt: skip
    simulate(
        sources=[HERE / "engine_bench.v", *sources], top="engine_bench",
        test_module="bnnhw.sim.engine_test", folder=folder, environment=environment,
        parameters={"FRAME_BYTES": images[0].size, "RESULTS": classes + 2,
                    "STREAM_WIDTH": stream_width},
        defines={name: 1 for name, there in (("OWN_STREAM", stream_words > 0),
                                             ("WORD_STREAM", words is not None)) if there},
        plusargs=[f"+boot_words={len(boot)}", f"+memory_words={memory_words}",
                  f"+stream_words={stream_words}",
                  *([] if words is None else [f"+words={len(words.words)}"]),
                  *["+load_stream"] * load_stream, *["+stall"] * stall],
        variables={"ENGINE_BENCH": json.dumps(settings)},
    )  # fmt: skip
    seen = json.loads((folder / "seen.json").read_text())
    return [_frame(index, seen, folder, snapshots) for index in range(len(images))]


def _frame(index: int, seen: Mapping[str, Any], folder: Path, snapshots: bool) -> Frame:
    answer = seen["answers"][index]
    first = answer["first_pixel"]
    steps = [step for step in seen["steps"] if step["frame"] == index]
    files, streams = (
        {step["step"]: folder / f"{name}_{index}_{step['step']}.hex" for step in steps}
        for name in ("snapshot", "stream")
    )
    *logits, label, counted = answer["words"]
    classified = answer["at"][-2]
    return Frame(
        logits=np.array(logits, np.int64),
        label=label,
        counted=counted,
        latency=classified - answer["last_pixel"],
        total=classified - first,
        step_ends=[(step["step"], step["at"] - first) for step in steps],
        snapshots=files if snapshots else {},
        stream_snapshots=streams if snapshots else {},
    )
