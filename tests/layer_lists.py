"""Networks whose layers differ, for tests of what follows from a spec's layers."""

from __future__ import annotations

from bnnhw.network.layers import Layer
from bnnhw.network.repair import Repair
from bnnhw.network.spec import NetworkSpec, NumberFormats

MAXOUT = Repair("rsign", activation="maxout")
ADABIN = Repair(binary_sets="adabin", activation="rprelu", activation_position="before-add")
LAYERS = (
    Layer("first", 4, 4, repair=Repair(padding="minus-one")),
    Layer("second", 4, 6, shortcut=False, repair=MAXOUT),
    Layer("third", 6, 6, 2, stage=1, repair=Repair(squeeze_excitation="se")),
    Layer("fourth", 6, 8, 1, stage=1, repair=ADABIN),
    Layer("fifth", 8, 8, 2, shortcut=False, stage=2),
    Layer("sixth", 8, 10, repair=Repair(downsample="conv1x1-8bit", scaling="spatial"), stage=2),
)
MIXED = NetworkSpec(
    input=(9, 8, 2), classes=3, layers=LAYERS, adabin_padding="zero",
    formats=NumberFormats(residual_fractions=(4, 3, 5)),
)  # fmt: skip
