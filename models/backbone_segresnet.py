"""`segresnet`: MONAI's SegResNet without its output block."""

from __future__ import annotations

from monai.networks.nets import SegResNet
from torch import Tensor, nn

from models.backbone_base import Backbone

FEATURES = 32


class SegResNetBackbone(Backbone):
    """Residual blocks at 32-64-128-256 channels, 1-2-2-4 of them going down (arXiv 1810.11654); 19 M parameters.

    The upsampling is a transposed convolution: that of trilinear interpolation has no gradient on a GPU that is the
    same twice, and a resumed training must equal an unbroken one.
    """

    deep_channels = 8 * FEATURES
    last_channels = FEATURES
    multiple = 8

    def __init__(self) -> None:
        super().__init__()
        self.network = SegResNet(
            init_filters=FEATURES, out_channels=1, use_conv_final=False, upsample_mode="deconv", blocks_up=(1, 1, 1)
        )
        self.network.conv_final = nn.Identity()  # its weights would never be trained

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, 256, X/8, Y/8, Z/8) and (B, 32, X, Y, Z) of `x` (B, 1, X, Y, Z)."""
        self.check_size(x)
        deep, downs = self.network.encode(x)  # (B, 256, X/8, ...); (B, 32, X, ...) to (B, 256, X/8, ...)
        return deep, self.network.decode(deep, downs[::-1])
