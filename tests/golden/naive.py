"""The integer network in plain loops over whole numbers, one image, from its docstring alone."""

from __future__ import annotations

import numpy as np

from bnnhw.network.integer import IntegerConvolution, IntegerNetwork
from bnnhw.network.spec import NetworkSpec


def clip(value: int, width: int) -> int:
    return max(-(2 ** (width - 1)), min(2 ** (width - 1) - 1, value))


def window_sum(x: np.ndarray, weights: np.ndarray, stride: int, outside: int) -> np.ndarray:
    """3x3 convolution of whole numbers (H, W, C) by its definition."""
    height, width, _ = x.shape
    outside = np.broadcast_to(outside, x.shape[2:])
    out = np.zeros((-(-height // stride), -(-width // stride), len(weights)), np.int64)
    for row, column in np.ndindex(*out.shape[:2]):
        total = np.zeros(len(weights), np.int64)
        for dy, dx in np.ndindex(3, 3):
            at_y, at_x = row * stride + dy - 1, column * stride + dx - 1
            inside = 0 <= at_y < height and 0 <= at_x < width
            for c in range(x.shape[2]):
                total += (x[at_y, at_x, c] if inside else outside[c]) * weights[:, dy, dx, c]
        out[row, column] = total
    return out


def act(v: int, part, c: int, one: int) -> int:
    t = clip(v + int(part.shift_in[c]), 16)
    slope = int(part.positive[c]) if t >= 0 else int(part.negative[c])
    return t * slope // one + int(part.shift_out[c])


class Naive:
    """All tensors of one image in `taps`, under the golden's names."""

    def __init__(self, network: IntegerNetwork, image: np.ndarray) -> None:
        self.spec: NetworkSpec = network.spec
        self.formats = network.spec.formats
        self.down = 2 ** (self.formats.scale_fraction - self.formats.guard)
        self.one = 2**self.formats.guard
        self.outside = -1 if self.spec.repair.padding == "minus-one" else 0
        self.taps = {"input": image}
        stream, bits = self.stem(network, image)
        for part in network.convolutions:
            stream, bits = self.convolution(part, stream, bits)
        head = network.head
        bias = head.bias_mantissa.astype(int) * 2**head.bias_shift
        logits = np.array([(stream * row.astype(int)).sum() for row in head.weights]) + bias
        self.taps |= {"head.logits": logits, "class": logits.tolist().index(max(logits))}

    def keep_bits(self, name, y, thresholds) -> list[np.ndarray]:
        bits = [(y >= row).astype(int) for row in thresholds]
        for at, tensor in enumerate(bits):
            self.taps[f"{name}.bits{at or ''}"] = tensor
        return bits

    def residual(self, v: np.ndarray) -> np.ndarray:
        y = np.zeros(v.shape, np.int64)
        for at in np.ndindex(*v.shape):
            y[at] = clip(int(v[at]) // self.one, self.formats.residual_width)
        return y

    def stem(self, network, image):
        part = network.stem
        if part.levels is None:
            pad = np.array(self.spec.pad or 128) - 128
            acc = window_sum(image.astype(int) - 128, part.weights, 1, pad)
        else:
            bits = [pixel >= level for pixel in np.moveaxis(image, 2, 0) for level in part.levels]
            bits = np.stack(bits, 2).astype(int)
            self.taps["input.bits"] = bits
            pad = [2 * (p >= level) - 1 for p in self.spec.pad for level in part.levels]
            acc = window_sum(bits * 2 - 1, part.weights, 1, pad or self.outside)
        self.taps["stem.acc"] = acc
        half = acc // 2**part.pre_shift
        v = self.scaled(half, part.requantiser.scale, part.requantiser)
        v = v + self.constant(part.requantiser)
        if part.activation is not None:
            for at in np.ndindex(*v.shape):
                v[at] = act(int(v[at]), part.activation, at[2], self.down)
        stream = self.residual(v)
        self.taps["stem.residual"] = stream
        thresholds = np.atleast_2d(part.requantiser.threshold)
        return stream, self.keep_bits("stem", stream, thresholds)

    def convolution(self, part: IntegerConvolution, stream, bits):
        name, shape = part.shape.name, part.shape
        terms = [(part.weights, 0)] + [(term.weights, term.feature) for term in part.further]
        outside = -1 if (shape.repair or self.spec.repair).padding == "minus-one" else 0
        accs = [window_sum(bits[at] * 2 - 1, w, shape.stride, outside) for w, at in terms]
        for at, acc in enumerate(accs):
            self.taps[f"{name}.acc{at or ''}"] = acc
        if part.requantiser is None:
            return stream, self.keep_bits(name, accs[0], [part.threshold])
        scales = [part.requantiser.scale, *(term.scale for term in part.further)]
        u = np.zeros((shape.out_height, shape.out_width, shape.out_channels), np.int64)
        added = self.shortcut(part, stream) if shape.shortcut else u
        between = part.spatial is not None or part.before or part.gate
        u = u if between else added
        for acc, scale in zip(accs, scales, strict=True):
            assert (acc % 2 == 0).all()
            if acc is not accs[0]:
                u = np.clip(u, -32768, 32767)
            u = u + self.scaled(acc // 2, scale, part.requantiser)
        bias = self.constant(part.requantiser)
        for row, column, c in np.ndindex(*u.shape):
            value = int(u[row, column, c])
            if part.spatial is not None:
                value = clip(value, 16) * int(part.spatial[row, column]) // 64
            value += int(bias[c])
            if part.border is not None:
                at = shape.stride * row, shape.stride * column
                ends = at[0] + 1 >= shape.height, at[1] + 1 >= shape.width
                i, j = (0 if not a else 1 + b for a, b in zip(at, ends, strict=True))
                value += int(part.border[i, j, c])
            u[row, column, c] = act(value, part.before, c, self.down) if part.before else value
        if part.gate is not None:
            gates = self.gates(name, u, part.gate)
            for at in np.ndindex(*u.shape):
                u[at] = clip(int(u[at]), 16) * gates[at[2]] // self.down
        v = u + added if between else u
        if part.after is not None:
            for at in np.ndindex(*v.shape):
                v[at] = act(int(v[at]), part.after, at[2], self.down)
        elif part.gate is not None:
            v += self.one // 2
        y = self.residual(v)
        if shape.shortcut:
            stream = self.taps[f"{name}.residual"] = y
        return stream, self.keep_bits(name, y, np.atleast_2d(part.requantiser.threshold))

    def gates(self, name, u, part) -> list[int]:
        height, width, channels = u.shape
        drop = 2 ** max(0, self.formats.residual_width + self.formats.guard - 10)
        sums = [0] * channels
        for row, column, c in np.ndindex((height + 1) // 2, (width + 1) // 2, channels):
            block = u[2 * row : 2 * row + 2, 2 * column : 2 * column + 2, c]
            sums[c] += sum(clip(int(value), 16) for value in block.flat) // 4 // drop

        def layer(x, weights, scales, biases, top):
            result = []
            for row, scale, bias in zip(weights.tolist(), scales, biases, strict=True):
                total = sum(w * value for w, value in zip(row, x, strict=True))
                y = clip(total // 256, 16) * int(scale) // self.down + int(bias)
                result.append(max(0, min(top, y)))
            return result

        hidden = layer(sums, part.w1, part.scale1, part.bias1, 32767)
        coarse = [value // drop for value in hidden]
        gates = layer(coarse, part.w2, part.scale2, part.bias2, self.down - 1)
        self.taps[f"{name}.hidden"] = np.array(hidden)[None, None]
        self.taps[f"{name}.gate"] = np.array(gates)[None, None]
        return gates

    def shortcut(self, part: IntegerConvolution, stream) -> np.ndarray:
        """What is added, wide."""
        shape, step = part.shape, part.shape.shortcut_stride
        added = np.zeros((shape.out_height, shape.out_width, shape.out_channels), np.int64)
        if part.shortcut is not None:
            x = stream[::step, ::step]
            x = np.where(x >= 0, 1, -1) if part.shortcut.binary else x
            acc = np.stack([(x * row.astype(int)).sum(2) for row in part.shortcut.weights], 2)
            self.taps[f"{part.shape.name}.shortcut.acc"] = acc
            half = acc // 2**part.shortcut.pre_shift
            r = self.scaled(half, part.shortcut.scale, part.shortcut)
            r = r + self.constant(part.shortcut)
            return np.clip(r, -32768, 32767)
        if step == 2 and (shape.repair or self.spec.repair).downsample == "avgpool-duplicate":
            height, width, channels = stream.shape
            for row, column, c in np.ndindex(*added.shape):
                for dy, dx in np.ndindex(2, 2):
                    at = min(2 * row + dy, height - 1), min(2 * column + dx, width - 1)
                    added[row, column, c] += stream[(*at, c % channels)]
            return self.moved_point(added, shape) // 4
        front = shape.shortcut_offset
        added[:, :, front : front + shape.shortcut_channels] = stream[::step, ::step]
        return self.moved_point(added, shape)

    def scaled(self, half, scale, part) -> np.ndarray:
        exponent = np.zeros_like(scale) if part.exponent is None else part.exponent
        half = np.broadcast_to(half, (*half.shape[:-1], len(scale)))
        result = np.zeros(half.shape, np.int64)
        for at in np.ndindex(*half.shape):
            e = int(exponent[at[-1]])
            product = int(half[at]) * int(scale[at[-1]])
            result[at] = product * 2**e // self.down if e > 0 else product // (self.down * 2**-e)
        return result

    def constant(self, part) -> np.ndarray:
        exponent = np.zeros_like(part.bias) if part.exponent is None else part.exponent
        return part.bias.astype(int) * 2 ** np.maximum(exponent, 0)

    def moved_point(self, stream, shape) -> np.ndarray:
        power = self.formats.guard + shape.fraction - shape.shortcut_fraction
        return stream * 2**power if power >= 0 else stream // 2**-power
