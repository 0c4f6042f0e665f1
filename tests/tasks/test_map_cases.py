"""Cases in a loop and on real Dask workers: order, faults, lost workers, cases that end every worker they get."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tasks import case_cluster as case_cluster_module
from tasks.case_cluster import case_cluster, default_workers
from tasks.lost import Lost, RunStopped
from tasks.map_cases import map_cases
from tasks.progress import CaseProgress, listening
from tasks.settings import Settings


def _square(number: int) -> int:
    return number * number


def _interrupt_oneself(number: int) -> int:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)
    return number


@dataclass(frozen=True)
class Deed:
    """What a case does on its worker; each try leaves a file, so that tries can be counted."""

    name: str
    folder: Path
    does: str = "work"

    def tries(self) -> int:
        return len(list(self.folder.glob(f"{self.name}.*")))


def _do(deed: Deed) -> str:
    attempt = deed.tries()
    (deed.folder / f"{deed.name}.{attempt}.{os.getpid()}").touch()
    if deed.does == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif deed.does == "hang":
        time.sleep(600)
    elif deed.does == "swallow":
        held = b"x" * (600 * 2**20)
        time.sleep(len(held))
    elif deed.does == "crash once" and attempt == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    elif deed.does == "raise":
        raise ZeroDivisionError(deed.name)
    time.sleep(0.05)
    return deed.name


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(workspace=tmp_path_factory.mktemp("map"), dask_address="local", workers=2, worker_memory_gib=0.5)


@pytest.fixture(scope="module")
def cluster(settings: Settings) -> Iterator[None]:
    with case_cluster(settings):
        yield


def test_results_come_back_in_order(settings: Settings, cluster: None) -> None:
    assert map_cases(_square, [3, 1, 2], settings) == [9, 1, 4]
    assert map_cases(_square, [3, 1, 2], Settings()) == [9, 1, 4]
    assert map_cases(_square, [], settings) == []


def test_progress_is_reported_to_listeners_only_inside_the_block() -> None:
    seen: list[tuple[str, int, int]] = []
    with listening(lambda what, done, total, _note: seen.append((what, done, total))):
        map_cases(_square, [5, 6], Settings(), CaseProgress("squares", 2))
    map_cases(_square, [5, 6], Settings(), CaseProgress("squares", 2))
    assert seen == [("squares", 0, 2), ("squares", 1, 2), ("squares", 2, 2)]


def test_a_fault_is_raised_and_not_swallowed(settings: Settings, cluster: None, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        map_cases(lambda number: 1 // number, [1, 0], Settings())
    with pytest.raises(ZeroDivisionError, match="bad"):
        map_cases(_do, [Deed("good", tmp_path), Deed("bad", tmp_path, "raise")], settings)
    assert map_cases(_square, [4], settings) == [16]  # the cluster lives on


def test_a_function_that_cannot_travel_is_a_fault(settings: Settings, cluster: None) -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError, match="pickle"):
        map_cases(lambda _: lock.locked(), [1], settings)


def test_cases_that_end_their_workers_are_named_after_three_tries_and_the_others_finish(
    settings: Settings, cluster: None, tmp_path: Path
) -> None:
    bad = {"crash": "worker_lost", "swallow": "out_of_memory"}
    deeds = [Deed(f"good{number}", tmp_path) for number in range(12)]
    for place, does in enumerate(bad):
        deeds.insert(4 * place + 1, Deed(does, tmp_path, does))
    notes: list[str] = []
    with listening(lambda _what, _done, _total, note: notes.append(note)):
        results = map_cases(_do, deeds, settings)
    lost = {item.case.name: item for item in results if isinstance(item, Lost)}
    assert {name: (item.reason, item.tries) for name, item in lost.items()} == {
        does: (reason, 3) for does, reason in bad.items()
    }
    assert [item for item in results if isinstance(item, str)] == [f"good{number}" for number in range(12)]
    assert {deed.name: deed.tries() for deed in deeds if deed.name in bad} == dict.fromkeys(bad, 3)
    assert "GiB in use when the worker was ended" in lost["swallow"].found
    assert "2 refused" in notes[-1]
    assert "lost workers 127.0.0.1:" in notes[-1]


def test_a_case_that_hangs_is_named_with_the_limit(settings: Settings, tmp_path: Path) -> None:
    short = settings.model_copy(update={"case_limit_s": 2.0, "workers": 1})
    deed = Deed("hang", tmp_path, "hang")
    found = Context().run(map_cases, _do, [deed], short)  # a cluster of its own, beside the one of the module
    assert found == [Lost(deed, "timeout", 3, "still at work after 2 s")]


def test_a_case_whose_worker_died_once_is_tried_again(settings: Settings, cluster: None, tmp_path: Path) -> None:
    deeds = [Deed("a", tmp_path), Deed("b", tmp_path, "crash once"), Deed("c", tmp_path)]
    assert map_cases(_do, deeds, settings) == ["a", "b", "c"]
    assert [deed.tries() for deed in deeds] == [1, 2, 1]


def test_workers_killed_by_somebody_cost_no_case(settings: Settings, cluster: None, tmp_path: Path) -> None:
    deeds = [Deed(f"case{number}", tmp_path) for number in range(60)]

    def kill_a_busy_worker() -> None:
        for wanted in (5, 20, 35):
            while len(list(tmp_path.glob("*"))) < wanted:
                time.sleep(0.01)
            newest = max(tmp_path.glob("*"), key=lambda path: path.stat().st_mtime_ns)
            psutil.Process(int(newest.suffix[1:])).kill()

    killer = threading.Thread(target=kill_a_busy_worker)
    killer.start()
    results = map_cases(_do, deeds, settings)
    killer.join()
    assert results == [deed.name for deed in deeds]
    again = sum(deed.tries() - 1 for deed in deeds)
    assert again <= 3


def test_workers_leave_ctrl_c_to_the_command(settings: Settings, cluster: None) -> None:
    assert map_cases(_interrupt_oneself, [1], settings) == [1]


def test_a_worker_a_core_unless_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dask.system.CPU_COUNT", 16)
    for gib, workers in ((2, 1), (23, 5), (256, 16)):
        monkeypatch.setattr("distributed.system.MEMORY_LIMIT", gib * 2**30)
        assert default_workers() == workers


def test_batches_of_several_threads_share_the_workers(settings: Settings, cluster: None, tmp_path: Path) -> None:
    results: dict[int, list[str | Lost[Deed]]] = {}
    with case_cluster(settings) as cluster:
        assert cluster is not None
        dispatcher = cluster.dispatcher()

        def run(batch: int) -> None:
            futures = [dispatcher.submit(_do, Deed(f"{batch}-{number}", tmp_path)) for number in range(4)]
            results[batch] = [future.result() for future in futures]

        threads = [threading.Thread(target=run, args=(batch,)) for batch in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == {batch: [f"{batch}-{number}" for number in range(4)] for batch in range(3)}


def test_closing_stops_what_waits_and_leaves_no_process(settings: Settings, tmp_path: Path) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    outcome: list[BaseException] = []

    def wait_for_all() -> None:
        with case_cluster(settings) as cluster:
            assert cluster is not None
            dispatcher = cluster.dispatcher()
            futures = [dispatcher.submit(_do, Deed(f"case{number}", tmp_path, "hang")) for number in range(4)]
            while len(list(tmp_path.glob("*"))) < 2:
                time.sleep(0.02)
        outcome.extend(error for future in futures if (error := future.exception(timeout=5)))

    Context().run(wait_for_all)  # a cluster of its own, beside the one of the module
    assert [type(error) for error in outcome] == [RunStopped] * 4
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert [child.cmdline() for child in left if "resource_tracker" not in " ".join(child.cmdline())] == []


@contextmanager
def _running(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `dask` command as an operator starts it; it and its children are gone at the end."""
    places = os.pathsep.join([str(Path(__file__).parent), *sys.path])  # workers import this module
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *words], stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": places}
    )
    try:
        yield process
    finally:
        for child in [*psutil.Process(process.pid).children(recursive=True), process]:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        process.wait()


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running scheduler, with the number of failures that Dask allows by default."""
    file = tmp_path_factory.mktemp("dask") / "scheduler.json"
    with _running("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)):
        while not file.exists():
            time.sleep(0.05)
        yield str(json.loads(file.read_text())["address"])


def test_an_existing_scheduler_is_used_and_its_workers_may_be_lost_too(
    scheduler: str, settings: Settings, tmp_path: Path
) -> None:
    there = settings.model_copy(update={"dask_address": scheduler, "workers": None})
    deeds = [Deed(f"good{number}", tmp_path) for number in range(6)]
    deeds.insert(2, Deed("crash", tmp_path, "crash"))
    with _running("worker", scheduler, "--nthreads", "1", "--nworkers", "2", "--no-dashboard"):
        results = map_cases(_do, deeds, there)
    (lost,) = [item for item in results if isinstance(item, Lost)]
    assert (lost.case.name, lost.reason, lost.tries, lost.case.tries()) == ("crash", "worker_lost", 3, 3)
    assert [item for item in results if isinstance(item, str)] == [f"good{number}" for number in range(6)]


def test_workers_with_several_threads_are_refused(scheduler: str, settings: Settings) -> None:
    there = settings.model_copy(update={"dask_address": scheduler})
    with (
        _running("worker", scheduler, "--nthreads", "2", "--no-dashboard"),
        pytest.raises(ValueError, match=r"has 2 threads, expected 1.*--nthreads 1 --nworkers 2"),
    ):
        map_cases(_square, [1], there)


def test_a_scheduler_that_does_not_answer_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(case_cluster_module, "CONNECT_S", 0.5)
    with pytest.raises(ConnectionError, match=r"no Dask scheduler answers at 'tcp://127\.0\.0\.1:1'"):
        map_cases(_square, [1], settings.model_copy(update={"dask_address": "tcp://127.0.0.1:1"}))


def test_a_scheduler_without_workers_is_named(
    scheduler: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(case_cluster_module, "CONNECT_S", 0.5)
    with pytest.raises(ConnectionError, match=r"has no worker after 0\.5 s; start some"):
        map_cases(_square, [1], settings.model_copy(update={"dask_address": scheduler}))
