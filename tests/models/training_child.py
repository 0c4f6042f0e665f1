"""A training in a process of its own, for tests: `python training_child.py OUT_DIR SETTINGS_AS_JSON`.

Prints a line after each step. Under torchrun it is one of several processes, and leaves its weights as
`OUT_DIR/rank<number>.safetensors`; a seed of 1000 + rank lets the first image of that process be not a number.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from models_source import BoxSource
from safetensors.torch import save_file

import models.train
from models.learner import Learner
from models.ranks import launched_rank
from models.sampling import Packed
from models.settings import ModelSettings, train_settings

MODEL = ModelSettings(classes=("spleen", "liver", "aorta"), patch=(16, 16, 16))


def main() -> None:
    out_dir, settings = Path(sys.argv[1]), train_settings(json.loads(sys.argv[2]))
    rank = launched_rank()
    learners = []
    if rank is not None:
        made = Learner.__init__

        def remembered(learner: Learner, *args: object) -> None:
            made(learner, *args)
            learners.append(learner)

        Learner.__init__ = remembered
        if settings.seed == 1000 + rank:
            real = Packed.unpack

            def poisoned(packed: Packed) -> object:
                batch = real(packed)
                batch.image[0, 0, 3, 4, 5] = float("nan")
                return batch

            Packed.unpack = poisoned
    models.train.train(BoxSource(), MODEL, settings, out_dir, lambda step, _: print(step, flush=True))
    for learner in learners:
        weights = {name: value.contiguous() for name, value in learner.network.state_dict().items()}
        save_file(weights, out_dir / f"rank{rank}.safetensors")


if __name__ == "__main__":
    main()
