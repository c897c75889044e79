"""model.pt: a versioned, inert file of a network's spec, parameters and metrics."""

from __future__ import annotations

import hashlib
import math
import pickle
import warnings
import zipfile
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bnnhw.errors import UserError
from bnnhw.jobs.files import replacing
from bnnhw.network.folded import FoldedNetwork
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn import BinaryResNet
from bnnhw.nn.imported import from_file, to_file
from bnnhw.nn.packed import pack, unpack

FORMAT = "bnnhw-model"
VERSION = 2
CLAMPED = (0.0, 7.99)  # slopes of activations in networks of version 1, whatever their files say


@dataclass(frozen=True)
class Checkpoint:
    """A network: its spec, the state dict of its BinaryResNet, and what is known of it.

    metrics : plain numbers, strings, lists and dicts, such as accuracies and the recipe.
    packed : whether the file has signs in place of latent weights, so that nothing can train on.
    network : one that was imported, in place of `state`.
    """

    spec: NetworkSpec
    state: dict[str, Tensor]
    metrics: dict[str, Any] = field(default_factory=dict)
    packed: bool = False
    network: FoldedNetwork | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Returns a name for each class, or none where the file does not say them."""
        found = self.metrics.get("classes")
        known = isinstance(found, list) and len(found) == self.spec.classes
        return tuple(map(str, found)) if known and isinstance(found, list) else ()

    def model(self) -> BinaryResNet:
        """Returns the float model with these parameters, in evaluation mode.

        Raises UserError for an imported network, which has none.
        """
        if self.network is not None:
            raise UserError(
                "an imported network has no modules that could train on; it is evaluated and built"
            )
        model = BinaryResNet(self.spec)
        model.load_state_dict(self.state)
        return model.eval()

    def folded(self) -> FoldedNetwork:
        """Returns the same network as plain numbers, for lowering."""
        return self.model().folded() if self.network is None else self.network


def write_atomic(content: Any, path: Path) -> None:
    """Write by torch.save; leaves either the old file or the whole new one."""
    try:
        with replacing(path) as partial:
            torch.save(content, partial)
    except RuntimeError as error:
        raise UserError(f"{path}: cannot be written ({error}); choose another --out") from None


def save(
    path: str | Path, model: BinaryResNet | FoldedNetwork,
    metrics: dict[str, Any] | None = None, *, packed: bool = False,
) -> None:  # fmt: skip
    """Write a model as model.pt, whole or not at all.

    packed : binary weights as bits (bnnhw.nn.packed). Raises UserError where signs are not enough.
    """
    content: dict[str, Any] = dict(format=FORMAT, version=VERSION, spec=model.spec.to_dict())
    if isinstance(model, FoldedNetwork):
        content["folded"] = to_file(model)
    elif packed:
        content["packed"] = pack(model)
    else:
        content["state"] = {
            name: tensor.detach().cpu().contiguous().clone()
            for name, tensor in model.state_dict().items()
        }
    write_atomic({**content, "metrics": metrics or {}}, Path(path))


def read_inert(path: Path, what: str) -> Any:
    """Returns the content of a file by torch.load with weights_only=True.

    Raises UserError where the file is not a torch file or holds more than plain values and tensors.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on foreign files
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        if error.filename is None:  # nothing of the disk: of the archive's own lengths
            raise UserError(f"{path}: damaged or not a {what}; copy or train it anew") from None
        raise UserError(f"{path}: {error.strerror or error}; give a {what}") from None
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path):
            raise UserError(
                f"{path}: refused, it holds more than tensors and plain values; a {what} never "
                f"carries code: {_refused(error)}"
            ) from None
        raise UserError(f"{path}: not a {what}; write one with python -m bnnhw.train") from None
    except Exception:  # a damaged archive can raise nearly anything
        raise UserError(f"{path}: damaged or not a {what}; copy or train it anew") from None


def _check_plain(path: Path, name: str, value: Any) -> None:
    """Raise UserError unless a value is of numbers, texts, lists and tables: what JSON can say."""
    if isinstance(value, dict):
        for key, part in value.items():
            if not isinstance(key, str):
                raise UserError(f"{path}: {name} has the key {key!r}; keys are texts")
            _check_plain(path, f"{name}.{key}", part)
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            _check_plain(path, f"{name}[{index}]", part)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{path}: {name} is {value}; metrics are finite numbers")
    elif not (value is None or isinstance(value, str | int | float)):
        raise UserError(
            f"{path}: {name} is a {type(value).__name__}; metrics are numbers, texts, lists and "
            f"tables"
        )


