"""After `import models`, everything that imports torchvision imports."""

from __future__ import annotations

import subprocess
import sys


def test_torchvision_and_its_users_import_in_a_fresh_process():
    code = "import models, torchvision, open_clip; from lightning.fabric import Fabric; print(torchvision.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_installing_twice_is_harmless():
    from models import torchvision_shim

    assert torchvision_shim.install() is False
