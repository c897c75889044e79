"""Fast walks over feature maps for training on a CPU: what stands between two convolutions.

PyTorch walks over a map for each addition, product and sign, which takes longer than the
convolutions. Here a layer's batch norm, shortcut and activation are one walk forward and two back.
Rounding and signs are one walk each. The numbers are PyTorch's, but for the rounding to bfloat16 in
between.

g++ compiles the kernels for this very processor on first use. Without a compiler, on a GPU or in
another number format the callers compute with PyTorch alone.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import platformdirs
import torch
from torch import Tensor, nn

from bnnhw.errors import UserError
from bnnhw.jobs import processes
from bnnhw.jobs.files import Kept
from bnnhw.nn.activations import Activation

SOURCES = [Path(__file__).with_name(name) for name in ("kernels.cpp", "binary_conv.h", "walks.h")]
COMPILER = ("g++", "-O3", "-march=native", "-mprefer-vector-width=512", "-mtune=icelake-server",
            "-fno-math-errno", "-fno-trapping-math", "-std=c++17", "-shared", "-fPIC")  # fmt: skip
OFF = "BNNHW_NO_KERNELS"  # set in the environment: never


@functools.cache
def library() -> ctypes.CDLL | None:
    """Returns the compiled kernels, or None where there is no compiler for them."""
    if os.environ.get(OFF) or platform.machine() not in ("x86_64", "AMD64"):
        return None
    try:
        processor = (
            Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
        )
        features = [line for line in processor.splitlines() if line.startswith(("model", "flags"))]
        asked = [*COMPILER, *features, *(source.read_text(encoding="utf-8") for source in SOURCES)]
        name = hashlib.sha256("\n".join(asked).encode()).hexdigest()[:16]
        path = Path(platformdirs.user_cache_dir("bnnhw")) / f"kernels-{name}.so"
        kept = Kept(path.with_suffix(".kept"), name, (path,))
        if not kept.stands():
            kept.make(lambda: _compile(path))
        return ctypes.CDLL(str(path))
    except (OSError, UserError):
        return None


def _compile(path: Path) -> None:
    """Leave the whole library at `path`, whoever else compiles it at the time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        code = processes.run(
            [*COMPILER, str(SOURCES[0]), "-o", str(made)], env=processes.clean_environment(),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if code:
            raise OSError(f"{COMPILER[0]}: exit code {code}")
        os.replace(made, path)


def takes(x: Tensor) -> bool:
    """Returns whether the kernels are the way to walk over x.

    They have one thread. They are for bfloat16 on a CPU in a process of one thread, and not while
    torch.compile looks.
    """
    plain = x.dtype == torch.bfloat16 and x.device.type == "cpu" and torch.get_num_threads() == 1
    return plain and not torch.compiler.is_compiling() and library() is not None


def call(name: str, *arguments: Any) -> None:
    """Call a kernel. It gets the address of a tensor's elements, and a null pointer for None."""
    found = library()
    assert found is not None
    getattr(found, name)(*map(_word, arguments))


def _word(argument: Tensor | float | None) -> Any:
    if argument is None or isinstance(argument, Tensor):
        return ctypes.c_void_p(None if argument is None else argument.data_ptr())
    return ctypes.c_float(argument) if isinstance(argument, float) else ctypes.c_long(argument)


def laid_out(x: Tensor) -> Tensor:
    """Returns x as the kernels take it: bfloat16, channels last."""
    return x.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)


def _extent(x: Tensor) -> tuple[int, int]:
    """Returns (pixels, channels)."""
    return x.numel() // x.shape[1], x.shape[1]


class _Tail(torch.autograd.Function):
    """act(slope * y + offset + stream), slope and offset from batch norm of y (B, C, H, W).

    stream : (B, C, H, W) or None. weight, bias : of batch norm.
    mean, inverse : of y; `inverse` is 1 / deviation.
    below, above, shift_in, shift_out : of the activation.

    All but y and stream are (C,).
    """

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, stream: Tensor | None, weight: Tensor, bias: Tensor, below: Tensor,
        above: Tensor, shift_in: Tensor, shift_out: Tensor, mean: Tensor, inverse: Tensor,
    ) -> Tensor:  # fmt: skip
        slope = weight * inverse
        numbers = torch.stack([slope, bias - mean * slope, below, above, shift_in, shift_out])
        ctx.save_for_backward(y, stream, numbers, mean, inverse)
        return after(y, stream, numbers, AS_IT_IS)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, stream, numbers, mean, inverse = ctx.saved_tensors
        inner, norm, by_channel = after_back(grad, y, stream, numbers, mean, inverse, AS_IT_IS)
        of_y = torch.empty_like(y)
        call("affine", inner, y, of_y, *_extent(y), norm)
        return of_y, None if stream is None else inner, *by_channel, None, None


Rounding = tuple[float, float, float]  # step, least and greatest number of steps
AS_IT_IS: Rounding = (0.0, 0.0, 0.0)


def after(y: Tensor, stream: Tensor | None, numbers: Tensor, rounding: Rounding) -> Tensor:
    """Returns what follows a convolution's sums y. numbers : (6, C), as `_Tail` makes them."""
    result = torch.empty_like(y)
    call("forward", y, stream, result, *_extent(y), numbers, *rounding)
    return result