def _refused(error: Exception) -> str:
    """Returns the name that torch refused, out of its long message."""
    text = " ".join(str(error).split())
    for lead in ("Unsupported global: GLOBAL ", "Unsupported class "):
        if lead in text:
            return text.split(lead, 1)[1].split(" ", 1)[0]
    return text[:80]


def load(path: str | Path) -> Checkpoint:
    """Returns the checked content of a model.pt. Raises UserError with the file and its fault."""
    path = Path(path)
    content = read_inert(path, "model.pt")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            f"{path}: a PyTorch file, but not a {FORMAT}; write one with python -m bnnhw.train"
        )
    version = content.get("version")
    if version not in (1, VERSION):
        raise UserError(
            f"{path}: version {version!r} of {FORMAT}, this bnnhw reads 1 and {VERSION}; use the "
            f"bnnhw that wrote it"
        )
    try:
        spec = NetworkSpec.from_dict(content.get("spec"))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    metrics = content.get("metrics", {})
    if not isinstance(metrics, dict):
        raise UserError(f"{path}: metrics must be a table, not {type(metrics).__name__}")
    _check_plain(path, "metrics", metrics)
    if "folded" in content:
        try:
            return Checkpoint(spec, {}, metrics, network=from_file(content["folded"], spec))
        except UserError as error:
            raise UserError(f"{path}: {error}; the file does not fit its own spec") from None
    packed = "packed" in content
    state = _unpacked(path, spec, content["packed"]) if packed else content.get("state")
    state = _checked_state(path, spec, state)
    return Checkpoint(spec, _as_trained(state) if version == 1 else state, metrics, packed)


def _unpacked(path: Path, spec: NetworkSpec, packed: Any) -> dict[str, Tensor]:
    try:
        return unpack(packed, spec)
    except UserError as error:
        raise UserError(f"{path}: {error}; the file does not fit its own spec") from None


def _as_trained(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parameters of version 1 with the slopes that its networks computed with.

    They were clamped wherever they were used, so this is the function that was trained.
    """
    slopes = (".activation.negative", ".activation.positive")
    return {k: v.clamp(*CLAMPED) if k.endswith(slopes) else v for k, v in state.items()}


def _checked_state(path: Path, spec: NetworkSpec, state: Any) -> dict[str, Tensor]:
    """Returns the state dict if it has exactly the tensors of the spec's model, all finite."""
    if not isinstance(state, dict):
        raise UserError(f"{path}: state must be a table of tensors, not {type(state).__name__}")
    with torch.device("meta"):
        expected = BinaryResNet(spec).state_dict()
    for name in sorted(map(str, expected.keys() ^ state.keys())):
        fault = "is missing" if name in expected else "belongs to no such network"
        raise UserError(f"{path}: state[{name!r}] {fault}; the file does not fit its own spec")
    for name, like in expected.items():
        tensor = state[name]
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise UserError(f"{path}: state[{name!r}] must be a plain tensor")
        if tensor.shape != like.shape or tensor.dtype != like.dtype:
            raise UserError(
                f"{path}: state[{name!r}] is {_type(tensor)}, the spec needs {_type(like)}"
            )
        if not torch.isfinite(tensor).all():
            raise UserError(f"{path}: state[{name!r}] has NaN or infinite values; train it anew")
    return state


def _type(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def sha256(path: str | Path) -> str:
    """Returns the hexadecimal SHA-256 of a file."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; give a readable file") from None


def bundled_names() -> tuple[str, ...]:
    """Returns the names of the trained models that come with the package."""
    folder = resources.files("bnnhw") / "models"
    names = (entry.name for entry in folder.iterdir()) if folder.is_dir() else ()
    return tuple(sorted(name.removesuffix(".pt") for name in names if name.endswith(".pt")))


def bundled(name: str) -> Path:
    """Returns the path of a bundled model."""
    if name not in bundled_names():
        raise UserError(f"{name}: no such bundled model; there are {', '.join(bundled_names())}")
    return Path(str(resources.files("bnnhw") / "models" / f"{name}.pt"))


def is_bundled(path: Path) -> bool:
    """Returns whether a file is one of those that come with the package."""
    return any(path.resolve() == bundled(name).resolve() for name in bundled_names())


def find(name_or_path: str | Path) -> Path:
    """Returns the path of a file, or of a bundled model if that is what the name says."""
    path = Path(name_or_path)
    if not path.exists() and str(name_or_path) in bundled_names():
        return bundled(str(name_or_path))
    return path
