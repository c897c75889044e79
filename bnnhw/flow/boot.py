"""The boot image of a plan: program and weights, and what the host needs to know of them."""

from __future__ import annotations

import hashlib

from bnnhw import datasets, golden
from bnnhw.compiler.plan import Plan
from bnnhw.compiler.stream import WordStream
from bnnhw.gateware.qspi import stream_image
from bnnhw.gateware.wire import CHECK_START, BootImage, Identity, boot_image, padded
from bnnhw.network.folded import FoldedNetwork
from bnnhw.network.spec import NetworkSpec


def make_boot_image(
    plan: Plan, *, clock_hz: float, baud: int, name: str = "",
    step: float = 0.0, bound: bool = True,
) -> BootImage:  # fmt: skip
    """Returns the boot image of a plan. Its test is a random image and the golden's answer.

    clock_hz, baud : of the gateware. name : of the network. step : as `logit_step` returns it.
    bound : whether only gateware of this build takes it; without, equal designs stay equal.
    The payload of a plan whose program and weights are a stream is that.
    """
    spec = plan.network.spec
    height, width, channels = spec.input
    image = datasets.random_pixels(spec.input, 1)
    taps = golden.run(plan.network, image)
    identity = Identity(
        height=height, width=width, channels=channels, classes=spec.classes,
        clock_hz=round(clock_hz), baud=baud, name=name, step=step,
    )  # fmt: skip
    answer = [*map(int, taps["head.logits"][0]), int(taps["class"][0])]
    if plan.words is None:
        payload = plan.image.astype("<u8").tobytes()
    else:
        payload = _stream(plan.words, stream_start(plan.words, bound=bound))
    return boot_image(identity, payload, image.tobytes(), answer, bound=bound)


def stream_start(words: WordStream, *, bound: bool = True) -> int:
    """Returns what the check sum of a stream starts from, as that of a bound boot image does."""
    if not bound:
        return CHECK_START
    return int.from_bytes(hashlib.sha256(_stream(words, CHECK_START)).digest()[:4], "big")


def _stream(words: WordStream, start: int) -> bytes:
    content = stream_image(words.words.tolist(), words.short.tolist(), start)
    return content.ljust(padded(len(content)), b"\0")


def logit_step(source: FoldedNetwork, spec: NetworkSpec) -> float:
    """Returns the real value of an integer logit's last bit; spec : of the integer network."""
    last = spec.convolutions()[-1]
    return source.head.unit / (last.out_height * last.out_width * 2.0**last.fraction)
