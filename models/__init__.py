"""The universal model: network, text branch, masked loss, sampling, training, checkpoints, inference."""

from models import torchvision_shim as torchvision_shim  # first: makes MONAI, open_clip and Lightning importable
