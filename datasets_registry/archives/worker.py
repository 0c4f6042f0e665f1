"""The process that unpacks: memory is bounded, and a decoder that crashes takes nothing with it.

Run as `python -m datasets_registry.archives.worker`: the order comes as JSON on standard input, progress and the
outcome go as lines of JSON to standard output.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from datasets_registry.archives import refusals
from datasets_registry.archives.extract import Order, extract
from datasets_registry.archives.limits import Password, UnpackLimits
from imaging.errors import BadInput

TELL_SECONDS = 0.25


def main() -> None:
    """Carry out the order on standard input and say how it ended."""
    fields = json.load(sys.stdin)
    order = Order(
        Path(fields["archive"]),
        Path(fields["folder"]),
        UnpackLimits(**fields["limits"]),
        Password(**fields["password"]),
        tuple(fields["nested"]),
    )
    bound_memory(order.limits.memory_bytes)
    teller = _Teller()
    try:
        done = extract(order, teller)
        teller.flush()
    except BadInput as problem:
        _tell({"refused": problem.record()})
    except MemoryError:
        found = f"data whose decoding needs more than {order.limits.memory_bytes} bytes of memory"
        refusal = refusals.limit(order.archive.name, found, f"{order.limits.memory_bytes} bytes", "memory_bytes")
        _tell({"refused": refusal.record()})
    except BrokenPipeError:
        sys.exit(1)  # nobody listens any more: whoever asked for this was killed
    except OSError as error:
        _tell({"failed": [error.errno, error.strerror or str(error), error.filename]})
    else:
        _tell({"tally": vars(done.tally), "nested": done.nested})


def bound_memory(count: int) -> None:
    """Let this process take `count` bytes of address space more than it has now, and write no core file."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + count, held + count))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class _Teller:
    """Writes progress, a few times a second at most."""

    def __init__(self) -> None:
        self._next = 0.0
        self._last = (0, 0)

    def __call__(self, done: int, total: int) -> None:
        self._last = (done, total)
        now = time.monotonic()
        if now >= self._next:
            self._next = now + TELL_SECONDS
            self.flush()

    def flush(self) -> None:
        """Tell how far it is now."""
        _tell({"progress": self._last})


def _tell(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
