"""The HTTP API, and the page that uses it. Images are known by their number: no path of a request reaches the disk."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Annotated, Any

from fastapi import FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import Field

from kshot._version import __version__
from kshot.errors import ImageReadError, InputError, KshotError, OutputError
from kshot.io.csv_rows import csv_text
from kshot.serve import schemas as s
from kshot.serve.answers import Answer, mask_of_png, rle_of
from kshot.serve.background import Background
from kshot.serve.export import export, formats
from kshot.serve.history import NothingToUndoError
from kshot.serve.images import THUMBNAIL
from kshot.serve.listing import Filter, listed, row, status
from kshot.serve.marks import Mark
from kshot.serve.shown_masks import StaleError
from kshot.serve.workspace import ReadOnlyError, Workspace

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_ASSETS = {path.name: path for path in files("kshot.serve").joinpath("page").iterdir() if path.name[-3:] != ".py"}
_MOST_WAIT = 25.0
Session = Annotated[
    str, Header(alias="X-Kshot-Session", max_length=64, description="Of a window; undo takes back its own steps.")
]
Index = Annotated[int, Field(ge=0, description="Number of the image.")]
Side = Annotated[int, Query(ge=0, le=4096, description="Longer side in pixels at most; 0 is the image's own size.")]
WindowSide = Annotated[int, Query(ge=1, le=4096, description="Longer side in pixels at most.")]
Edge = Annotated[int, Query(ge=0, le=10**7, description="In pixels of the image.")]
_PNG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {}, "application/json": {}}, "description": "The mask, as PNG or run lengths."}
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    code: {"model": s.Problem, "description": text}
    for code, text in {
        400: "What was asked for is not possible.",
        401: "The token is missing.",
        403: "Read-only, or asked by another site.",
        404: "No such image.",
        409: "Another window was faster.",
        413: "Too much data.",
        415: "A body of another type.",
        421: "Another host name.",
        422: "Not what the API takes.",
        507: "The disk takes no more.",
    }.items()
}


def create_app(workspace: Workspace, background: Background) -> FastAPI:
    """The application over a workspace; its lifespan runs the background."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        background.start()
        yield
        await asyncio.to_thread(background.stop)

    app = FastAPI(
        title="kshot serve",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        responses=_REFUSALS,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.ending = lambda: False  # whoever runs the server knows better
    _add_refusals(app)
    _add_page(app)
    _add_folder(app, workspace, background)
    _add_images(app, workspace, background)
    _add_steps(app, workspace, background)
    return app


def _add_refusals(app: FastAPI) -> None:
    codes = {StaleError: 409, NothingToUndoError: 409, ReadOnlyError: 403, ImageReadError: 404, OutputError: 507}

    @app.exception_handler(KshotError)
    async def refuse(_: Request, error: KshotError) -> JSONResponse:
        code = next((code for kind, code in codes.items() if isinstance(error, kind)), 400)
        return JSONResponse({"detail": str(error)}, code if isinstance(error, InputError | OutputError) else 500)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        return JSONResponse({"detail": f"{where or 'the request'}: {first['msg']}"}, 422)

    @app.middleware("http")
    async def only_json(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        # A form of another site can send other types without being asked; JSON it cannot.
        kind = request.headers.get("content-type", "").partition(";")[0]
        length = request.headers.get("content-length", "0")
        if request.method not in {"GET", "HEAD"} and kind not in {"application/json", "image/png"} and length != "0":
            return JSONResponse({"detail": "send application/json"}, 415)
        return await go_on(request)


def _add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    def page() -> Response:
        return _asset("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    def asset(name: str) -> Response:
        return _asset(name)


def _asset(name: str) -> Response:
    if name not in _ASSETS:
        return JSONResponse({"detail": "no such file of the page"}, 404)
    kind = _TYPES.get("." + name.rpartition(".")[2], "application/octet-stream")
    return Response(_ASSETS[name].read_bytes(), media_type=kind, headers={"Cache-Control": "no-cache"})


def _add_folder(app: FastAPI, workspace: Workspace, background: Background) -> None:
    @app.get("/api/status")
    def get_status(session: Session = "") -> s.Status:
        """Classes, counts and progress."""
        return status(workspace, background, session)

    @app.get("/api/changes")
    async def get_changes(
        since: Annotated[int, Query(ge=0)] = 0,
        wait: Annotated[float, Query(ge=0, le=_MOST_WAIT, description="Seconds to wait for a change.")] = 0.0,
        session: Session = "",
    ) -> s.Changes:
        """What has changed since a version; waits for something to change."""
        now = asyncio.get_running_loop().time
        until = now() + wait
        while workspace.folder.version <= since and now() < until and not app.state.ending():
            await asyncio.sleep(0.04)
        if wait:  # what changes at about the same time is told at once
            await asyncio.sleep(0.1)
        found = await asyncio.to_thread(status, workspace, background, session)
        return s.Changes(status=found, changed=workspace.folder.changes(since))

    @app.get("/api/images")
    def get_images(
        sort: s.Sort = "uncertainty",
        state: s.State | None = None,
        class_name: Annotated[str, Query(max_length=100)] = "",
        name: Annotated[str, Query(max_length=200)] = "",
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=0, le=1000)] = 100,
    ) -> s.ImageList:
        """The images that fit, in order: some of them whole, and the numbers of all."""
        return listed(workspace, background, Filter(sort, state, class_name, name), offset, limit)

    @app.get("/api/rows")
    def get_rows(index: Annotated[list[Index], Query(max_length=300)]) -> list[s.ImageOut]:
        """Some images as the gallery shows them, by their numbers."""
        return [row(workspace, background, each) for each in index if each < len(workspace.images)]

    @app.post("/api/look", status_code=204)
    def look(body: s.Look) -> None:
        """Say which images are shown: they are done first."""
        background.look([index for index in body.images if index < len(workspace.images)])

    @app.put("/api/live")
    def set_live(body: s.Live, session: Session = "") -> s.Status:
        """Whether the other images follow what is drawn."""
        workspace.set_live(body.live)
        return status(workspace, background, session)

    @app.post("/api/classes", status_code=201)
    def add_class(body: s.ClassIn, session: Session = "") -> s.Status:
        """Name a class."""
        workspace.add_class(body.name, body.colour)
        return status(workspace, background, session)

    @app.patch("/api/classes/{place}")
    def edit_class(place: Annotated[int, Field(ge=0)], body: s.ClassEdit, session: Session = "") -> s.Status:
        """Rename a class, or give it another colour."""
        workspace.edit_class(place, body.name, body.colour)
        return status(workspace, background, session)

    @app.get("/api/formats")
    def get_formats() -> list[s.Format]:
        """What can be exported."""
        return formats(workspace.out)

    @app.post("/api/export")
    def post_export(body: s.ExportIn) -> s.ExportOut:
        """Write the masks in a format, into the output folder."""
        workspace.check_writable()
        return export(workspace, body)

    @app.get("/api/table.csv", response_class=Response, responses={200: {"content": {"text/csv": {}}}})
    def table() -> Response:
        """Areas of each class in each image, and their connected components where masks are written."""
        return Response(
            _table(workspace),
            media_type="text/csv",
            headers={"Content-Disposition": 'attachment; filename="kshot.csv"'},
        )


def _add_images(app: FastAPI, workspace: Workspace, background: Background) -> None:
    @app.get("/api/images/{index}")
    def get_image(index: Index) -> s.ImageDetail:
        """One image, with what is drawn on it."""
        _check(workspace, index)
        height, width = workspace.masks.size_of(index)
        facts = row(workspace, background, index).model_dump()
        marks = [mark.model_dump() for mark in workspace.folder.labels_of(index).marks]
        return s.ImageDetail(**facts, height=height, width=width, marks=marks)

    @app.get("/api/images/{index}/image", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
    def get_pixels(index: Index, side: Side = THUMBNAIL) -> Response:
        """The image as JPEG, or a smaller copy."""
        _check(workspace, index)
        data = workspace.images.jpeg(index, side)
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    @app.get("/api/images/{index}/window", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
    def get_window(index: Index, x0: Edge, y0: Edge, x1: Edge, y1: Edge, side: WindowSide = 2048) -> Response:
        """A part of the image as JPEG, for a page that has zoomed in further than copies reach."""
        _check(workspace, index)
        if x0 >= x1 or y0 >= y1:
            raise ImageReadError(f"the window {[x0, y0, x1, y1]} has no area")
        data = workspace.images.window(index, (x0, y0, x1, y1), side)
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    @app.get("/api/images/{index}/mask", response_class=Response, responses=_PNG)
    def get_mask(request: Request, index: Index, small: bool = False) -> Response:
        """The mask that is shown, as a grey PNG twice as high: the labels above, the certainties, of 255, below.

        With `Accept: application/json` it comes as COCO's run lengths of each class, at even odds.
        """
        _check(workspace, index)
        if small:
            return _mask(request, workspace, index, workspace.masks.small(index), workspace.folder.revision(index))
        return _mask(request, workspace, index, *workspace.masks.of_page(index))

    @app.put("/api/images/{index}/mask", openapi_extra={"requestBody": {"content": {"image/png": {}}}})
    async def put_mask(request: Request, index: Index, session: Session = "") -> s.Changed:
        """Accept a mask that was made elsewhere: an index PNG of the image's size."""
        _check(workspace, index)
        data = await request.body()

        def take() -> None:
            name = workspace.images.names[index]
            mask = mask_of_png(data, workspace.masks.size_of(index), len(workspace.folder.classes), name)
            workspace.accept_mask(session, index, mask)

        await asyncio.to_thread(take)
        return s.Changed(image=row(workspace, background, index))

    @app.post("/api/images/{index}/marks", response_class=Response, responses=_PNG)
    def post_mark(request: Request, index: Index, mark: Mark, session: Session = "") -> Response:
        """Draw on an image; the answer is its mask."""
        _check(workspace, index)
        workspace.mark(session, index, mark)
        return _mask(request, workspace, index, *workspace.masks.of_page(index))


def _add_steps(app: FastAPI, workspace: Workspace, background: Background) -> None:
    def changed(index: int) -> s.Changed:
        return s.Changed(image=row(workspace, background, index))

    @app.post("/api/images/{index}/accept")
    def accept(index: Index, body: s.Accept, session: Session = "") -> s.Changed:
        """Decide for the mask that is shown."""
        _check(workspace, index)
        workspace.accept(session, index, body.threshold, body.revision)
        return changed(index)

    @app.post("/api/images/{index}/reject")
    def reject(index: Index, session: Session = "") -> s.Changed:
        """Decide that nothing of the classes is there; the image becomes an example of that."""
        _check(workspace, index)
        workspace.reject(session, index)
        return changed(index)

    @app.post("/api/images/{index}/clear")
    def clear(index: Index, session: Session = "") -> s.Changed:
        """Take back what is drawn, or that the image was accepted."""
        _check(workspace, index)
        workspace.clear(session, index)
        return changed(index)

    @app.post("/api/images/{index}/support")
    def support(index: Index, body: s.Support, session: Session = "") -> s.Changed:
        """Make the image an example, or no longer one."""
        _check(workspace, index)
        workspace.set_support(session, index, body.support, body.threshold)
        return changed(index)

    @app.post("/api/undo")
    def undo(session: Session = "") -> s.Stepped:
        """Take back this window's last step."""
        return s.Stepped(index=workspace.step(session))

    @app.post("/api/redo")
    def redo(session: Session = "") -> s.Stepped:
        """Take it again."""
        return s.Stepped(index=workspace.step(session, redo=True))


def _mask(request: Request, workspace: Workspace, index: int, answer: Answer, revision: int) -> Response:
    headers = {"X-Kshot-Revision": str(revision), "Cache-Control": "private, max-age=3600"}
    if "application/json" in request.headers.get("accept", ""):
        whole = answer.resized(workspace.masks.size_of(index))
        return JSONResponse(rle_of(whole.mask(), workspace.folder.names), headers=headers)
    return Response(answer.png, media_type="image/png", headers=headers)


def _check(workspace: Workspace, index: int) -> None:
    if index >= len(workspace.images):
        raise ImageReadError(f"there is no image {index}: there are {len(workspace.images)}")


def _table(workspace: Workspace) -> str:
    names: Sequence[str] = workspace.folder.names
    columns = [f"{name} {what}" for name in names for what in ("area", "pixels", "objects")]
    rows: list[list[Any]] = [["image", "state", *columns]]
    for index, name in enumerate(workspace.images.names):
        facts, record = workspace.folder.facts.get(index), workspace.folder.records.get(name, {})
        cells: list[Any] = [name, workspace.folder.state(index)]
        for one in names:
            about = record.get("classes", {}).get(one)
            cells += [round(facts.areas.get(one, 0.0), 6) if facts else ""]
            cells += [about["pixels"], about["objects"]] if about else ["", ""]
        rows.append(cells)
    return csv_text(rows)
