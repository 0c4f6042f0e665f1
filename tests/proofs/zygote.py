"""Processes that start at once: a program that has imported everything and forks one for each order.

Orders come as JSON lines on stdin (`Order`), answers go to stdout: the process id, then how it ended. The program
starts no thread of Rust's before it forks, so a child is like a fresh process and may use the Rust codec pipeline.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from fault_shim import Fault, Shim

from catalog import layout

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Order:
    """One call in a process of its own: `module:function`, the arguments (JSON-able), the lake it writes to.

    fault, at, log: see `Shim.armed`; they need the shim.
    """

    call: str
    arguments: dict[str, Any]
    lake: str
    fault: int | None = None
    at: int = 0
    log: str | None = field(default=None)


def obey(order: Order) -> None:
    """Make the call of an order in this process."""
    module, _, name = order.call.partition(":")
    function = getattr(importlib.import_module(module), name)
    log = None if order.log is None else Path(order.log)
    faults = (
        nullcontext() if order.fault is None else Shim().armed(Path(order.lake), Fault(order.fault), order.at, log=log)
    )
    with faults:
        function(**order.arguments)


def main(modules: list[str]) -> None:
    """Fork a child for every order, and tell how it ended. modules: imported once, for all children."""
    for name in ("zarrs", *modules):
        importlib.import_module(name)
    for line in sys.stdin:
        order = Order(**json.loads(line))
        child = os.fork()
        if child == 0:
            sys.stdout = sys.stderr  # progress must not get among the answers
            layout._forked.clear()  # no Rust thread was running, so none is missing here
            try:
                obey(order)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


class Zygote:
    """The program above, running, with `modules` imported. preload: the fault shim, None to do without."""

    def __init__(self, *modules: str, preload: Path | None = None) -> None:
        self.preload = preload
        environment = import_paths()
        if preload is not None:
            environment["LD_PRELOAD"] = str(preload)
        command = [sys.executable, str(HERE / "zygote.py"), *modules]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> Zygote:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def _start(self, order: Order) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def run(self, order: Order) -> int:
        """Carry out an order and return the exit code, minus the signal for a process that was killed."""
        self._start(order)
        return self._answer()

    def run_killed(self, order: Order, fault: Fault, at: int) -> int:
        """Carry out an order, with SIGKILL at call `at` that writes (see `Fault`); exit code 0: it was quicker."""
        return self.run(replace(order, fault=int(fault), at=at))

    def run_for(self, order: Order, seconds: float) -> int:
        """Carry out an order, with SIGKILL after `seconds`; the exit code 0 says it was quicker."""
        descriptor = os.pidfd_open(self._start(order))
        try:
            ended, _, _ = select.select([descriptor], [], [], seconds)
            if not ended:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)
        return self._answer()

    def close(self) -> None:
        """End the program."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def import_paths() -> dict[str, str]:
    """Return this environment, changed so that a Python started with it finds the project and what the tests share."""
    path = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent), str(HERE)])
    return {**os.environ, "PYTHONPATH": path}


if __name__ == "__main__":
    main(sys.argv[1:])
