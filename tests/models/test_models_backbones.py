"""What every backbone promises, asked of each of them."""

from __future__ import annotations

import pytest
import torch

from models.backbone_base import Backbone
from models.backbones import BACKBONES, build_backbone

# One of the two Swin UNETRs is enough: they differ in a merging without weights of its own (see the parity tests).
EACH = [name for name in BACKBONES if name != "swinunetr_v09"]


@pytest.fixture(scope="module", params=EACH)
def backbone(request):
    torch.manual_seed(0)
    return build_backbone(request.param)


def smallest(backbone, batch=1):
    """Images of the smallest size that leaves two voxels in the deepest features, which some norms need."""
    torch.manual_seed(1)
    return torch.rand(batch, 1, backbone.multiple, 2 * backbone.multiple, backbone.multiple)


def test_channels_fit_the_model(backbone):
    assert isinstance(backbone, Backbone)
    assert backbone.deep_channels % 16 == 0
    assert backbone.last_channels % 16 == 0


def test_features_are_as_promised_and_a_batch_of_windows_gives_what_single_windows_give(backbone):
    x = smallest(backbone, batch=2)
    with torch.no_grad():
        together, alone = backbone.eval()(x), backbone(x[1:])
    deep, last = together
    assert deep.shape == (2, backbone.deep_channels, 1, 2, 1)  # `multiple` is no larger than the network asks for
    assert last.shape == (2, backbone.last_channels, *x.shape[2:])
    for ours, theirs in zip(together, alone, strict=True):
        # in the mean: a norm over two voxels that are nearly alike enlarges the rounding of a few
        assert float((ours[1] - theirs[0]).abs().mean()) < 1e-3 * float(theirs.std())


def test_gradients_reach_every_parameter(backbone):
    backbone.train().zero_grad()
    sum((part * torch.randn_like(part)).sum() for part in backbone(smallest(backbone))).backward()
    unreached = [name for name, value in backbone.named_parameters() if value.grad is None or not value.grad.any()]
    assert unreached == []


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_patch_that_cannot_be_halved_is_refused_with_the_numbers(backbone, axis):
    size = [2 * backbone.multiple] * 3
    size[axis] += backbone.multiple // 2
    expected = rf"patch \({size[0]}, {size[1]}, {size[2]}\), every size must be a multiple of {backbone.multiple}"
    with pytest.raises(ValueError, match=expected):
        backbone(torch.rand(1, 1, *size))


def test_unknown_backbone_lists_the_nearest_and_all():
    with pytest.raises(KeyError, match=r"nearest: segresnet, .*known: tiny, unet, swinunetr"):
        build_backbone("resnet")
