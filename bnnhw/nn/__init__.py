"""The trainable side: with bnnhw.training the only wings that know autograd."""

from bnnhw.nn.resnet import BinaryResNet
from bnnhw.nn.untrained import untrained

__all__ = ["BinaryResNet", "untrained"]
