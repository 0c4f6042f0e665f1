"""The other processes of a training on several devices: started here, or by `torchrun`; they follow the first one.

`python -m tasks.ranks` is such a process. It knows nothing of the lake, MLflow or Prefect: what to do and what to read
comes from the first process, which alone reports and keeps.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from models.learner import TrainingDiverged
from models.ranks import launched_rank
from models.settings import TrainSettings
from models.train import follow

ENDING_S = 20
"""Seconds that the other processes have to end once the first is done with them."""


@contextmanager
def other_ranks(train: TrainSettings) -> Iterator[None]:
    """Let a process for each further device of this machine take part in a training while the block runs.

    Where `torchrun` started this process it started the others too. Raises ValueError for several nodes without it.
    """
    if launched_rank() is not None or train.devices * train.nodes == 1:
        yield
        return
    if train.nodes > 1:
        raise ValueError(
            f"train.nodes: {train.nodes}, but this process was started alone; start the command on every node, with "
            "torchrun --nnodes ... --nproc-per-node ... --no-python ctfactory train ..."
        )
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(train.devices),
        "LOCAL_WORLD_SIZE": str(train.devices),
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": secrets.token_hex(8),
    }
    others = [_start(train.device, rank, shared) for rank in range(1, train.devices)]
    mine = {**shared, "RANK": "0", "LOCAL_RANK": "0"}
    before = {name: os.environ.get(name) for name in mine}
    os.environ.update(mine)
    try:
        yield
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for process in others:
            process.wait(ENDING_S)
    finally:
        for process in others:
            process.kill()
            process.wait()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(device: str, rank: int, shared: dict[str, str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    # its standard output is no part of what the command prints
    return subprocess.Popen([sys.executable, "-m", "tasks.ranks", device], env=environment, stdout=sys.stderr.fileno())


def take_part(device: str) -> None:
    """Follow the first process of the training that this process was started for, to its end."""
    devices = int(os.environ["LOCAL_WORLD_SIZE"])
    try:
        follow(device, devices, int(os.environ["WORLD_SIZE"]) // devices)
    except TrainingDiverged:
        sys.exit(1)  # the first process says why
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone; it may be waiting for a device meanwhile."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    take_part(sys.argv[1])
