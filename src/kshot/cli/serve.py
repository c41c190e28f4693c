"""`kshot serve`: the page for a folder of images."""

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from kshot.cli import options as o
from kshot.cli.output import described, say, say_notes

SERVE_EXAMPLES = """Examples:

kshot serve photos/

kshot serve photos/ support/ -o out/ --open

kshot serve photos/ --task cat.kshot --port 9000
"""


_server = partial(o.option, "Server")


@o.grouped()
def serve(
    *,
    paths: Annotated[
        list[str], typer.Argument(metavar="IMAGES [SUPPORT]", help="Images; then a support folder, if there is one.")
    ],
    task_file: Annotated[Path | None, typer.Option("--task", help="Begin with a task file of `kshot fit`.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the results. NAME-kshot without it.")
    ] = None,
    host: Annotated[str, _server("Address to listen on; any but loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, _server("Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8765,
    token: Annotated[str | None, _server("Secret that requests must carry.", env="TOKEN")] = None,
    open_browser: Annotated[bool, _server("Open the page in the browser.", "--open")] = False,
    read_only: Annotated[bool, _server("Only show the results in the folder.", "--read-only")] = False,
    label_studio: Annotated[
        bool, _server("Answer as a machine learning backend of Label Studio, too.", "--label-studio")
    ] = False,
    cache: Annotated[Path | None, _server("Folder of features, by default in the user's cache.")] = None,
    model: o.Model,
) -> None:
    """Label a folder on a page in the browser: paint on one image, and watch the class appear in all the others."""
    from kshot.serve import serve as run

    images = paths[:1]
    if len(paths) > 2:
        images, paths = paths, paths[:1]
    supports = None
    if len(paths) == 2:
        from kshot.types import SupportSet

        supports = SupportSet.from_folder(paths[1])
        say_notes(supports)
        say(described(supports))
    task = None
    if task_file is not None:
        from kshot.tasks import load_task

        task = load_task(task_file, model.method_file)
    run(
        images if len(images) > 1 else images[0],
        out,
        segmenter=model.segmenter_of(task) if task else model.segmenter(),
        supports=supports,
        task=task,
        host=host,
        port=port,
        token=token,
        open_browser=open_browser,
        read_only=read_only,
        cache=cache,
        label_studio=label_studio,
        command=shlex.join(["kshot", *sys.argv[1:]]),
        told=typer.echo,
    )
