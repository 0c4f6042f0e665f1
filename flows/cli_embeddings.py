"""The command that shows how near the classes lie in the text embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli_options import AsJson, Workspace, settings_for

embeddings_app = typer.Typer(help="The text embeddings of the classes.", no_args_is_help=True)


@embeddings_app.command("show")
def embeddings_show(
    encoder: Annotated[
        str, typer.Option(help="hashing, one_hot, random, or open_clip:MODEL:TAG or file (open_clip:ViT-B-32:openai).")
    ] = "hashing",
    prompt: Annotated[str, typer.Option(help="V1, V2, V3 or V4 of the paper.")] = "V1",
    model: Annotated[str | None, typer.Option(help="A registered version, whose own embeddings are shown.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the whole table of cosines to this file.")] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Print which classes are nearest to each, and draw the matrix of cosines and a map of the classes.

    The pictures lie in the workspace's folder `embeddings`. --json and --csv give the whole table.
    """
    from datasets_registry.taxonomy import class_info
    from flows.console import console, notices, print_json, print_table
    from tasks.embedding_pictures import class_map, similarity_matrix
    from tasks.embeddings import class_similarities

    settings = settings_for(workspace)
    with notices():
        found = class_similarities(settings, encoder, prompt, model)
    folder = settings.workspace.absolute() / "embeddings"
    pictures = [
        similarity_matrix(found, folder / f"{found.slug}-cosines.png"),
        class_map(found, folder / f"{found.slug}-map.png"),
    ]
    if csv is not None:
        csv.parent.mkdir(parents=True, exist_ok=True)
        found.table.to_csv(csv, float_format="%.6f")
    about = found.embeddings
    if as_json:
        print_json(
            {
                "encoder": about.encoder,
                "prompt": about.prompt,
                "digest": about.digest,
                "classes": list(about.names),
                "cosines": [[round(float(value), 6) for value in row] for row in found.cosines],
                "pictures": pictures,
            }
        )
        return
    rows = [
        (class_info(name).title, *(f"{class_info(other).title} {cosine:.2f}" for other, cosine in near))
        for name, near in found.neighbours()
    ]
    columns = ("class", "nearest", "second", "third")
    print_table(f"{about.encoder}, prompt {about.prompt}, digest {about.digest[:12]}", columns[: len(rows[0])], rows)
    for picture in pictures:
        console.print(str(picture), soft_wrap=True, highlight=False)
