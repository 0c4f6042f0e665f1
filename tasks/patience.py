"""MLflow that does not answer: what that looks like, and trying again for a bounded time."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TypeVar

from mlflow.exceptions import MlflowException

from tasks.notices import tell

Result = TypeVar("Result")

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0


def does_not_answer(error: BaseException) -> bool:
    """Return whether MLflow, its database or its artifact store could not be reached, so that later may be better.

    MLflow's client makes an internal error of every connection that fails; HTTP libraries and disks raise OSErrors,
    also those of a full or unmounted disk.
    """
    if isinstance(error, MlflowException):
        status = int(error.get_http_status_code())
        return status >= 500 or status == 429
    return isinstance(error, OSError)


def patiently(action: Callable[[], Result], patience_s: float, what: str) -> Result:
    """Return what `action` returns; while MLflow does not answer, try again after 1, 2, 4 and so on up to 60 s.

    patience_s: no try begins later than this many seconds after the first; the last error is raised then. action: can
    be done twice. what: it does, for the notice of each new try.
    """
    begun, wait = time.monotonic(), FIRST_WAIT_S
    while True:
        try:
            return action()
        except Exception as error:
            left = patience_s - (time.monotonic() - begun)
            if not does_not_answer(error) or left < wait:
                raise
            tell(
                f"{what}: MLflow does not answer, next try in {wait:.0f} s, for {left:.0f} s more ({first_line(error)})"
            )
        time.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT_S)


def first_line(error: BaseException) -> str:
    """Return what an error says, without the traces that MLflow's errors carry and without passwords in addresses."""
    text = re.sub(r"//[^/@\s]*@", "//", str(error)).strip().splitlines()
    return text[0][:300] if text else type(error).__name__
