"""What a training minimises: labels, a teacher, and terms for the latent weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnhw.errors import UserError
from bnnhw.nn.resnet import BinaryResNet

TEMPERATURE = 4.0
EVEN_SPREAD = 1.8  # the kurtosis of a uniform distribution


def objective(
    model: BinaryResNet, logits: Tensor, labels: Tensor, *, taught: Tensor | None = None,
    maps: Sequence[Tensor] | None = None, teacher_maps: Sequence[Tensor] | None = None,
    distil: float = 0.0, regulariser: Penalty | None = None, penalty: float = 0.0,
) -> Tensor:  # fmt: skip
    """Returns the loss of one batch, a scalar of float32.

    logits : float32 (B, classes). labels : int64 (B,).
    taught : a teacher's logits (B, classes): loss = (1 - distil) * labels' + distil * teacher's.
    maps, teacher_maps : streams after each stage; distil * their attention loss is added.
    regulariser, penalty : the term for the latent weights, and its weight.
    """
    loss = F.cross_entropy(logits.float(), labels)
    if taught is not None:
        loss = (1 - distil) * loss + distil * distillation(logits, taught)
    if maps is not None and teacher_maps is not None:
        loss = loss + distil * attention(maps, teacher_maps)
    if regulariser is not None and penalty:
        loss = loss + penalty * regulariser(model.latent_weights())
    return loss


def distillation(logits: Tensor, taught: Tensor) -> Tensor:
    """Returns the KL divergence of softened predictions from the teacher's (arXiv:1503.02531).

    It is multiplied by the temperature's square, so that its gradients are as large as the labels'.
    """
    soft = F.log_softmax(logits.float() / TEMPERATURE, 1)
    target = F.log_softmax(taught.float() / TEMPERATURE, 1)
    divergence = F.kl_div(soft, target, reduction="batchmean", log_target=True)
    return divergence * TEMPERATURE**2


def attention(maps: Sequence[Tensor], teacher_maps: Sequence[Tensor]) -> Tensor:
    """Returns how far attention maps (B, C, H, W) are from a teacher's (arXiv:2003.11535).

    An attention map is the sum of squares over the channels, scaled to length 1 for each image. The
    squared distances are summed over the stages and averaged over the images. Channels may differ.
    """
    total = torch.zeros((), device=maps[0].device)
    for stage, (mine, theirs) in enumerate(zip(maps, teacher_maps, strict=True)):
        if mine.shape[2:] != theirs.shape[2:]:
            raise UserError(
                f"the teacher's maps after stage {stage} are {tuple(theirs.shape[2:])}, the "
                f"network's {tuple(mine.shape[2:])}: attention needs a teacher of the same stages"
            )
        distance = _attention_map(mine) - _attention_map(theirs)
        total = total + distance.square().sum(1).mean()
    return total


def _attention_map(stream: Tensor) -> Tensor:
    """Returns (B, C, H, W) as (B, H * W), each row of length 1."""
    return F.normalize(stream.float().square().sum(1).flatten(1))


def kurtosis(weights: Tensor) -> Tensor:
    """Returns the fourth central moment of all elements over the square of their variance."""
    centred = weights - weights.mean()
    return centred.pow(4).mean() / centred.square().mean().square()


class Penalty(nn.Module):
    """The term for latent weights that a model's repair.regularization names.

    l2        the sum of all squares
    r1, r2    the sum of |a - |w||, or of its square, over all weights (BNN+, arXiv:1812.11800);
              a is a parameter of each tensor, mean |w| at first
    kurtosis  (kurtosis - 1.8)^2, averaged over the tensors (arXiv:2204.02004)
    none      0
    """

    def __init__(self, model: BinaryResNet) -> None:
        super().__init__()
        self.kind = model.spec.repair.regularization
        scales = []
        if self.kind in ("r1", "r2"):
            scales = [weights.detach().abs().mean() for weights in model.latent_weights()]
        self.scales = nn.ParameterList(nn.Parameter(scale) for scale in scales)

    def forward(self, latent: Sequence[Tensor]) -> Tensor:
        """Returns a scalar. latent : the latent weights, in the order of `latent_weights`."""
        if self.kind == "l2":
            terms = [weights.square().sum() for weights in latent]
        elif self.kind in ("r1", "r2"):
            pairs = zip(self.scales, latent, strict=True)
            distances = [(scale - weights.abs()) for scale, weights in pairs]
            power = 1 if self.kind == "r1" else 2
            terms = [distance.abs().pow(power).sum() for distance in distances]
        elif self.kind == "kurtosis":
            terms = [(kurtosis(weights) - EVEN_SPREAD).square() / len(latent) for weights in latent]
        else:
            return latent[0].new_zeros(())
        return torch.stack(terms).sum()
