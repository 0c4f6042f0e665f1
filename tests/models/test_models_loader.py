"""Reader processes: the same batches as without, errors that arrive as themselves, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from models_source import BoxSource

from models.loader import open_batches
from models.sampling import Batch, PatchSampler
from models.settings import ModelSettings, TrainSettings

MODEL = ModelSettings(classes=("spleen", "liver", "aorta"), patch=(16, 16, 16))


class Odd(Exception):
    """An error of several arguments, one of which cannot be sent to another process where it is asked for."""

    def __init__(self, case_id: str, held: object) -> None:
        super().__init__(case_id, held)


class Failing(BoxSource):
    """Raises when box/2 is read. held: what its error holds."""

    def __init__(self, held: object) -> None:
        super().__init__()
        self.held = held

    def read(self, case_id, start_xyz, size_xyz):
        if case_id == "box/2":
            raise Odd(case_id, (lambda: None) if self.held == "a function" else self.held)
        return super().read(case_id, start_xyz, size_xyz)


def sampler(source: BoxSource | None = None) -> PatchSampler:
    return PatchSampler(source or BoxSource(), MODEL, TrainSettings(batch=2, seed=3))


def batches(numbers: range, readers: int, rank: int = 0) -> list[Batch]:
    with open_batches(sampler(), numbers, readers, rank) as found:
        return [packed.unpack() for packed in found]


def assert_same(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs)
    for our, their in zip(ours, theirs, strict=True):
        assert (our.case_ids, our.classes) == (their.case_ids, their.classes)
        for name in ("image", "target", "annotated", "valid"):
            assert torch.equal(getattr(our, name), getattr(their, name)), name


def readers_alive() -> list[int]:
    """Return the reader processes: children of the fork server, which itself stays."""
    found = [reader for server in psutil.Process().children() for reader in server.children()]
    return [reader.pid for reader in found if reader.status() != psutil.STATUS_ZOMBIE]


def test_readers_and_a_restart_change_no_bit() -> None:
    alone = batches(range(8), 0, rank=1)
    assert_same(batches(range(8), 1, rank=1), alone)
    assert_same([*batches(range(3), 2, rank=1), *batches(range(3, 8), 2, rank=1)], alone)


def test_reading_ahead_takes_no_random_number_of_the_training() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    batches(range(1), 1)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("readers", [0, 2])
def test_an_error_of_a_reader_arrives_as_itself_and_ends_them_all(readers: int) -> None:
    with (
        pytest.raises(Odd) as caught,
        open_batches(sampler(Failing(held=7)), range(50), readers, 0) as found,
    ):
        list(found)
    assert caught.value.args == ("box/2", 7)
    assert any("while reading box/2 at" in note for note in caught.value.__notes__)
    assert readers_alive() == []


def test_an_error_that_cannot_be_sent_is_told() -> None:
    with (
        pytest.raises(RuntimeError, match=r"Odd.*box/2"),
        open_batches(sampler(Failing(held="a function")), range(50), 1, 0) as found,
    ):
        list(found)


def test_leaving_early_ends_the_readers() -> None:
    with open_batches(sampler(), range(1000), 2, 0) as found:
        next(found)
        assert len(readers_alive()) == 2
    assert readers_alive() == []


def test_a_batch_stays_as_it_is_until_the_next_one_is_taken() -> None:
    with open_batches(sampler(), range(12), 2, 0) as found:
        for number, packed in enumerate(found):
            time.sleep(0.05)  # the readers are done with all that they may make ahead
            assert_same([packed.unpack()], [sampler().batch(number)])


def test_what_was_unpacked_does_not_change_with_the_memory_that_it_came_from() -> None:
    with open_batches(sampler(), range(8), 1, 0) as found:
        first = next(found).unpack()
        kept = first.image.clone(), first.bits.clone(), first.valid.clone()
        list(found)
    assert torch.equal(first.image, kept[0])
    assert torch.equal(first.bits, kept[1])
    assert torch.equal(first.valid, kept[2])


def test_a_reader_that_is_killed_is_told_and_ends_the_others() -> None:
    with open_batches(sampler(), range(1000), 2, 0) as found:
        next(found)
        os.kill(readers_alive()[1], signal.SIGKILL)
        with pytest.raises(RuntimeError, match=r"reader process \d+: ended by itself \(exit code -9\) before batch"):
            list(found)
    assert readers_alive() == []


SCRIPT = """
import signal
import time
from models_source import BoxSource
from models.loader import open_batches
from models.sampling import PatchSampler
from models.settings import ModelSettings, TrainSettings

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what runs in the background
    model = ModelSettings(classes=("spleen", "liver", "aorta"), patch=(16, 16, 16))
    sampler = PatchSampler(BoxSource(), model, TrainSettings(batch=2))
    try:
        with open_batches(sampler, range(10**6), 2, 0) as found:
            for batch in found:
                print("batch", flush=True)
                time.sleep(0.1)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.mark.parametrize("how", ["interrupted", "killed"])
def test_a_run_that_is_stopped_takes_its_readers_with_it(tmp_path: Path, how: str) -> None:
    (tmp_path / "run.py").write_text(SCRIPT)
    paths = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)])
    run = subprocess.Popen(
        [sys.executable, tmp_path / "run.py"],
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "stderr").open("w"),
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "batch\n"
    servers = psutil.Process(run.pid).children()
    readers = [reader for server in servers for reader in server.children()]
    assert len(readers) == 2
    if how == "interrupted":
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does
        assert run.communicate(timeout=60)[0].endswith("interrupted\n")
        assert run.returncode == 0
        assert "Traceback" not in (tmp_path / "stderr").read_text()
    else:
        run.kill()
        run.wait()
    _, alive = psutil.wait_procs([*readers, *servers], timeout=30)
    assert alive == []
    assert list(Path("/dev/shm").glob(f"*{run.pid}*")) == []
