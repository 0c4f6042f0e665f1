"""The model test: no order of steps, kills and looks back makes a lake differ from a few dictionaries.

CTFACTORY_MODEL_EXAMPLES: how many orders are tried; the long run that `docs/design/0014-proofs.md` reports has 600.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_shim import built_shim
from hypothesis import HealthCheck, settings
from lake_machine import LakeMachine, calls_of_steps
from zygote import Zygote


@pytest.fixture(scope="module", autouse=True)
def _zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder: Path = tmp_path_factory.mktemp("shim")
    with Zygote("lake_steps", preload=built_shim(folder)) as zygote:
        LakeMachine.zygote, LakeMachine.calls = zygote, calls_of_steps(zygote, folder)
        yield
        assert LakeMachine.kills > 0, "no process was killed: the steps make fewer calls than they used to"


TestLake = LakeMachine.TestCase
TestLake.settings = settings(
    max_examples=int(os.environ.get("CTFACTORY_MODEL_EXAMPLES", "8")),
    stateful_step_count=25,
    deadline=None,
    database=None,
    derandomize="CTFACTORY_MODEL_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
