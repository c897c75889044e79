"""Scale the residual stream of a plain network, to train it on with another number format.

    python scripts/rescale.py MODEL FACTOR FRACTION OUT

Every batch norm's gain and bias is multiplied by FACTOR and the head's weights are divided by it,
so logits stay what they were but for rounding; FRACTION bits of a residual are after the point.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from bnnhw.nn import checkpoint

SETS_RANGES = ("activation", "feature_normalization", "downsample", "feature_binarizer")


def main(model: str, factor: float, fraction: int, out: str) -> None:
    loaded = checkpoint.load(checkpoint.find(model))
    formats = replace(loaded.spec.formats, residual_fraction=fraction)
    spec = replace(loaded.spec, formats=formats)
    for name in SETS_RANGES:
        if name in spec.repair.changes():
            sys.exit(
                f"{model}: has {name}={getattr(spec.repair, name)}, whose range stays as it is"
            )
    scaled = replace(loaded, spec=spec).model()
    with torch.no_grad():
        for part in (scaled.stem, *scaled.layers()):
            part.norm.weight *= factor
            part.norm.bias *= factor
        scaled.head.weight /= factor
    checkpoint.save(Path(out), scaled, loaded.metrics)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
