"""model.pt: a versioned, inert file of a network's spec, parameters and metrics."""

from __future__ import annotations

import hashlib
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
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn import BinaryResNet

FORMAT = "bnnhw-model"
VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """A network: its spec, the state dict of its BinaryResNet, and what is known of it.

    metrics : plain numbers, strings, lists and dicts, such as accuracies and the recipe.
    """

    spec: NetworkSpec
    state: dict[str, Tensor]
    metrics: dict[str, Any] = field(default_factory=dict)

    def model(self) -> BinaryResNet:
        """Returns the float model with these parameters, in evaluation mode."""
        model = BinaryResNet(self.spec)
        model.load_state_dict(self.state)
        return model.eval()


def write_atomic(content: Any, path: Path) -> None:
    """Write by torch.save; leaves either the old file or the whole new one."""
    try:
        with replacing(path) as partial:
            torch.save(content, partial)
    except RuntimeError as error:
        raise UserError(f"{path}: cannot be written ({error}); choose another --out") from None


def save(path: str | Path, model: BinaryResNet, metrics: dict[str, Any] | None = None) -> None:
    """Write a model as model.pt, whole or not at all."""
    state = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in model.state_dict().items()
    }
    content = dict(format=FORMAT, version=VERSION, spec=model.spec.to_dict(), state=state)
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
    if content.get("version") != VERSION:
        raise UserError(
            f"{path}: version {content.get('version')!r} of {FORMAT}, this bnnhw reads "
            f"{VERSION}; use the bnnhw that wrote it"
        )
    try:
        spec = NetworkSpec.from_dict(content.get("spec"))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    metrics = content.get("metrics", {})
    if not isinstance(metrics, dict):
        raise UserError(f"{path}: metrics must be a table, not {type(metrics).__name__}")
    return Checkpoint(spec, _checked_state(path, spec, content.get("state")), metrics)


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


def find(name_or_path: str | Path) -> Path:
    """Returns the path of a file, or of a bundled model if that is what the name says."""
    path = Path(name_or_path)
    if not path.exists() and str(name_or_path) in bundled_names():
        return bundled(str(name_or_path))
    return path
