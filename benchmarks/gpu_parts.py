"""The parts of the `gpu` benchmark: FLOPs, training, one window, a whole scan."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_data import Scale, one_more, phantoms
from benchmarks.reference import ReferenceModel
from benchmarks.side_by_side import record
from imaging.bits import Bits, get_channel
from models.backbones import BACKBONES, build_backbone
from models.checkpoint import load_model
from models.half_ops import in_two
from models.infer import Predictor
from models.infer_network import halved
from models.infer_scan import ArrayScan
from models.infer_windows import gaussian_weight, window_starts
from models.replay import Recorder
from models.sampling import window_hu
from models.settings import ModelSettings, Precision, load_preset
from models.train import train
from models.universal import UniversalModel

PEAK_TFLOPS = {"H200": 989.0, "H100 PCIe": 756.0, "H100": 989.0, "A100": 312.0}
"""Dense bf16, from NVIDIA's data sheets."""
OVERLAP = 0.5


def run(scale: Scale, compiled: bool) -> None:
    """Run every part."""
    if scale.cuda:
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, TF32 convolutions allowed: "
              f"{torch.backends.cudnn.allow_tf32}, TF32 products: {torch.backends.cuda.matmul.allow_tf32}")  # fmt: skip
    flops = _efficiency(scale)
    with tempfile.TemporaryDirectory() as folder:
        _learnt(scale, Path(folder), flops, compiled)


def _efficiency(scale: Scale) -> float:
    """Print parameters and FLOPs of the backbones; return FLOPs of a window of the scale's, with the head."""
    found = 0.0
    for name in BACKBONES:
        try:
            backbone = build_backbone(name).to("meta")
            x = torch.empty(1, 1, *[scale.patch] * 3, device="meta")
            alone = _flops(lambda: backbone(x))  # noqa: B023
            # 1x1x1 layers to 8 channels, then 8-8-8-1 for each of 32 classes
            whole = alone + 2 * scale.patch**3 * (backbone.last_channels * 8 + 32 * (64 + 64 + 8))
        except Exception as error:  # one that cannot be counted without numbers must not end the run
            print(f"{name}: not counted ({type(error).__name__}: {error})")
            continue
        millions = sum(p.numel() for p in backbone.parameters()) / 1e6
        print(f"{name:<14} {millions:7.2f} M parameters  {alone / 1e9:8.1f} GFLOPs a {scale.patch}^3 patch, "
              f"{whole / 1e9:8.1f} with the head of 32 classes")  # fmt: skip
        if name == scale.backbone:
            found = whole
    return found


