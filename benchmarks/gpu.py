"""`gpu`: Swin UNETR on a GPU in one call; prints "no GPU" and ends where there is none.

1. Parameters and FLOPs of each backbone, the paper's efficiency figures.
2. Training much as the `paper` preset (batch 6, 96^3, bf16, 8 readers) from a lake of phantoms: time spent waiting.
3. With those weights, which give smooth masks: one window by the reference form and by ours, launched and replayed.
4. A whole scan of 300^3, overlap 0.5: ours in fp16 and bf16, 18 windows a pass, against the reference form in fp32
   (window batch 1, grouped convolutions, whole-volume logits), with the DSC between the masks.
`python -m benchmarks.gpu --small --device cpu` runs all of it on tiny volumes, to see that it works.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module


def main(arguments: list[str] | None = None) -> None:
    """Run every part; `arguments` as in the module's text."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu")
    parser.add_argument("--small", action="store_true", help="tiny volumes")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--steps", type=int, help="of the training; more of them give smoother masks")
    parser.add_argument("--compile", action="store_true", help="also torch.compile, which takes minutes to build")
    chosen = parser.parse_args(arguments or [])
    if chosen.device == "cuda" and not import_module("torch").cuda.is_available():
        print("no GPU")
        return
    data = import_module("benchmarks.gpu_data")
    base = data.SMALL if chosen.small else data.FULL
    scale = data.Scale(**{**vars(base), "device": chosen.device, "steps": chosen.steps or base.steps})
    began = time.perf_counter()
    # Late, so that the processes which draw and read, and import this module again, are quickly at work.
    import_module("benchmarks.gpu_parts").run(scale, chosen.compile)
    print(f"all in {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
