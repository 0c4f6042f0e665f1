"""Training in two processes: each sees batches of its own, and both end with the weights of the mean gradient."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from models_source import BoxSource
from safetensors.torch import load_file
from training_child import MODEL

from models.loss import masked_loss
from models.sampling import PatchSampler
from models.settings import train_settings
from models.train import FINAL, LAST
from models.universal import build_model

CHILD = Path(__file__).with_name("training_child.py")
SETTINGS = {
    "steps": 1,
    "batch": 2,
    "lr": 1e-3,
    "warmup": 0,
    "clip_norm": 0.5,
    "ema": 0.5,
    "device": "cpu",
    "threads": 1,
}


def in_two_processes(out_dir: Path, **values: object) -> subprocess.CompletedProcess[str]:
    """Train under torchrun; each process leaves its weights in `rank<number>.safetensors`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*torchrun, str(CHILD), str(out_dir), json.dumps({**SETTINGS, **values})],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_two_processes_step_by_their_mean_gradient(tmp_path):
    result = in_two_processes(tmp_path)
    assert result.returncode == 0, result.stderr
    settings = train_settings(SETTINGS)
    sampler = PatchSampler(BoxSource(), MODEL, settings)
    torch.manual_seed(settings.seed)
    network = build_model(MODEL).train()
    batches = [sampler.batch(0, rank) for rank in (0, 1)]
    assert not torch.equal(batches[0].image, batches[1].image)
    for batch in batches:
        logits = network(batch.image, batch.classes, batch.annotated)
        (masked_loss(logits, batch.target, batch.annotated, batch.valid)[0] / 2).backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm)
    found = load_file(tmp_path / LAST)
    # AdamW's first moment is a tenth of the gradient; the weights themselves say little of its size
    for number, (name, parameter) in enumerate(network.named_parameters()):
        moment = found[f"state.{number}.exp_avg"]
        assert torch.allclose(moment, 0.1 * parameter.grad, rtol=1e-3, atol=1e-6), name
    ranks = [load_file(tmp_path / f"rank{rank}.safetensors") for rank in (0, 1)]
    for name, value in ranks[0].items():
        assert torch.equal(value, ranks[1][name]), name
    assert (tmp_path / FINAL).is_file()
    assert result.stdout.split() == ["1"]  # the first process alone reports


@pytest.mark.parametrize("poisoned", [0, 1])
def test_a_value_that_is_not_finite_ends_every_process_and_names_it(tmp_path, poisoned):
    result = in_two_processes(tmp_path, seed=1000 + poisoned)  # the child poisons the image of that rank
    assert result.returncode != 0
    assert result.stderr.count("TrainingDiverged: step 1: the image is not finite in box/") == 2
    assert not (tmp_path / LAST).exists()
