"""The gate between challenger and champion: bars from the settings; a refusal names the bar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tasks.prefect_task import as_task
from tasks.registry import CHAMPION, ModelVersion, alias_version, set_alias
from tasks.settings import Settings
from tasks.tracking import mlflow_client

EVALUATION_TAG = "evaluation_run_id"
"""Tag of a model version that names the MLflow run of its latest evaluation."""

GATES: tuple[tuple[str, str], ...] = (
    ("mean_organ_dsc", "gate_mean_organ_dsc"),
    ("mean_organ_nsd", "gate_mean_organ_nsd"),
    ("worst_organ_dsc", "gate_worst_organ_dsc"),
    ("sensitivity", "gate_sensitivity"),
    ("specificity", "gate_specificity"),
)


@dataclass(frozen=True)
class Gate:
    """One bar: the figure measured, the bar it had to reach, and where the bar is set."""

    figure: str
    value: float | None
    bar: float
    setting: str

    @property
    def passed(self) -> bool:
        """Whether the figure was measured and reaches the bar."""
        return self.value is not None and self.value >= self.bar

    def __str__(self) -> str:
        value = "not measured" if self.value is None else f"{self.value:.3f}"
        return f"{self.figure}: {value}, bar {self.bar:.3f} ({self.setting})"


@dataclass(frozen=True)
class Promotion:
    """The decision about one version, and the gates it rests on."""

    model: ModelVersion
    promoted: bool
    gates: tuple[Gate, ...]
    reason: str


def judge(metrics: Mapping[str, float], champion: Mapping[str, float] | None, settings: Settings) -> tuple[Gate, ...]:
    """Return every gate for a version with these evaluation figures; a figure that is missing fails its gate.

    champion: the champion's figures, None when there is none; then no gate compares with it.
    """
    gates = [Gate(figure, metrics.get(figure), getattr(settings, name), name) for figure, name in GATES]
    if champion is not None and "mean_organ_dsc" in champion:
        bar = champion["mean_organ_dsc"] - settings.gate_max_drop_dsc
        gates.append(Gate("mean_organ_dsc", metrics.get("mean_organ_dsc"), bar, "gate_max_drop_dsc below champion"))
    return tuple(gates)


def evaluation_metrics(model: ModelVersion, settings: Settings) -> dict[str, float] | None:
    """Return the figures of the version's latest evaluation, None when it was never evaluated."""
    client = mlflow_client(settings)
    run_id = client.get_model_version(model.name, str(model.version)).tags.get(EVALUATION_TAG)
    return None if run_id is None else dict(client.get_run(run_id).data.metrics)


def promote_version(model: ModelVersion, settings: Settings) -> Promotion:
    """Move the alias `champion` to `model` when every gate is passed; otherwise refuse and say which bar failed.

    Promoting the champion again changes nothing. A version that was not evaluated is refused.
    """
    champion = alias_version(CHAMPION, settings)
    if champion is not None and champion.version == model.version:
        return Promotion(model, True, (), f"version {model.version} is the champion already")
    metrics = evaluation_metrics(model, settings)
    if metrics is None:
        return Promotion(
            model, False, (), f"version {model.version} was never evaluated; run `ctfactory evaluate {model.version}`"
        )
    gates = judge(metrics, None if champion is None else evaluation_metrics(champion, settings), settings)
    failed = [gate for gate in gates if not gate.passed]
    if failed:
        return Promotion(model, False, gates, "refused: " + "; ".join(str(gate) for gate in failed))
    set_alias(model, CHAMPION, settings)
    before = f", before it version {champion.version}" if champion else ""
    return Promotion(model, True, gates, f"version {model.version} is the champion{before}")


promote_version_task = as_task(promote_version, "promote-version")
