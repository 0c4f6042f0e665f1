"""A training killed at any step goes on as if nothing had happened, to the last bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import torch
from models_source import BoxSource
from safetensors.torch import load_file
from training_child import MODEL

from models.settings import train_settings
from models.train import FINAL, LAST, train

CHILD = Path(__file__).with_name("training_child.py")
STEPS = 20
SETTINGS = {
    "steps": STEPS,
    "batch": 2,
    "accumulate": 2,
    "ema": 0.9,
    "save_every": 3,
    "warmup": 4,
    "lr": 3e-3,
    "device": "cpu",
    "threads": 1,
}


def killed_after(step: int, out_dir: Path) -> None:
    """Train in a process of its own, and kill that once it has reported `step`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(CHILD), str(out_dir), json.dumps(SETTINGS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.strip() == str(step):
                child.kill()
                break
    assert child.returncode == -signal.SIGKILL


def same(one: Path, other: Path) -> None:
    expected, found = load_file(one), load_file(other)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


def test_a_killed_training_ends_with_the_same_bits(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    step = random.randrange(4, STEPS - 3)
    killed_after(step, parts)
    threads = torch.get_num_threads()
    try:
        rest = train(BoxSource(), MODEL, train_settings(SETTINGS), parts)
        train(BoxSource(), MODEL, train_settings(SETTINGS), whole)
    finally:
        torch.set_num_threads(threads)
    # the checkpoint is at most `save_every` steps old, one more if the kill came late
    assert step - 3 <= rest.resumed_from <= step + 3
    assert rest.resumed_from < STEPS
    same(whole / LAST, parts / LAST)  # weights, optimiser and moving average
    same(whole / FINAL, parts / FINAL)
    assert any(name.startswith("state.ema.") for name in load_file(whole / LAST))
