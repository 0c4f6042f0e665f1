"""All settings of the factory, once: `CTFACTORY_*` in the environment, or `ctfactory.toml` in the working folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from catalog.location import Location
from datasets_registry.card_files import VARIABLE as CARDS_VARIABLE
from datasets_registry.class_rules import rule_switches
from datasets_registry.taxonomy import class_info
from datasets_registry.taxonomy_own import TAXONOMY_VARIABLE

Share = float


class Settings(BaseSettings):
    """Where things lie and how they run; every default is local and embedded.

    The environment wins over the file, the file over the defaults. Unknown keys in the file are errors.
    """

    model_config = SettingsConfigDict(
        env_prefix="CTFACTORY_", toml_file="ctfactory.toml", extra="forbid", frozen=True, env_ignore_empty=True
    )

    workspace: Path = Field(Path("workspace"), description="Folder that holds everything not placed elsewhere.")
    lake_root: str | None = Field(
        None, description="Folder or URL (s3://bucket/prefix, gs://, az://) of the lake; default WORKSPACE/lake."
    )
    mlflow_tracking_uri: str | None = Field(
        None, description="MLflow server or database; default a SQLite file in WORKSPACE/mlflow."
    )
    prefect_home: Path | None = Field(
        None, description="Folder of the local Prefect server's database; default WORKSPACE/prefect."
    )
    dask_address: str | None = Field(
        None,
        description="Where the cases of a batch run: `local` starts worker processes on this machine, tcp://host:8786 "
        "names a running Dask scheduler, whose workers have one thread each and see the same folders; empty runs a "
        "plain loop in this process.",
    )
    workers: PositiveInt | None = Field(
        None, description="Worker processes of `local`; default one a core, while each has 4 GiB of memory."
    )
    worker_memory_gib: PositiveFloat | None = Field(
        None,
        description="Memory in GiB at which a worker of `local` is ended and its case tried again; default an equal "
        "share of the machine's.",
    )
    case_limit_s: PositiveFloat = Field(
        3600.0,
        description="Seconds after which a Dask worker still busy with one case is ended, and the case tried again.",
    )
    batch_cases: PositiveInt = Field(64, description="Cases in one Prefect task.")

    cards: str | None = Field(
        None, description="Folders with cards of your own, separated as in PATH; read from the environment only."
    )
    taxonomy: str | None = Field(
        None, description="YAML file with classes of your own, from index 33 on; read from the environment only."
    )
    raw_root: Path | None = Field(None, description="Folder of downloaded files; default WORKSPACE/raw.")
    download_parallel: PositiveInt = Field(4, description="Files of a data set that download at the same time.")
    download_parallel_per_host: PositiveInt = Field(
        2, description="Connections to one host, over all commands that share the raw folder."
    )
    download_timeout_s: PositiveFloat = Field(
        60.0, description="Seconds without a byte after which a connection counts as stalled."
    )
    download_retries: NonNegativeInt = Field(
        5, description="Attempts in a row without a new byte before a download gives up."
    )
    download_retry_after_max_s: PositiveFloat = Field(
        600.0, description="The longest wait that a server may ask for, in seconds; a longer one ends the download."
    )
    unpack_max_bytes: PositiveInt = Field(2**40, description="Bytes that one archive may unpack to.")
    unpack_max_ratio: PositiveFloat = Field(300.0, description="Unpacked bytes per packed byte that are believed.")
    unpack_max_members: PositiveInt = Field(2_000_000, description="Files and folders that one archive may hold.")
    synapse_token: SecretStr | None = Field(
        None, description="Personal access token of Synapse with the permissions view and download."
    )
    archive_passwords: dict[str, SecretStr] = Field(
        {}, description='Passwords of encrypted archives by data set, as JSON: `{"word": "..."}`.'
    )
    terms_accepted: tuple[str, ...] = Field(
        (),
        description="Data sets (JSON list of ids) for which you registered and accepted the terms; their files are "
        "then downloaded.",
    )

    spacing_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = Field(
        (1.5, 1.5, 1.5), description="Voxel spacing of the lake grid along R, A, S, in mm."
    )
    sampled_voxels: PositiveInt = Field(
        256, description="Foreground positions kept per case and class, from which patches are centred."
    )
    tumour_free_negatives: bool = Field(
        True,
        description="Train on cases of a set whose source states that nobody has a lesion as negatives for it.",
    )

    experiment: str = Field(
        "ct-label-factory", description="First part of the names of MLflow experiments; `/train` and so on follow."
    )
    mlflow_patience_s: NonNegativeFloat = Field(
        300.0,
        description="Seconds for which a registration is tried again while MLflow does not answer; the weights are "
        "then kept in WORKSPACE/pending for `ctfactory models register --pending`.",
    )
    mlflow_flush_s: PositiveFloat = Field(
        20.0, description="Seconds that the end of a training waits for its last metrics to reach MLflow."
    )
    model_name: str = Field("universal", description="Name of the registered model.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where networks run.")
    threads: PositiveInt | None = Field(None, description="CPU threads of one network; default all cores.")

    nsd_tolerance_mm: PositiveFloat = Field(2.0, description="Surface distance counted as agreement in NSD, in mm.")
    detection_min_ml: PositiveFloat = Field(
        0.5, description="A patient counts as lesion-positive when at least this volume is predicted, in ml."
    )
    lesion_min_ml: NonNegativeFloat = Field(
        0.05, description="Smaller lesions, drawn or predicted, are not counted one by one, in ml."
    )
    operating_sensitivity: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Sensitivity that the volume limit chosen in an evaluation must keep, at the best specificity; "
        "default the limit of the largest sensitivity + specificity.",
    )
    window_overlap: float = Field(
        0.5, ge=0, lt=1, description="Share of a prediction window that its neighbour repeats."
    )
    window_batch: PositiveInt | None = Field(
        None, description="Windows of a scan predicted in one pass; default by the device, fewer where memory runs out."
    )
    predict_precision: Literal["32-true", "bf16-mixed", "16-mixed"] | None = Field(
        None, description="Precision of prediction; default 16-mixed on a GPU and 32-true on a CPU."
    )
    test_time_variants: int = Field(
        0,
        ge=0,
        le=4,
        description="Passes over each scan besides the first, shifted and brighter, darker or noisier: how far their "
        "masks agree is a score of pseudo-labels. Each takes as long as the prediction; an ensemble needs none.",
    )
    accept_dsc: Share = Field(
        0.80, ge=0, le=1, description="Pseudo-labels are accepted from this expected DSC on; see `decision_bars`."
    )
    reject_dsc: Share = Field(
        0.50, ge=0, le=1, description="Pseudo-labels are rejected below this expected DSC; between the two, review."
    )
    decision_bars: dict[str, tuple[Share, Share]] = Field(
        {},
        description="The two bars of classes that need their own, as JSON or a table of the TOML file: "
        '`{"pancreas": [0.75, 0.4]}`, accepted from the first on, rejected below the second.',
    )
    plausible_z: PositiveFloat = Field(
        6.0,
        description="Robust z-score against human labels beyond which size, place, parts or HU of a mask ask for "
        "review, whatever DSC is expected.",
    )

    cleaning: str = Field(
        "all",
        description="Rules that clean predicted masks: `all`, `none`, or some of `min_size`, `sides`, "
        "`largest_component`, `holes`, `inside_organ`, `includes_lesions`, separated by commas; `-holes` leaves one "
        "out, `-holes:colon` for one class.",
    )

    gates: str = Field(
        "default", description="Gates of a promotion: the name of a file in tasks/gates, or the path of a YAML file."
    )
    operator: str | None = Field(
        None, description="Name written down for decisions, such as a promotion; default the user of the system."
    )

    @field_validator("cards", "taxonomy")
    @classmethod
    def _own_tables_are_seen_by_every_process(cls, value: str | None, info: ValidationInfo) -> str | None:
        variable = {"cards": CARDS_VARIABLE, "taxonomy": TAXONOMY_VARIABLE}[str(info.field_name)]
        if value is not None and value != os.environ.get(variable):
            raise ValueError(
                f"{info.field_name} is {value!r} here; set {variable} in the environment, which workers inherit"
            )
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  (the signature is pydantic's)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order of the sources: arguments, environment, TOML file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @field_validator("decision_bars")
    @classmethod
    def _bars_are_of_known_classes(cls, bars: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        for name, (accept, reject) in bars.items():
            try:
                class_info(name)
            except KeyError as unknown:
                raise ValueError(f"decision_bars: {unknown.args[0]}") from None
            if not 0 <= reject <= accept <= 1:
                raise ValueError(
                    f"decision_bars: {name} has the bars {accept:g} and {reject:g}; expected "
                    "[accepted from, rejected below], 0 <= second <= first <= 1"
                )
        return bars

    @model_validator(mode="after")
    def _rejected_lies_below_accepted(self) -> Settings:
        if self.reject_dsc > self.accept_dsc:
            raise ValueError(f"reject_dsc {self.reject_dsc:g} lies above accept_dsc {self.accept_dsc:g}; exchange them")
        return self

    @field_validator("cleaning")
    @classmethod
    def _cleaning_rules_are_known(cls, value: str) -> str:
        try:
            return rule_switches(value).text()
        except KeyError as error:
            raise ValueError(error.args[0]) from None

    @field_validator("lake_root", mode="before")
    @classmethod
    def _lake_is_somewhere(cls, value: object) -> object:
        # A path is taken too; a URL that nothing opens is refused here, before any work is done.
        return value if value is None else Location.of(str(value)).url

    @property
    def lake(self) -> Location:
        """Where the lake is: `volumes/` and `tables/` lie below."""
        return Location.of(self.lake_root or self.workspace / "lake")

    @property
    def raw_folder(self) -> Path:
        """Folder of the raw zone: one folder a data set, with `downloads/` and `unpacked/` in it."""
        return (self.raw_root or self.workspace / "raw").absolute()

    @property
    def mlflow_uri(self) -> str:
        """Tracking and registry URI of MLflow."""
        return self.mlflow_tracking_uri or f"sqlite:///{(self.workspace / 'mlflow' / 'mlflow.db').absolute()}"

    def for_workers(self) -> Settings:
        """Return what workers are sent: no secrets, and places that do not depend on their working folder."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        places = {name: value.absolute() for name, value in values.items() if isinstance(value, Path)}
        return self.model_copy(update={**places, "synapse_token": None, "archive_passwords": {}})

    def torch_device(self) -> str:
        """Return `cuda` or `cpu`; `auto` takes a GPU where there is one. ValueError for `cuda` without a GPU."""
        import torch  # heavy, and not needed to read settings

        there = torch.cuda.is_available()
        if self.device == "cuda" and not there:
            raise ValueError("device is 'cuda', but PyTorch sees no GPU here; set CTFACTORY_DEVICE=cpu, or auto")
        return "cuda" if there and self.device != "cpu" else "cpu"

    @property
    def prefect_folder(self) -> Path:
        """Folder of the local Prefect server."""
        return (self.prefect_home or self.workspace / "prefect").absolute()


def with_values(settings: Settings, **values: object) -> Settings:
    """Return the settings with some values replaced, those that are not None; ValueError for a bad one, as always."""
    given = {name: value for name, value in values.items() if value is not None}
    return Settings(**{**dict(settings), **given}) if given else settings


def settings_reference() -> str:
    """Return the table of all settings as Markdown: variable, default, meaning."""
    rows = [
        f"| `CTFACTORY_{name.upper()}` | `{_default_text(field.default)}` | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(["| variable | default | meaning |", "| --- | --- | --- |", *rows]) + "\n"


def _default_text(value: object) -> str:
    if value is None:
        return ""
    return str(value)
