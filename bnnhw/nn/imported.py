"""A FoldedNetwork as plain tables and tensors, as model.pt holds one that came from elsewhere."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnnhw.errors import UserError
from bnnhw.network import folded
from bnnhw.network.folded import FoldedNetwork
from bnnhw.network.spec import NetworkSpec

KINDS = {
    kind.__name__: kind
    for kind in (
        folded.Term, folded.FoldedActivation, folded.FoldedGate, folded.FoldedShortcut,
        folded.Folded, folded.FoldedStem, folded.FoldedThermometer, folded.FoldedHead,
    )
}  # fmt: skip


def encode(part: Any) -> Any:
    """Returns tables, lists, numbers and tensors; a table's "kind" names the dataclass."""
    if isinstance(part, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(part).copy())
    if isinstance(part, tuple):
        return [encode(each) for each in part]
    if is_dataclass(part):
        table = {field.name: encode(getattr(part, field.name)) for field in fields(part)}
        return {"kind": type(part).__name__, **table}
    return part


def decode(part: Any) -> Any:
    """Returns the inverse of `encode`. Raises UserError where a table is none of ours."""
    if isinstance(part, Tensor):
        return part.numpy()
    if isinstance(part, list):
        return tuple(decode(each) for each in part)
    if not isinstance(part, dict):
        return part
    kind = KINDS.get(str(part.get("kind")))
    if kind is None:
        raise UserError(f"kind {part.get('kind')!r}: no part of a network is one")
    try:
        return kind(**{name: decode(each) for name, each in part.items() if name != "kind"})
    except TypeError:
        raise UserError(f"a {part['kind']} has other parts than those of the file") from None


def to_file(network: FoldedNetwork) -> dict[str, Any]:
    """Returns what a file holds beside the spec."""
    parts = {name: encode(getattr(network, name)) for name in ("stem", "layers", "head")}
    return parts | dict(rounded=network.rounded)


def from_file(content: Any, spec: NetworkSpec) -> FoldedNetwork:
    """Returns the network of `to_file`. Raises UserError where it is not the spec's."""
    known = {"stem", "layers", "head"}
    if not isinstance(content, dict) or content.keys() - {"rounded"} != known:
        raise UserError("folded: must have stem, layers and head")
    parts = {name: decode(part) for name, part in content.items()}
    if not isinstance(parts["layers"], tuple):
        raise UserError("folded.layers: must be a list")
    rounded = parts.get("rounded", False) is True
    return FoldedNetwork(spec, parts["stem"], parts["layers"], parts["head"], rounded)
