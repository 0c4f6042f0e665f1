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
        yield "models.head_triton._head", head, {"SIZE": 1024}
        yield "models.norm_triton._sums", {"x": pointer, "into": "*fp32"}, {**NORM, "ROW": 64, "STEPS": 16}
        for norm, out in ((True, "*fp32"), (False, "*fp64")):
            given = {
                "sums": "*fp32",
                "eps": "fp32",
                "one": out,
                "two": out,
                **dict.fromkeys(("x", "weight", "bias"), pointer),
            }
            switches = dict.fromkeys(("NORM", "WEIGHT", "BIAS"), norm)
            yield "models.norm_triton._finish", given, {"CHANNELS": 48, "ROW": 64, "BLOCK": 16, "PARTS": 64, **switches}
        scaling = dict.fromkeys(("scale", "shift", "other_scale", "other_shift"), "*fp32")
        for other, beside in ((0, 64), (1, 48), (2, 48), (2, 1)):
            maps = dict.fromkeys(("x", "into", "other"), pointer)
            rows = {"ROW": 64, "INTO": 48, "BESIDE": beside, "OTHER": other}
            yield "models.norm_triton._apply", {**maps, **scaling, "slope": "fp32"}, {**NORM, **rows}
        maps = dict.fromkeys(("x", "y", "weight", "bias", "into", "total"), pointer)
        tokens = {**maps, "index": "*i32", "eps": "fp32"}
        for indexed in (True, False):
            yield "models.token_triton._norm", tokens, {**NORM, "INDEXED": indexed, "AFFINE": indexed}
        yield "models.token_triton._add_norm", tokens, NORM
        yield from big_cases(pointer)


def big_cases(pointer):
    """Yield those of whole maps and of Swin blocks, for maps of type `pointer`."""
    first = {"NX": 96, "NY": 96, "NZ": 96, "OUTPUTS": 48, "WIDTH": 64, "TALL": 64, "VOXELS": 128}
    maps = dict.fromkeys(("x", "weight", "bias", "into"), pointer)
    for parts, taps in ((2, 64), (1, 32)):
        constants = {**first, "PARTS": parts, "TAPS": taps, "BIASED": parts == 2}
        yield "models.map_triton._convolve_first", maps, constants
    attention = {**dict.fromkeys(("qkv", "bias", "into"), pointer), "regions": "*i32", "scale": "fp32", "far": "fp32"}
    for masked in (True, False):
        tiles = {"MASKED": masked, "LONG": 512, "D": 16, "QUERIES": 64, "KEYS": 32}
        yield "models.attention_triton._attend", attention, tiles
    joined = {"GROWN": 48, "SKIPPED": 48, "WIDTH": 96, "PIECES": 512}
    yield "models.map_triton._join", dict.fromkeys(("fine", "skip", "into"), pointer), joined
    names = (
        "x",
        "attended",
        "weight",
        "bias",
        "norm_weight",
        "norm_bias",
        "weight1",
        "bias1",
        "weight2",
        "bias2",
        "into",
    )
    layers = {**dict.fromkeys(names, pointer), "index": "*i32", "eps": "fp32"}
    for channels, width in ((48, 64), (96, 128)):
        tokens = {"CHANNELS": channels, "WIDTH": width, "ROWS": 64}
        yield "models.swin_triton._before", layers, {**tokens, "BIAS": True}
        yield "models.swin_triton._after", layers, {**tokens, "HIDDEN": 4 * channels, "CHUNK": 64}


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("name", "types", "constants"), list(cases()))
def test_a_kernel_is_built(name, types, constants, capability):
    module, _, function = name.rpartition(".")
    kernel = getattr(import_module(module), function)
    signature = {key: "constexpr" if key in constants else types.get(key, "i32") for key in kernel.arg_names}
    made = build(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", capability, 32))
    assert made.asm["cubin"]
