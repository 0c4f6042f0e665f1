"""The partial-label loss: binary cross-entropy and Dice over the classes somebody annotated, and over nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

SMOOTH = 1.0
"""Voxels added to both sides of the Dice ratio: an annotated, absent class predicted absent has loss 0."""
OUTSIDE = -1e4
"""The logit given to padding: its probability and its cross-entropy are exactly 0."""

TINY = 1e-12
"""A sum of class weights below this counts as none."""


@dataclass(frozen=True)
class LossParts:
    """The loss by part, detached, on the device of the loss: reading them is what waits for it.

    bce, dice: scalars. pairs: (P, 2), sample and class of each annotated pair. pair_loss: (P,).
    """

    bce: Tensor
    dice: Tensor
    pairs: Tensor
    pair_loss: Tensor


def masked_loss(
    logits: Tensor,
    target: Tensor,
    annotated: Tensor,
    valid: Tensor | None = None,
    *,
    class_weights: Tensor | None = None,
    pair_weights: Tensor | None = None,
    bce_weight: float = 1.0,
    dice_weight: float = 1.0,
    balance: float = 0.0,
) -> tuple[Tensor, LossParts]:
    """Return the mean over annotated (sample, class) pairs of BCE + (1 - Dice), and its parts.

    logits: (B, C, X, Y, Z). target: the same shape, 0/1 or bool. annotated: (B, C) bool; False: nobody looked, the pair
    gets exactly zero gradient, whatever its target holds. True with an empty target: a negative. valid: (B, 1, X, Y, Z)
    bool, False in padding, which counts nowhere; None: everything is valid.
    class_weights: (C,), 0 or more, relative to each other. pair_weights: (B, C), 0 or more, 1: as somebody's own
    drawing counts. They scale what a pair adds and not the others': a batch of nothing but pairs of weight 0.5 has
    half the gradient.
    balance: 0 is the published BCE, where each voxel weighs the same; 1 lets the voxels of a class weigh as much as all
    others of its patch together. A small organ then has a gradient before Dice notices it.
    No annotated pair: a zero loss that still has a (zero) gradient. Raises ValueError on shapes that disagree.
    """
    if target.shape != logits.shape or annotated.shape != logits.shape[:2]:
        raise ValueError(
            f"logits {tuple(logits.shape)}, target {tuple(target.shape)}, annotated {tuple(annotated.shape)}: "
            "expected (B, C, X, Y, Z) twice and (B, C)"
        )
    pairs = annotated.nonzero()  # (P, 2)
    if len(pairs) == 0:
        return logits[..., :0].sum(), LossParts(logits.new_zeros(()), logits.new_zeros(()), pairs, logits.new_zeros(0))
    chosen = logits[pairs[:, 0], pairs[:, 1]].flatten(1).float()  # (P, V)
    truth = target[pairs[:, 0], pairs[:, 1]].flatten(1).to(chosen.dtype)  # (P, V)
    inside = None if valid is None or bool(valid.all()) else valid[:, 0].flatten(1)[pairs[:, 0]]  # (P, V)
    bce, dice = _pair_losses(chosen, truth, inside, balance)  # (P,), (P,)
    weights = torch.ones_like(bce) if class_weights is None else class_weights.to(bce)[pairs[:, 1]]
    weights = weights / weights.sum().clamp(min=TINY)  # (P,), their sum is 1, or 0 where no pair weighs anything
    if pair_weights is not None:
        weights = weights * pair_weights[pairs[:, 0], pairs[:, 1]].to(weights)
    each = bce_weight * bce + dice_weight * dice
    loss = (each * weights).sum()
    parts = LossParts((bce.detach() * weights).sum(), (dice.detach() * weights).sum(), pairs, each.detach())
    return loss, parts


def _pair_losses(logits: Tensor, truth: Tensor, inside: Tensor | None, balance: float) -> tuple[Tensor, Tensor]:
    """Return the BCE and the Dice loss (P,), (P,) of logits and truth (P, V), over `inside` (P, V) voxels only."""
    if inside is None:
        voxels = torch.full((len(logits),), logits.shape[1], device=logits.device)
    else:
        voxels = inside.sum(1).clamp(min=1)
        # where, not a product: a padding voxel's logit may be anything, and 0 * inf is not 0
        logits = torch.where(inside, logits, torch.full_like(logits, OUTSIDE))
        truth = torch.where(inside, truth, torch.zeros_like(truth))
    present = truth.sum(1)
    # extra weight of a positive voxel, on top of 1; none where the class is absent
    extra = torch.where(present > 0, balance * ((voxels - present) / present.clamp(min=1) - 1), 0.0).clamp(min=0)
    bce, dice = _BceDice.apply(logits, truth, extra)  # type: ignore[no-untyped-call]
    return bce / voxels, 1 - dice


class _BceDice(torch.autograd.Function):
    """Summed BCE (P,) and soft Dice (P,) of logits and truth (P, V); of the sums only the probability is kept.

    extra: (P,), what a positive voxel weighs in the BCE beyond 1.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, truth: Tensor, extra: Tensor) -> tuple[Tensor, Tensor]:
        prob = logits.sigmoid()
        each = functional.softplus(logits) - logits * truth
        bce = each.sum(1) + extra * torch.linalg.vecdot(each, truth)
        overlap = torch.linalg.vecdot(prob, truth)
        total = prob.sum(1) + truth.sum(1) + SMOOTH
        dice = (2 * overlap + SMOOTH) / total
        ctx.save_for_backward(prob, truth, dice, total, extra)
        return bce, dice

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        prob, truth, dice, total, extra = ctx.saved_tensors
        # d dice / d prob = (2 truth - dice) / total, d prob / d logit = prob (1 - prob), d bce / d logit = prob - truth
        scale = (gradients[1] / total).unsqueeze(1)  # (P, 1)
        into = (2 * truth - dice.unsqueeze(1)).mul_(scale).mul_(prob).mul_(1 - prob)
        into += (prob - truth).mul_(gradients[0].unsqueeze(1)).mul_(1 + extra.unsqueeze(1) * truth)
        return into, None, None