def _flops(run: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def _learnt(scale: Scale, folder: Path, flops: float, compiled: bool) -> None:
    checkpoint = train_briefly(scale, folder)
    model, metadata = load_model(checkpoint, scale.device)
    reference = ReferenceModel(metadata.model.backbone).to(scale.device).eval()
    reference.load_state_dict(model.state_dict())
    _windows(scale, model, reference)
    _scan(scale, model, metadata.model, reference, flops, "gpu scan")
    if compiled:
        model.backbone.compile()
        _scan(scale, model, metadata.model, reference, flops, "gpu compiled")


def train_briefly(scale: Scale, folder: Path) -> Path:
    """Train, print the share of time that the last steps waited for patches, and return the checkpoint."""
    source = phantoms(scale, folder)
    preset = load_preset(
        "paper",
        model={
            "backbone": scale.backbone,
            "text_encoder": "hashing",
            "patch": [scale.patch] * 3,
            "classes": list(scale.classes),
        },
        train={
            "steps": scale.steps,
            "batch": scale.batch,
            "warmup": 10,
            "balance": 0.1,
            "save_every": 0,
            "readers": scale.readers,
            "zoom_datasets": ["bench"],
            "device": scale.device,
            "precision": "bf16-mixed" if scale.cuda else "32-true",
        },
    )
    if scale.cuda:
        torch.cuda.reset_peak_memory_stats()
    seen: list[dict[str, float]] = []
    began = time.perf_counter()

    def told(step: int, rates: dict[str, float]) -> None:
        seen.append(rates)
        if step == 1 or step % 10 == 0:
            print(f"step {step}: loss {rates['loss']:.3f}, {time.perf_counter() - began:.1f} s", flush=True)

    result = train(source, preset.model, preset.train, folder / "run", on_step=told)
    gb = torch.cuda.max_memory_allocated() / 1e9 if scale.cuda else float("nan")
    last = seen[-1]  # rates over the last steps, when the readers have long started
    print(f"training: {result.steps} steps in {time.perf_counter() - began:.1f} s with the start of readers; "
          f"loss {seen[0]['loss']:.3f} to {last['loss']:.3f}; {gb:.1f} GB")  # fmt: skip
    print(f"training: {scale.batch / last['patches_per_s']:.3f} s a step of {scale.batch} patches, data wait "
          f"{100 * last['data_wait_share']:.2f} % of the time", flush=True)  # fmt: skip
    return result.checkpoint


@torch.inference_mode()
def _windows(scale: Scale, model: UniversalModel, reference: ReferenceModel) -> None:
    """Print the time of one window in each form."""
    x = torch.rand(scale.windows, 1, *[scale.patch] * 3, device=scale.device)
    print(f"window: reference, fp32       {_milliseconds(lambda: reference(x[:1]), scale):8.2f} ms", flush=True)
    if scale.cuda:
        torch.backends.cudnn.allow_tf32 = False
        print(f"window: reference, no TF32    {_milliseconds(lambda: reference(x[:1]), scale):8.2f} ms", flush=True)
        torch.backends.cudnn.allow_tf32 = True
    halves = (torch.bfloat16, torch.float16) if scale.cuda else (torch.bfloat16,)  # a CPU's float16 is emulated
    for half, count in itertools.product(halves, (1, scale.windows)):
        twin, recorder, label = halved(model, half), Recorder(), f"window: ours, {half}, batch {count}"
        part = in_two(x[:count], half)
        each = _milliseconds(lambda: twin(part), scale) / count  # noqa: B023
        body = _milliseconds(lambda: twin.backbone(part), scale) / count  # noqa: B023
        print(f"{label}: {each:8.2f} ms, of which the backbone {body:8.2f}")
        if scale.cuda:
            replayed = _milliseconds(lambda: recorder.run(twin, part, "window"), scale) / count  # noqa: B023
            print(f"{label}, replayed: {replayed:8.2f} ms", flush=True)


def _milliseconds(run: Callable[[], Any], scale: Scale) -> float:
    times = []
    for _ in range(6 if scale.cuda else 2):
        times.append(_seconds(run, scale)[0])
    return 1000 * statistics.median(times[len(times) // 2 :])


def _seconds(run: Callable[[], Any], scale: Scale) -> tuple[float, Any]:
    if scale.cuda:
        torch.cuda.synchronize()
    began = time.perf_counter()
    result = run()
    if scale.cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began, result


def _scan(
    scale: Scale, model: UniversalModel, settings: ModelSettings, reference: ReferenceModel, flops: float, name: str
) -> None:
    """Print and record the time of a whole scan by both forms, memory, share of peak and agreement."""
    image, truth = one_more(scale)

    def peer() -> NDArray[np.bool_]:
        return _reference_masks(reference, image, settings, scale)

    theirs_s, theirs_gb, theirs = _measured(peer, scale, 1)
    strict_s = theirs_s
    if scale.cuda:
        torch.backends.cudnn.allow_tf32 = False  # PyTorch lets convolutions round to TF32 unless told not to
        strict_s, _, theirs = _measured(peer, scale, 1)
        torch.backends.cudnn.allow_tf32 = True
    drawn = np.stack([get_channel(truth, channel) for channel in settings.channels])
    windows = len(window_starts(scale.scan, scale.patch, OVERLAP)) ** 3
    peak = next((v for k, v in PEAK_TFLOPS.items() if scale.cuda and k in torch.cuda.get_device_name()), float("nan"))
    halves: tuple[Precision, ...] = ("16-mixed", "bf16-mixed") if scale.cuda else ("32-true",)
    for precision in halves:
        label = f"{name}, bf16" if precision == "bf16-mixed" else name
        predictor = Predictor(
            model, settings, overlap=OVERLAP, batch=scale.windows, device=scale.device, precision=precision
        )

        def ours(predictor: Predictor = predictor) -> Bits:
            return predictor.predict(ArrayScan(image)).bits

        print(f"{label}: {_seconds(ours, scale)[0]:.2f} s for the first scan, with what is built and recorded once")
        ours_s, ours_gb, bits = _measured(ours, scale, 5)
        if scale.cuda:
            record(label, ours_s, theirs_s, "s")
            record(f"{label} memory", ours_gb, theirs_gb, "GB")
            record(f"{label}, no TF32", ours_s, strict_s, "s")
        achieved = windows * flops / ours_s / 1e12
        print(f"{label}: {windows} windows, {achieved:.1f} TFLOP/s, {100 * achieved / peak:.1f} % of the card's peak")
        masks = np.stack([get_channel(bits, channel) for channel in settings.channels])
        for pair, others in (("both masks", theirs), ("our masks and the truth", drawn)):
            for line in dice_lines(masks, others, settings.classes):
                print(f"{label}, {pair}: {line}", flush=True)


def dice_lines(masks: NDArray[np.bool_], others: NDArray[np.bool_], classes: Sequence[str]) -> list[str]:
    """Return in words how far both masks (C, X, Y, Z) of a scan agree."""
    both, sizes = (masks & others).sum((1, 2, 3)), masks.sum((1, 2, 3)) + others.sum((1, 2, 3))
    dice = {classes[i]: float(2 * both[i] / sizes[i]) for i in range(len(sizes)) if sizes[i]}
    lowest = min(dice.items(), key=lambda found: found[1], default=None)
    overall, mean = 2 * both.sum() / max(sizes.sum(), 1), np.mean(list(dice.values()) or [np.nan])
    return [
        f"DSC {overall:.5f} over all {int(others.sum())} voxels",
        f"{mean:.5f} is the mean DSC of {len(dice)} classes found, lowest {lowest}",
    ]


def _measured(run: Callable[[], Any], scale: Scale, repeats: int) -> tuple[float, float, Any]:
    """Return the median seconds of `repeats` runs, the peak of GPU memory in GB and the result."""
    if scale.cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(repeats):
        seconds, result = _seconds(run, scale)
        times.append(seconds)
    # reserved, since what a replayed pass works in is not counted as allocated
    gb = torch.cuda.max_memory_reserved() / 1e9 if scale.cuda else float("nan")
    return statistics.median(times), gb, result


@torch.inference_mode()
def _reference_masks(
    reference: ReferenceModel, image: NDArray[Any], settings: ModelSettings, scale: Scale
) -> NDArray[np.bool_]:
    """Return masks (C, X, Y, Z): one window after another in fp32, logits of the whole scan kept, then thresholded.

    The windows lie where ours do. MONAI's sliding window does the same sums, and more copies.
    """
    values = window_hu(np.ascontiguousarray(image), settings.hu_window).to(scale.device)
    weight = gaussian_weight(settings.patch, device=scale.device)
    total = torch.zeros(len(settings.classes), *image.shape, device=scale.device)
    count = torch.zeros(image.shape, device=scale.device)
    starts = [window_starts(n, p, OVERLAP) for n, p in zip(image.shape, settings.patch, strict=True)]
    for corner in itertools.product(*starts):
        box = tuple(slice(s, s + p) for s, p in zip(corner, settings.patch, strict=True))
        logits: Tensor = reference(values[box][None, None])[0]
        total[(slice(None), *box)] += logits * weight
        count[box] += weight
    total /= count
    masks: NDArray[np.bool_] = (total.sigmoid() > 0.5).cpu().numpy()
    return masks
