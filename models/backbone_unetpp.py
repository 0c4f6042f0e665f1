"""`unetpp`: MONAI's UNet++ without its output blocks."""

from __future__ import annotations

import torch
from monai.networks.nets import BasicUNetPlusPlus
from torch import Tensor, nn

from models.backbone_base import Backbone

FEATURES = (32, 32, 64, 128, 256, 32)
OUTPUTS = ("final_conv_0_1", "final_conv_0_2", "final_conv_0_3", "final_conv_0_4")


class UNetPlusPlusBackbone(Backbone):
    """Nested skips at 32-32-64-128-256 channels (arXiv 1807.10165); 7 M parameters.

    Group norm in place of MONAI's instance norm, which has nothing to normalise where a small patch ends in one voxel.
    """

    deep_channels = FEATURES[4]
    last_channels = FEATURES[5]
    multiple = 16

    def __init__(self) -> None:
        super().__init__()
        self.network = BasicUNetPlusPlus(features=FEATURES, norm=("group", {"num_groups": 8}))
        for output in OUTPUTS:
            setattr(self.network, output, nn.Identity())  # their weights would never be trained

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, 256, X/16, Y/16, Z/16) and (B, 32, X, Y, Z) of `x` (B, 1, X, Y, Z)."""
        self.check_size(x)
        net = self.network
        x00 = net.conv_0_0(x)  # (B, 32, X, Y, Z)
        x10 = net.conv_1_0(x00)  # (B, 32, X/2, ...)
        x20 = net.conv_2_0(x10)  # (B, 64, X/4, ...)
        x30 = net.conv_3_0(x20)  # (B, 128, X/8, ...)
        deep = net.conv_4_0(x30)  # (B, 256, X/16, ...)
        x01 = net.upcat_0_1(x10, x00)  # (B, 32, X, ...)
        x11 = net.upcat_1_1(x20, x10)  # (B, 32, X/2, ...)
        x21 = net.upcat_2_1(x30, x20)  # (B, 64, X/4, ...)
        x31 = net.upcat_3_1(deep, x30)  # (B, 128, X/8, ...)
        x02 = net.upcat_0_2(x11, torch.cat([x00, x01], dim=1))  # (B, 32, X, ...)
        x12 = net.upcat_1_2(x21, torch.cat([x10, x11], dim=1))  # (B, 32, X/2, ...)
        x22 = net.upcat_2_2(x31, torch.cat([x20, x21], dim=1))  # (B, 64, X/4, ...)
        x03 = net.upcat_0_3(x12, torch.cat([x00, x01, x02], dim=1))  # (B, 32, X, ...)
        x13 = net.upcat_1_3(x22, torch.cat([x10, x11, x12], dim=1))  # (B, 32, X/2, ...)
        last = net.upcat_0_4(x13, torch.cat([x00, x01, x02, x03], dim=1))  # (B, 32, X, ...)
        return deep, last