def after_back(
    grad: Tensor, y: Tensor, stream: Tensor | None, numbers: Tensor, mean: Tensor,
    inverse: Tensor, rounding: Rounding,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Returns three tensors of gradients.

    The first is of what goes into the activation, and so of the shortcut. The second, (3, C), is
    how batch norm makes y's gradient of the first and y, as `affine` takes it. The third, (6, C),
    has the gradients of weight, bias, below, above, shift_in and shift_out.
    """
    pixels, channels = _extent(y)
    inner = torch.empty_like(y)
    sums = torch.zeros(5, channels, dtype=torch.float64)
    call("backward", laid_out(grad), y, stream, inner, pixels, channels, numbers, sums, *rounding)
    of_bias, with_y, of_below, of_above, of_out = sums
    of_weight = inverse * (with_y - mean * of_bias)
    slope = numbers[0].double()
    of_sum, of_spread = slope * of_bias / pixels, slope * inverse * of_weight / pixels
    norm = torch.stack([slope, -of_spread, mean * of_spread - of_sum]).float()
    by_channel = torch.stack([of_weight, of_bias, of_below, of_above, -of_bias, of_out]).float()
    return inner, norm, by_channel


def tail(
    y: Tensor, stream: Tensor | None, norm: nn.BatchNorm2d, activation: Activation | None
) -> Tensor:
    """Returns what follows a convolution in training: batch norm, `stream` added, activation.

    y : bfloat16 (B, C, H, W). stream : the same or None.

    The running statistics of `norm` are brought up to date.
    """
    y = laid_out(y)
    pixels, channels = _extent(y)
    sums = torch.zeros(2, channels, dtype=torch.float64)
    call("moments", y, pixels, channels, sums)
    mean, inverse = follow(norm, sums, pixels)
    stream = None if stream is None else laid_out(stream)
    numbers = slopes_and_shifts(norm, activation)
    result: Tensor = _Tail.apply(y, stream, norm.weight, norm.bias, *numbers, mean, inverse)
    return result


def slopes_and_shifts(norm: nn.BatchNorm2d, activation: Activation | None) -> tuple[Tensor, ...]:
    """Returns below, above, shift_in and shift_out, of the identity without an activation."""
    if activation is not None:
        return activation.numbers()
    one, zero = torch.ones_like(norm.weight), torch.zeros_like(norm.weight)
    return one, one, zero, zero


@torch.no_grad()
def follow(norm: nn.BatchNorm2d, sums: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
    """Returns mean and 1 / deviation (C,): in training the batch's, else the running ones.

    sums : float64 (2, C), of the values and of their squares. In training the running statistics
        are brought up to date.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    assert norm.num_batches_tracked is not None
    if not norm.training:
        return norm.running_mean, (norm.running_var + norm.eps).rsqrt()
    assert norm.momentum is not None
    mean, squares = sums / pixels
    variance = (squares - mean.square()).clamp_min(0.0)
    norm.running_mean.lerp_(mean.float(), norm.momentum)
    norm.running_var.lerp_((variance * (pixels / max(1, pixels - 1))).float(), norm.momentum)
    norm.num_batches_tracked.add_(1)
    return mean.float(), (variance + norm.eps).rsqrt().float()


def sign(x: Tensor) -> Tensor:
    """Returns +1 where x >= 0 and -1 elsewhere, bfloat16."""
    return _walk("sign", x)


def triangle(grad: Tensor, x: Tensor) -> Tensor:
    """Returns grad * max(0, 2 - 2|x|), bfloat16 (B, C, H, W)."""
    return _back("triangle", grad, x)


def between(grad: Tensor, x: Tensor, low: float, high: float) -> Tensor:
    """Returns grad where low <= x <= high, else 0, bfloat16 (B, C, H, W)."""
    return _back("between", grad, x, low, high)


def _back(name: str, grad: Tensor, x: Tensor, *numbers: float) -> Tensor:
    x = laid_out(x)
    result = torch.empty_like(x)
    call(name, laid_out(grad), x, result, x.numel(), *numbers)
    return result


def quantise(x: Tensor, step: float, low: float, high: float) -> Tensor:
    """Returns clamp(floor(x / step + 1/2), low, high) * step, bfloat16. step is a power of two."""
    return _walk("quantise", x, float(step), float(low), float(high))


def _walk(name: str, x: Tensor, *numbers: float) -> Tensor:
    """Returns a walk's result. It lies in memory as the elements of x do."""
    in_order = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    x = x if in_order else x.contiguous()
    result = torch.empty_like(x)
    call(name, x, result, x.numel(), *numbers)
    return result


class _Above(torch.autograd.Function):
    """sign(x - threshold); the gradient is approxsign's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: Tensor) -> Tensor:
        result = torch.empty_like(x)
        call("above", x, result, *_extent(x), threshold)
        ctx.save_for_backward(x, threshold)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, threshold = ctx.saved_tensors
        of_x, sums = torch.empty_like(x), torch.zeros(len(threshold), dtype=torch.float64)
        call("above_back", laid_out(grad), x, of_x, *_extent(x), threshold, sums)
        return of_x, -sums.to(threshold.dtype)


def above(x: Tensor, threshold: Tensor) -> Tensor:
    """Returns +1 where x (B, C, H, W) is not below threshold (C,) and -1 elsewhere, bfloat16.

    The gradient is max(0, 2 - 2|x - threshold|) times that of the result.
    """
    result: Tensor = _Above.apply(laid_out(x), threshold.float().contiguous())
    return result
