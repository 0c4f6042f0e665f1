"""The `promote` flow: gates are evaluated, and the alias `champion` moves or a refusal says which gate failed."""

from __future__ import annotations

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.run_record import recorded_run
from tasks.promote import Promotion, promote_version_task
from tasks.registry import model_version
from tasks.settings import Settings


@flow(name="promote", validate_parameters=False)
def promote(model: str = "challenger", settings: Settings | None = None) -> Promotion:
    """Make `model` the champion if it passes every gate of the settings.

    Afterwards the alias `champion` names it, or nothing has changed and the result says why. Promoting the champion
    again does nothing.
    """
    settings = settings or Settings()
    version = model_version(model, settings)
    with recorded_run("promote", settings, {"model": version.uri}) as record:
        decision = promote_version_task(version, settings)
        record.model_version = str(version.version)
        record.counts = {
            "gates": len(decision.gates),
            "failed_gates": sum(not gate.passed for gate in decision.gates),
            "promoted": int(decision.promoted),
        }
        gates = "\n".join(f"- {'passed' if gate.passed else 'FAILED'}: {gate}" for gate in decision.gates)
        create_markdown_artifact(f"# {version.uri}\n\n{decision.reason}\n\n{gates}", key="promote")
        return decision
