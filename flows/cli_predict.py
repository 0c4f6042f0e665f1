"""`ctfactory predict`: the masks of one scan, without a lake and without Prefect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_options import AsJson, Workspace, settings_for, split_names

if TYPE_CHECKING:
    from models.infer_progress import PredictionProgress


def predict(
    scan: Annotated[str, typer.Argument(help="A .nii.gz or .nrrd file, a folder with one DICOM series, or a case id.")],
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A registered model (default champion) or a .safetensors file; given several times, an ensemble."
        ),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Only these classes, separated by commas; default all the model was trained on.")
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help='EXPERIMENTAL: look for what no class is for, by its name: --prompt "left renal vein".'),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the files; default WORKSPACE/predictions/SCAN.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or auto; default CTFACTORY_DEVICE.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="32-true, bf16-mixed or 16-mixed; default 16-mixed on a GPU, 32-true else.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option("--text-encoder", help="Embeds the prompts; default the one the model was made with.")
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Predict one scan: masks in its own geometry as NIfTI, the meaning of their values, and a picture.

    What the prediction will take is told after its first windows. A scan of another spacing than the model's is
    resampled, and its masks back.
    """
    from flows.console import console, errors, notices, print_json, print_table, progress_bars
    from tasks.predict import PredictRequest, predict_scan
    from tasks.prediction import tell_progress
    from tasks.settings import with_values

    settings = with_values(settings_for(workspace), device=device, predict_precision=precision)
    request = PredictRequest(
        scan,
        tuple(model or ["champion"]),
        None if classes is None else tuple(split_names(classes)),
        tuple(prompt or ()),
        encoder,
        out,
    )
    told: list[str] = []

    def report(progress: PredictionProgress) -> None:
        if not told:
            told.append(progress.estimate())
            errors.print(told[0], highlight=False, soft_wrap=True)
        if not as_json:
            tell_progress(progress)

    with progress_bars(enabled=not as_json), notices():
        outcome = predict_scan(request, settings, report)
    if as_json:
        print_json({**vars(outcome), "found": [vars(item) for item in outcome.found]})
        return
    rows = [
        (f"{item.name} (EXPERIMENTAL)" if item.experimental else item.name, item.ml, item.mean_probability)
        for item in outcome.found
    ]
    print_table(f"{outcome.scan} by {', '.join(outcome.models)}", ("class", "ml", "mean probability"), rows)
    files = dict.fromkeys([*(item.file for item in outcome.found), outcome.overlay])
    console.print(f"{outcome.seconds:.1f} s; wrote {', '.join(map(str, files))}", soft_wrap=True, highlight=False)
