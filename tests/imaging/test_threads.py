"""How many threads a case takes, and work beside the caller where there is only one."""

from __future__ import annotations

import threading

import pytest

from imaging.threads import beside, case_threads


@pytest.mark.parametrize(("variable", "threads", "same"), [("1", 1, True), ("2", 2, False), (None, 2, False)])
def test_a_dask_worker_works_in_one_thread(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, threads: int, same: bool
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert case_threads() == threads
    with beside() as other:
        assert (other.submit(threading.get_ident).result() == threading.get_ident()) == same
        failed = other.submit(lambda text: int(text), "seven")
    with pytest.raises(ValueError, match="seven"):
        failed.result()
