"""A training in a process of its own, for tests that kill it: `python training_child.py OUT_DIR SETTINGS_AS_JSON`.

Prints a line after each step. With LOCAL_RANK and the like in the environment it is one of several processes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from models_source import BoxSource

from models.settings import ModelSettings, train_settings
from models.train import train

MODEL = ModelSettings(classes=("spleen", "liver", "aorta"), patch=(16, 16, 16))


def main() -> None:
    out_dir, values = Path(sys.argv[1]), json.loads(sys.argv[2])
    train(BoxSource(), MODEL, train_settings(values), out_dir, lambda step, _: print(step, flush=True))


if __name__ == "__main__":
    main()
