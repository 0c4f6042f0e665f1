"""Every Triton kernel is built to machine code for GPUs that are not there; `triton_child.py` sees what it computes."""

from __future__ import annotations

from importlib import import_module

import pytest

pytest.importorskip("triton", reason="Triton is not installed; it comes with the CUDA builds of PyTorch")
from triton import compile as build
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

HALVES = ("fp16", "bf16")
NORM = {"CHANNELS": 48, "WIDTH": 64, "ROWS": 64}
SLAB = {
    **dict.fromkeys(("logits", "sums"), "*fp32"),
    **dict.fromkeys(("firsts", "rows", "masks", "words", "counts"), "*i32"),
    **dict.fromkeys(("of_class", "of_x", "of_y", "of_z", "of_word", "word_x", "word_y", "word_z"), "i64"),
}


def cases():
    """Yield kernel, types of what is neither int32 nor a constant, and constants."""
    for name in ("_threshold", "_entropy"):
        yield f"models.slab_triton.{name}", SLAB, {"SIZE": 1024}
    for half in HALVES:
        pointer = f"*{half}"
        head = {"features": pointer, "parameters": "*fp32", "logits": "*fp32"}
        yield "models.head_triton._head", head, {"SIZE": 512}
        yield "models.norm_triton._sums", {"x": pointer, "into": "*fp32"}, {**NORM, "STEPS": 16}
        scaling = dict.fromkeys(("scale", "shift", "other_scale", "other_shift"), "*fp32")
        for other in (0, 1, 2):
            maps = dict.fromkeys(("x", "into", "other"), pointer)
            yield "models.norm_triton._apply", {**maps, **scaling, "slope": "fp32"}, {**NORM, "OTHER": other}
        maps = dict.fromkeys(("x", "y", "weight", "bias", "into", "total"), pointer)
        tokens = {**maps, "index": "*i32", "eps": "fp32"}
        for indexed in (True, False):
            yield "models.token_triton._norm", tokens, {**NORM, "INDEXED": indexed, "AFFINE": indexed}
        yield "models.token_triton._add_norm", tokens, NORM
        tall = {"INPUTS": 48, "OUTPUTS": 48, "WIDTH": 64, "VOXELS": 128, "LONG": 64, "WHOLE": 128, "REST": 16}
        maps = dict.fromkeys(("x", "weight", "into"), pointer)
        yield "benchmarks.gpu_convolution_triton._convolve", maps, tall


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("name", "types", "constants"), list(cases()))
def test_a_kernel_is_built(name, types, constants, capability):
    module, _, function = name.rpartition(".")
    kernel = getattr(import_module(module), function)
    signature = {key: "constexpr" if key in constants else types.get(key, "i32") for key in kernel.arg_names}
    made = build(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", capability, 32))
    assert made.asm["cubin"]
