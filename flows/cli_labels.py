"""`ctfactory labels ...` takes a run's pseudo-labels back; `ctfactory review ...` is the queue and what is decided."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_options import AsJson, Workspace, opened, settings_for, split_names

if TYPE_CHECKING:
    import pandas as pd

labels_app = typer.Typer(help="Take the pseudo-labels of a run back, or bring them back.", no_args_is_help=True)
review_app = typer.Typer(
    help="Pseudo-labels that wait for a person: the queue, verdicts, corrected masks.", no_args_is_help=True
)

Run = Annotated[
    str,
    typer.Argument(help="Id of a pseudo-label or review run, of its flow or MLflow run, or models:/NAME/VERSION."),
]
Case = Annotated[str, typer.Argument(help="A case's id, DATASET/NATIVE_ID.")]
Classes = Annotated[str, typer.Option("--class", "--classes", help="Classes, separated by commas.")]
Why = Annotated[str, typer.Option(help="The reason; kept with the labels.")]
Who = Annotated[str | None, typer.Option(help="Who decides; default the name of this account.")]
Annotation = Annotated[
    str | None, typer.Option(help="Which annotation is meant, where several have the class; default the first in line.")
]


@labels_app.command()
def retract(
    run: Run,
    why: Why = "retracted",
    who: Who = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Take every pseudo-label of a run back: nothing counts, shows or trains on it any more. Human labels stay.

    Nothing is deleted: `labels restore` brings them back, and earlier versions of the tables stay as they were.
    """
    from catalog.label_decisions import retract as take_back

    _tell("retracted", run, take_back(opened(workspace), run, who=_name(who), why=why), as_json=as_json)


@labels_app.command()
def restore(
    run: Run,
    why: Why = "restored",
    who: Who = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Bring back what `labels retract RUN` took back."""
    from catalog.label_decisions import restore as bring_back

    _tell("restored", run, bring_back(opened(workspace), run, who=_name(who), why=why), as_json=as_json)


@review_app.command("list")
def queue(
    cohort: Annotated[str | None, typer.Option(help="Only this data set.")] = None,
    class_name: Annotated[str | None, typer.Option("--class", help="Only this class.")] = None,
    decision: Annotated[
        str, typer.Option(help="Decisions of the factory, separated by commas: accept, review, reject, none.")
    ] = "review,none",
    limit: Annotated[int, typer.Option(min=1, help="Rows printed as a table; JSON has all.")] = 50,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """List the pseudo-labels that wait for a person, the largest expected gain first.

    Gain = (DSC the class reaches - DSC expected of this label) x a weight that grows as the class gets rarer.
    """
    from catalog.plain import plain_rows
    from catalog.review_queue import review_queue
    from flows.catalog_tables import rows_table
    from flows.console import console, print_json

    found = review_queue(
        opened(workspace), dataset=cohort, class_name=class_name, decisions=tuple(split_names(decision))
    )
    if as_json:
        print_json(plain_rows(found))
        return
    if found.empty:
        console.print("nothing waits", highlight=False)
        return
    shown = found.head(limit).assign(model=found["model_name"].fillna("") + " " + found["model_version"].fillna(""))
    columns = {
        "case_id": "case",
        "class_name": "class",
        "decision": "decision",
        "gain": "gain",
        "expected": "expected DSC",
        "ml": "ml",
        "model": "model",
        "reason": "reason",
    }
    rows = [list(row.values()) for row in plain_rows(shown[list(columns)].round(3))]
    console.print(rows_table(list(columns.values()), rows, console.width), highlight=False)
    if len(found) > limit:
        console.print(f"{limit} of {len(found)} labels; --limit shows more", highlight=False)


@review_app.command()
def accept(
    case: Case,
    classes: Classes,
    why: Why,
    annotation: Annotation = None,
    who: Who = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Accept pseudo-labels as they are: they go before those nobody looked at, and may be learnt from."""
    _judge("accepted", case, classes, why, annotation, who, workspace, as_json=as_json)


@review_app.command()
def reject(
    case: Case,
    classes: Classes,
    why: Why,
    annotation: Annotation = None,
    who: Who = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Reject pseudo-labels: they count nowhere; another model's mask takes their place where there is one."""
    _judge("rejected", case, classes, why, annotation, who, workspace, as_json=as_json)


@review_app.command("import")
def import_(
    case: Case,
    file: Annotated[
        Path, typer.Argument(help="The corrected mask: NIfTI, .seg.nrrd or DICOM SEG, on the scan's grid.")
    ],
    classes: Classes,
    why: Why,
    who: Who = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Commit a corrected mask as a new annotation; of each class named, an empty mask says that it is absent."""
    from flows.console import console, print_json
    from tasks.review import import_mask
    from tasks.workspace import existing_workspace

    place = existing_workspace(settings_for(workspace))
    made = import_mask(place, case, file, split_names(classes), who=_name(who), why=why)
    if as_json:
        print_json(vars(made))
        return
    for name, ml in made.ml.items():
        console.print(f"{case}: {name} {f'{ml:.1f} ml' if ml else 'absent'}", highlight=False, soft_wrap=True)
    console.print(
        f"{made.annotation}: {made.new or 'no'} new labels; take back with `ctfactory labels retract {made.run_id}`",
        highlight=False,
        soft_wrap=True,
    )
    if made.retracted:
        console.print(f"retracted earlier, and still so: {', '.join(made.retracted)}; `ctfactory labels restore`")


def _judge(
    verdict: str,
    case: str,
    classes: str,
    why: str,
    annotation: str | None,
    who: str | None,
    workspace: Path | None,
    *,
    as_json: bool,
) -> None:
    from catalog.label_decisions import judge
    from flows.console import console, print_json

    names = split_names(classes)
    found = judge(
        opened(workspace),
        case,
        names,
        "accepted" if verdict == "accepted" else "rejected",
        who=_name(who),
        why=why,
        annotation=annotation,
    )
    if as_json:
        print_json({verdict: found.to_dict("records"), "case_id": case})
        return
    for row in found.to_dict("records"):
        console.print(f"{case}: {row['class_name']} of {row['annotation']} {verdict}", highlight=False, soft_wrap=True)
    if len(found) < len(names):
        console.print(f"{len(names) - len(found)} {verdict} already", highlight=False)


def _tell(what: str, run: str, labels: pd.DataFrame, *, as_json: bool) -> None:
    from flows.console import console, print_json

    by_class = dict(sorted(Counter(labels["class_name"]).items()))
    counts = {"run": run, what: len(labels), "cases": labels["case_id"].nunique(), "classes": by_class}
    if as_json:
        print_json(counts)
        return
    console.print(f"{run}: {len(labels)} labels of {counts['cases']} cases {what}", highlight=False, soft_wrap=True)


def _name(who: str | None) -> str:
    if who is not None:
        return who
    import getpass

    return getpass.getuser()
