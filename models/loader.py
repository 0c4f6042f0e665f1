"""Batches in order, made by the training process itself or ahead of it by reader processes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import traceback
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset

from models.sampling import BatchMaker, Drawn, Packed, PatchSampler

AHEAD = 2
"""Batches that each reader process makes ahead."""


@contextmanager
def open_batches(sampler: PatchSampler, numbers: range, readers: int, rank: int) -> Iterator[Iterator[Packed]]:
    """Give the batches of `numbers` in order; the same ones, bit for bit, whatever `readers` is.

    readers: processes that read ahead, each with its own handles of the source; 0 makes a batch when it is asked for.
    On a CPU with few cores reading ahead is no gain: it takes cores from the network.
    An error in a reader is raised here as itself, with the reader's traceback as a note. The processes end when the
    block is left, however it is left, and when this process is gone.
    """
    if readers == 0:
        yield (sampler.maker.make(sampler.draw(number, rank)) for number in numbers)
        return
    ahead = _read_ahead(sampler, numbers, readers, rank)
    try:
        yield ahead
    finally:
        ahead.close()  # lets go of the loader's iterator, which ends its processes


def _read_ahead(sampler: PatchSampler, numbers: range, readers: int, rank: int) -> Generator[Packed, None, None]:
    # A forked child would inherit locks and threads of torch and zarr in whatever state they are.
    start = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(start)
    context.set_forkserver_preload([__name__])
    loader = DataLoader(
        _ToRead(sampler.maker),
        sampler=(sampler.draw(number, rank) for number in numbers),  # drawn here, so that readers need no plan
        batch_size=None,
        num_workers=readers,
        prefetch_factor=AHEAD,
        multiprocessing_context=context,
        worker_init_fn=_end_with_parent,
        generator=torch.Generator(),  # the default one would take numbers from the training's own
    )
    for found in loader:
        if isinstance(found, _Failed):
            raise found.error
        yield found


def _end_with_parent(_: int) -> None:
    """Let this reader end when its training is killed; torch looks at the parent's id, which is the fork server's."""
    training = multiprocessing.parent_process()

    def wait() -> None:
        if training is not None:
            training.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@dataclass(frozen=True)
class _Failed:
    """An error on its way out of a reader; torch would make another one of it where it takes several arguments."""

    error: Exception

    @classmethod
    def of(cls, error: Exception, number: int) -> _Failed:
        error.add_note(f"In the reader of batch {number}:\n{traceback.format_exc()}")
        try:
            pickle.loads(pickle.dumps(error))
        except Exception as unsendable:
            told = RuntimeError(f"{type(error).__name__}: {error} (not itself: {unsendable})")
            told.__notes__ = error.__notes__
            return cls(told)
        return cls(error)


class _ToRead(Dataset[Packed | _Failed]):
    """Batches by what was drawn for them, for torch's loader."""

    def __init__(self, maker: BatchMaker) -> None:
        self._maker = maker

    def __getitem__(self, drawn: Drawn) -> Packed | _Failed:
        try:
            return self._maker.make(drawn)
        except Exception as error:
            return _Failed.of(error, drawn.number)
