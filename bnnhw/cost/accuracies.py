"""Reads integer accuracies of trained networks from the files of a study or of single models."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bnnhw.errors import UserError
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn import checkpoint
from bnnhw.studies.summary import spread


def accuracies(
    folder: Path, specs: Mapping[str, NetworkSpec]
) -> tuple[str | None, dict[str, dict[str, Any]]]:
    """Returns (protocol, {name: spread of integer top-1 in percent}) of exactly these networks.

    Looks for their files anywhere in `folder`. Only networks that were trained and measured alike
    can be compared. Of several protocols it takes the one that most names have. A name without a
    trained network is left out.
    """
    names = {spec: name for name, spec in specs.items()}
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for spec, protocol, top1 in _measured(folder):
        if spec in names:
            found[protocol][names[spec]].append(top1)
    if not found:
        return None, {}
    counts = Counter({protocol: len(by_name) for protocol, by_name in sorted(found.items())})
    protocol = counts.most_common(1)[0][0]
    spreads = {name: spread(values) for name, values in found[protocol].items()}
    return protocol, {name: values for name, values in spreads.items() if values}


def _measured(folder: Path) -> Iterator[tuple[NetworkSpec, str, float]]:
    """Yields spec, protocol and percent of every file that has an integer accuracy."""
    for path in sorted(folder.rglob("*.json")):
        run = _read(path)
        if run.get("integer") is not None and "spec" in run and "validation_images" in run:
            protocol = (
                f"{run['validation_images']} {run['split']} images of {run['dataset']}, after "
                f"{run['epochs']} epochs of {run['train_images']} training images"
            )
            yield NetworkSpec.from_dict(run["spec"]), protocol, run["integer"]
    for path in sorted(folder.rglob("*.pt")):
        try:
            model = checkpoint.load(path)
        except UserError:
            continue  # a teacher, or a training's state
        known = model.metrics.get("accuracy")
        if isinstance(known, dict) and known.get("integer") is not None:
            protocol = f"{known['images']} {known['split']} images of {known['dataset']}"
            yield model.spec, protocol, known["integer"]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
