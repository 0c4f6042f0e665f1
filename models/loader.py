"""Batches in order, made by the training process itself or ahead of it by reader processes.

A reader writes the voxels into memory that it shares with the training, mapped once and used again and again; only
what to read and how it went are sent. docs/design/0011-patch-source.md has the measurements.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext

import torch

from imaging.memory import keep_freed_memory
from models.sampling import Box, Drawn, Packed, PatchReader, PatchSampler, Voxels

AHEAD = 2
"""Batches that each reader process makes ahead."""

DRAWN = 16
"""Batches drawn at a time: one alone, between two waits, takes four times as long, its data having left the cache."""

SLOTS = AHEAD + 1
"""Batches that the memory of a reader holds: those ahead, and the one that was given out last."""

ENDING_S = 5
"""Seconds that a reader has to end by itself, in the middle of a read."""


@contextmanager
def open_batches(sampler: PatchSampler, numbers: range, readers: int, rank: int) -> Iterator[Iterator[Packed]]:
    """Give the batches of `numbers` in order; the same ones, bit for bit, whatever `readers` is.

    A batch may be used until the next one is taken, which may lie in the same memory: unpack it, or move it to the
    device, before.
    readers: processes that read ahead, each with its own handles of the source; 0 makes a batch when it is asked for.
    On a CPU with few cores reading ahead is no gain: it takes cores from the network.
    An error in a reader is raised here as itself, with the reader's traceback as a note. The processes end when the
    block is left, however it is left, and when this process is gone.
    """
    if readers == 0:
        yield _read_here(sampler, numbers, rank)
        return
    # A forked child would inherit locks and threads of torch and zarr in whatever state they are.
    served = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver") if served else multiprocessing.get_context("spawn")
    context.set_forkserver_preload([__name__])
    processes: list[_Reader] = []
    try:
        for _ in range(min(readers, len(numbers))):
            processes.append(_Reader(context, sampler.reader))
        yield _read_ahead(sampler, numbers, processes, rank)
    finally:
        for process in processes:
            process.let_go()
        for process in processes:
            process.end()


def _read_here(sampler: PatchSampler, numbers: range, rank: int) -> Iterator[Packed]:
    voxels = sampler.reader.voxels()
    for number in numbers:
        drawn = sampler.draw(number, rank)
        yield sampler.pack(drawn, voxels, sampler.reader.read(drawn.places, voxels))


def _read_ahead(sampler: PatchSampler, numbers: range, readers: list[_Reader], rank: int) -> Iterator[Packed]:
    """Give the batches in order; the readers take turns, so that each knows its batches and none waits for another."""
    asked: dict[int, Drawn] = {}
    drawn: deque[Drawn] = deque()

    def ask(place: int) -> None:
        if place >= len(numbers):
            return
        if not drawn:  # here, so that readers need no plan
            drawn.extend(sampler.draw(number, rank) for number in numbers[place : place + DRAWN])
        asked[place] = drawn.popleft()
        readers[place % len(readers)].ask(asked[place], place // len(readers) % SLOTS)

    for place in range(len(readers) * AHEAD):
        ask(place)
    for place, number in enumerate(numbers):
        reader = readers[place % len(readers)]
        inside = reader.answer(number)
        # Into the memory of the batch that this reader made before, which may now be written over.
        ask(place + len(readers) * AHEAD)
        yield sampler.pack(asked.pop(place), reader.slots[place // len(readers) % SLOTS], inside)


class _Reader:
    """A reader process as the training sees it: the memory that both share and the line between them."""

    def __init__(self, context: ForkServerContext | SpawnContext, patches: PatchReader) -> None:
        # Has no name in any folder, so that nothing is left when processes are killed.
        memory = context.RawArray(ctypes.c_ubyte, SLOTS * patches.nbytes)
        self.slots = _slots(patches, memory)
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, patches, memory), daemon=True)
        self._process.start()
        theirs.close()  # theirs alone now: its end is seen here

    def ask(self, drawn: Drawn, slot: int) -> None:
        """Have the reader read a batch into a slot; it answers in the order it is asked."""
        try:
            self._line.send((drawn.number, drawn.places, slot))
        except OSError:
            raise self._gone(drawn.number) from None

    def answer(self, number: int) -> tuple[Box, ...]:
        """Wait until batch `number` is read and return the parts inside the scans; raise the error met instead."""
        try:
            found = self._line.recv()
        except (EOFError, OSError):
            raise self._gone(number) from None
        if isinstance(found, _Failed):
            raise found.error
        return tuple(found)

    def _gone(self, number: int) -> RuntimeError:
        self._process.join(ENDING_S)
        return RuntimeError(
            f"reader process {self._process.pid}: ended by itself (exit code {self._process.exitcode}) before batch "
            f"{number} was read; -9 means killed, mostly for want of memory: lower train.readers or train.batch, and "
            "go on from the last checkpoint"
        )

    def let_go(self) -> None:
        """Have the reader end after the batch it is reading."""
        self._line.close()

    def end(self) -> None:
        """Wait for the reader's end, but not long: it only reads, so nothing is lost."""
        self._process.join(ENDING_S)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        self._process.close()


def _slots(patches: PatchReader, memory: ctypes.Array[ctypes.c_ubyte]) -> list[Voxels]:
    held = memoryview(memory).cast("B")
    return [patches.voxels(held[slot * patches.nbytes : (slot + 1) * patches.nbytes]) for slot in range(SLOTS)]


def _serve(line: Connection, patches: PatchReader, memory: ctypes.Array[ctypes.c_ubyte]) -> None:
    """Read what is asked for until the training lets go of the line; runs in a reader process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the training ends this
    threading.Thread(target=_end_with_training, daemon=True).start()
    torch.set_num_threads(1)
    keep_freed_memory()
    slots = _slots(patches, memory)
    with suppress(EOFError, OSError):
        while True:
            number, places, slot = line.recv()
            try:
                answer: object = patches.read(places, slots[slot])
            except Exception as error:
                answer = _Failed.of(error, number)
            line.send(answer)


def _end_with_training() -> None:
    """End this reader when its training is killed, also in the middle of a read that waits for a network."""
    training = multiprocessing.parent_process()
    if training is not None:
        training.join()
        os._exit(1)


@dataclass(frozen=True)
class _Failed:
    """An error on its way out of a reader."""

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
