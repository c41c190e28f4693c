"""From a folder of images to a running server."""

import logging
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kshot.batch.inputs import Images, common_root, roots_of
from kshot.batch.run import stems_of_run
from kshot.errors import SettingError
from kshot.io.manifest import MANIFEST, is_begun, read_manifest, read_settings
from kshot.io.paths import user_cache
from kshot.methods.base import Support, Task
from kshot.segmenter import Segmenter
from kshot.types import SupportSet

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger(__name__)
PORT = 8765
_ANY = ("0.0.0.0", "::")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_CONNECTIONS = 256
_WORKERS = 8


def serve(
    images: Images,
    out: str | Path | None = None,
    *,
    segmenter: Segmenter | None = None,
    supports: SupportSet | None = None,
    task: Task | None = None,
    host: str = "127.0.0.1",
    port: int = PORT,
    token: str | None = None,
    open_browser: bool = False,
    read_only: bool = False,
    cache: Path | None = None,
    label_studio: bool = False,
    command: str = "",
    told: Callable[[str], None] = log.info,
) -> None:
    """Serve the page over a folder of images until Ctrl-C.

    out: the output folder, as of `label_folder`; by default beside the working directory, named after the images.
    supports, task: examples to begin with, one or the other. host: other than loopback needs a token, which is made
    when none is
    given. port: 0 takes any that is free. cache: folder of features. label_studio: answer as a machine learning backend
    of Label Studio, too. told: gets lines for people. A Segmenter that chooses its size does so by the supports.
    Raises `InputError` without images, `SettingError` for a port that is in use or an output folder of other files,
    `OutputError` where nothing can be written or another run is at work.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise SettingError("the page needs FastAPI and uvicorn; pip install 'kshot[serve]'") from error
    if host not in _LOOPBACK and token is None:
        token = secrets.token_urlsafe(24)
    out = Path(out) if out is not None else Path(f"{common_root(images).resolve().name}-kshot")
    segmenter = segmenter or (Segmenter.for_task(task) if task is not None else Segmenter())
    if segmenter.chooses_size and task is None:
        segmenter = _at_chosen_size(segmenter, supports, told)
    with ExitStack() as stack:
        listener = stack.enter_context(_listen(host, port))
        place = f"{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        app = stack.enter_context(
            opened(
                images,
                out,
                segmenter,
                supports=supports,
                task=task,
                read_only=read_only,
                cache=cache,
                label_studio=label_studio,
                workers=stack.enter_context(_one_thread_an_image()),
                command=command,
            )
        )
        from kshot.serve.guard import Guard

        port = listener.getsockname()[1]
        # Behind an address that stands for all, names are not known; there the token alone decides.
        names = {place, *(f"{name}:{port}" for name in _names_of(host))} if host not in _ANY else set()
        guarded = Guard(app, names, token or "")
        address = f"http://{place}/" + (f"?token={token}" if token else "")
        told(f"open {address}")
        told(f"results in {out}; Ctrl-C ends the server, and nothing accepted is lost")
        if open_browser:
            threading.Timer(1.0, webbrowser.open, [address]).start()
        config = uvicorn.Config(
            guarded, log_level="warning", access_log=False, limit_concurrency=_CONNECTIONS, timeout_graceful_shutdown=3
        )
        server = uvicorn.Server(config)
        app.state.ending = lambda: server.should_exit  # requests that wait for a change would hold it up
        server.run([listener])


@contextmanager
def opened(
    images: Images,
    out: Path,
    segmenter: Segmenter,
    *,
    supports: SupportSet | None = None,
    task: Task | None = None,
    read_only: bool = False,
    cache: Path | None = None,
    label_studio: bool = False,
    workers: int = 1,
    command: str = "",
) -> "Iterator[FastAPI]":
    """The application, which holds the output folder. Raises as `serve` does.

    workers: images that are scored at once.
    """
    from kshot.serve.app import create_app
    from kshot.serve.background import Background
    from kshot.serve.images import ServedImages
    from kshot.serve.label_studio import add_label_studio
    from kshot.serve.predictions import Predictions
    from kshot.serve.results import Results
    from kshot.serve.run_writer import DRAWN, RunWriter
    from kshot.serve.workspace import Workspace

    if task is not None:
        segmenter = segmenter.at_size(task.feature_spec.size)
    begun = is_begun(out)
    if read_only and not begun:
        raise SettingError(f"{out}: no {MANIFEST} in it, and --read-only shows results; give a run's folder with -o")
    if supports is not None and task is not None:
        raise SettingError("give supports or a task (--task), not both")
    classes, given = _given(segmenter, supports, task)
    if begun and not classes:
        named = read_settings(out).get("classes", [])
        classes = tuple(str(name) for name in named) if isinstance(named, list) else ()
    served = ServedImages(segmenter, images, out, stems_of_run(out), (cache or user_cache()) / "features")
    with ExitStack() as stack:
        writer = None if read_only else stack.enter_context(RunWriter(out, roots_of(images)))
        workspace = Workspace(
            served,
            Predictions(segmenter, served),
            writer,
            out,
            classes=classes,
            base_supports=given,
            records=read_manifest(out) if begun else [],
            # What a run of `kshot label` found is not replaced until somebody asks for it.
            live=not read_only and (not begun or (out / DRAWN).is_file()),
        )
        results = Results(workspace, writer, str(served.root), command) if writer is not None else None
        app = create_app(workspace, Background(workspace, results, workers))
        if label_studio:
            add_label_studio(app, workspace)
        yield app


def _at_chosen_size(segmenter: Segmenter, supports: SupportSet | None, told: Callable[[str], None]) -> Segmenter:
    """The Segmenter at the size that suits the supports: the page encodes its images once, at one size."""
    if supports is None:
        raise SettingError(
            "size 'auto' (--size) chooses by supports, and the page begins without any; give a support folder or a "
            "task (--task), or a size in pixels"
        )
    task = segmenter.fit(supports)
    told(str(task.size_choice))
    return segmenter.at_size(task.feature_spec.size)


@contextmanager
def _one_thread_an_image() -> Iterator[int]:
    """How many images to work on at once. PyTorch takes fewer threads for each meanwhile.

    Answers are many small tensors: threads that share one gain little, and where other work keeps a core busy, all of
    them wait for the slowest.
    """
    import torch

    before = torch.get_num_threads()
    workers = min(_WORKERS, before)
    torch.set_num_threads(before // workers)
    try:
        yield workers
    finally:
        torch.set_num_threads(before)


def _given(
    segmenter: Segmenter, supports: SupportSet | None, task: Task | None
) -> tuple[tuple[str, ...], Sequence[Support]]:
    if task is not None:
        task.check_backbone(segmenter.feature_spec.identity)
        return task.classes, task.supports
    if supports is not None:
        return supports.classes, segmenter.encode(supports, supports.classes)
    return (), ()


def _names_of(host: str) -> tuple[str, ...]:
    return ("127.0.0.1", "localhost", "[::1]") if host in _LOOPBACK else (host,)


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises `SettingError` that names the next free port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        free = next((n for n in range(port + 1, min(port + 50, 65536)) if _is_free(host, n, family)), 0)
        reason = getattr(error, "strerror", None) or str(error)
        raise SettingError(f"port {port} of {host}: {reason}; take another, such as --port {free}") from error
    return listener


def _is_free(host: str, port: int, family: int) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
