"""A person's answer before the champion moves: the flow pauses, and goes on with it."""

from __future__ import annotations

from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import FlowPauseTimeout, ObjectNotFound
from prefect.flow_runs import pause_flow_run, resume_flow_run
from prefect.input import RunInput

POLL_S = 5


class Approval(RunInput):
    """The answer: whether the version may become champion, who says so, and why."""

    approve: bool
    who: str
    why: str


def wait_for_approval(key: str, hours: float) -> Approval | None:
    """Pause the running flow until somebody answers; None where nobody did within `hours`.

    key: names the pause; a flow that is run again with the same key does not ask twice. Answered on the run's page in
    Prefect (button Resume) or by `ctfactory approve FLOW_RUN`.
    """
    try:
        answer: Approval | None = pause_flow_run(
            wait_for_input=Approval, timeout=int(hours * 3600), poll_interval=POLL_S, key=key
        )
    except FlowPauseTimeout:
        return None
    return answer


def answer(flow_run_id: UUID, *, approve: bool, who: str, why: str) -> None:
    """Answer a flow run that waits; LookupError where there is none of that id, ValueError where it does not wait."""
    with get_client(sync_client=True) as client:
        try:
            run = client.read_flow_run(flow_run_id)
        except ObjectNotFound as error:
            raise LookupError(
                f"flow run {flow_run_id}: not known to {client.api_url}; see `ctfactory promotions`"
            ) from error
        if run.state is None or not run.state.is_paused():
            state = "without a state" if run.state is None else run.state.name
            raise ValueError(f"flow run {flow_run_id}: it is {state}, expected Paused; it does not wait for an answer")
    resume_flow_run(flow_run_id, run_input={"approve": approve, "who": who, "why": why})
