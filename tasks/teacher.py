"""The model that labels a cohort, or the several that do so together: where from, what of, under which licence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow.exceptions import MlflowException

from models.checkpoint import ModelMetadata, members, read_metadata
from models.licence import LICENCE
from tasks.licences import joined, licence_of, licence_of_training, teacher_licence
from tasks.prediction import require_ensemble, trained_classes
from tasks.registry import ModelVersion, checkpoint_digest, fetch_checkpoint, model_version, training_cases
from tasks.settings import Settings


@dataclass(frozen=True)
class Teacher:
    """A model that labels, or an ensemble.

    name, version: of the registered model; an ensemble's are joined by +. uris: models:/NAME/VERSION of each. run_id:
    MLflow run that trained it, None for several. checkpoints: files or folders. digests: SHA-256 of each one's weights.
    classes: it was trained on, in channel order. licence: the strictest of the weights and of what they were trained
    on, None where that is not known.
    """

    name: str
    version: str
    uris: tuple[str, ...]
    run_id: str | None
    checkpoints: tuple[Path, ...]
    digests: tuple[str, ...]
    classes: tuple[str, ...]
    licence: str | None = None

    @property
    def title(self) -> str:
        """How the teacher is called in reports."""
        return " + ".join(self.uris)


def fetch_teacher(models: Sequence[str], settings: Settings) -> tuple[Teacher, list[ModelVersion]]:
    """Return the teacher that `models` name, its checkpoints fetched, and its versions.

    Raises LookupError for a version that is not there, ValueError where the classes of a model are not those of the
    class table here (naming them) and where models do not fit together as an ensemble.
    """
    versions = list(dict.fromkeys(model_version(uri, settings) for uri in models))
    checkpoints = tuple(fetch_checkpoint(version, settings) for version in versions)
    metadata = require_ensemble(checkpoints)
    teacher = teacher_of(checkpoints, metadata)
    return (
        Teacher(
            name="+".join(dict.fromkeys(version.name for version in versions)),
            version="+".join(str(version.version) for version in versions),
            uris=tuple(version.uri for version in versions),
            run_id=versions[0].run_id if len(versions) == 1 else None,
            checkpoints=checkpoints,
            digests=teacher.digests,
            classes=teacher.classes,
            licence=joined_teachers([_licence(version, settings) for version in versions]),
        ),
        versions,
    )


def teacher_of(checkpoints: Sequence[Path], metadata: ModelMetadata | None = None) -> Teacher:
    """Return a teacher that no registry knows, by its checkpoints: it goes by the names of their files."""
    metadata = metadata or require_ensemble(checkpoints)
    names = [path.stem for path in checkpoints]
    files = [file for path in checkpoints for file in members(path)]
    return Teacher(
        name="+".join(names),
        version="0",
        uris=tuple(path.name for path in checkpoints),
        run_id=None,
        checkpoints=tuple(checkpoints),
        digests=tuple(checkpoint_digest(path) for path in checkpoints),
        classes=trained_classes(metadata),
        licence=joined_teachers([licence_of_training(read_metadata(file).extra.get(LICENCE), ()) for file in files]),
    )


def joined_teachers(licences: Sequence[str | None]) -> str | None:
    """Return the strictest licence of the members of an ensemble; None where that of one is not known."""
    return joined([licence_of(one, what="model") for one in licences]).licence


def _licence(version: ModelVersion, settings: Settings) -> str | None:
    try:
        return teacher_licence(version, settings)
    except (MlflowException, OSError):  # nobody wrote down what it was trained on
        return None


def cases_seen(versions: Sequence[ModelVersion], settings: Settings) -> list[str] | None:
    """Return the ids of all cases that any of the versions was trained on; None where one does not say."""
    seen: dict[str, None] = {}
    for version in versions:
        try:
            seen |= dict.fromkeys(training_cases(version, settings))
        except (MlflowException, OSError):
            return None
    return list(seen)
