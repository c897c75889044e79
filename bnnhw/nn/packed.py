"""Networks for use: signs of weights as bits, instead of the latent weights that training changes.

A packed network is three tensors. Names and shapes of what they hold follow from its spec, in the
order of the state dict of its BinaryResNet:

    signs : uint8, eight weights a byte, the first in the lowest bit; 1 is +1, the rest of the last
        byte is 0
    numbers : float32, every other parameter and statistic, one after the other
    counters : int64, the numbers of batches that batch norms have seen
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnnhw.errors import UserError
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn.convolution import BinaryConvolution
from bnnhw.nn.resnet import BinaryResNet
from bnnhw.nn.shortcuts import BinaryShortcut
from bnnhw.nn.stems import ThermometerStem

KEYS = {"signs": torch.uint8, "numbers": torch.float32, "counters": torch.int64}


def pack(model: BinaryResNet) -> dict[str, Tensor]:
    """Returns the three tensors of a network.

    Raises UserError, naming the layer, where it computes with more of its weights than their signs.
    """
    state, binary = model.state_dict(), _binary(model)
    signs = {name: part.weight_binarizer(part.weight) >= 0 for name, part in binary.items()}
    packed = _pack(state, signs)
    again = BinaryResNet(model.spec)
    again.load_state_dict(unpack(packed, model.spec))
    for name, mine, theirs in zip(_names(model), _folded(model), _folded(again), strict=True):
        if not _equal(mine, theirs):
            methods = ", ".join(model.spec.repair.changes())
            raise UserError(
                f"{name}: computes with more of its weights than their signs, by one of its repair "
                f"methods ({methods}), so it cannot be packed; leave --packed out"
            )
    return packed


def unpack(packed: Any, spec: NetworkSpec) -> dict[str, Tensor]:
    """Returns the state dict of a packed network, its binary weights -1 and +1.

    Raises UserError where the tensors are not those of this spec.
    """
    if not isinstance(packed, dict) or packed.keys() != KEYS.keys():
        raise UserError(f"packed: must have the tensors {', '.join(KEYS)}")
    with torch.device("meta"):
        like = BinaryResNet(spec)
    expected, binary = like.state_dict(), _binary(like)
    needed = {"signs": 0, "numbers": 0, "counters": 0}
    for name, tensor in expected.items():
        needed[_key(name, tensor, binary)] += tensor.numel()
    needed["signs"] = -(-needed["signs"] // 8)
    for key, dtype in KEYS.items():
        given = packed[key]
        if not isinstance(given, Tensor) or given.dtype != dtype or given.shape != (needed[key],):
            raise UserError(f"packed.{key}: the spec needs {needed[key]} values of {dtype}")
    bits = np.unpackbits(packed["signs"].numpy(), bitorder="little")
    sources = dict(packed, signs=torch.from_numpy(bits).float() * 2 - 1)
    at, state = dict.fromkeys(KEYS, 0), {}
    for name, tensor in expected.items():
        key = _key(name, tensor, binary)
        values = sources[key][at[key] : at[key] + tensor.numel()]
        at[key] += tensor.numel()
        state[name] = values.reshape(tensor.shape).clone()
    return state


def _pack(state: dict[str, Tensor], signs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The three tensors of a state dict whose weights `signs`, by layer, are binary."""
    parts: dict[str, list[Tensor]] = {key: [torch.empty(0, dtype=KEYS[key])] for key in KEYS}
    bits = [np.empty(0, bool)]
    for name, tensor in state.items():
        key = _key(name, tensor, signs)
        if key == "signs":
            bits.append(signs[name.removesuffix(".weight")].flatten().cpu().numpy())
        else:
            parts[key].append(tensor.detach().flatten().cpu())
    words = np.packbits(np.concatenate(bits), bitorder="little")
    result = {key: torch.cat(tensors) for key, tensors in parts.items()}
    return result | {"signs": torch.from_numpy(words)}


def _names(model: BinaryResNet) -> list[str]:
    return ["stem", *(layer.shape.name for layer in model.layers())]


def _folded(model: BinaryResNet) -> list[Any]:
    """What the stem and the layers, with their shortcuts, compute."""
    return [model.stem.folded(), *(layer.folded() for layer in model.layers())]


def _binary(model: BinaryResNet) -> dict[str, Any]:
    """The layers of binary weights by name."""
    kinds = (BinaryConvolution, BinaryShortcut, ThermometerStem)
    return {name: part for name, part in model.named_modules() if isinstance(part, kinds)}


def _key(name: str, tensor: Tensor, binary: dict[str, Any]) -> str:
    """Which of the three tensors holds a parameter."""
    if name.endswith(".weight") and name.removesuffix(".weight") in binary:
        return "signs"
    return "counters" if tensor.dtype == torch.int64 else "numbers"


def _equal(one: Any, other: Any) -> bool:
    """Whether two results of folding are equal in every number."""
    if is_dataclass(one):
        names = [field.name for field in fields(one)]
        return type(one) is type(other) and all(
            _equal(getattr(one, name), getattr(other, name)) for name in names
        )
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(np.array_equal(one, other))
