"""The paths, below /api: predict, runs, health, openapi.json. Behind `guard`; nothing here asks who calls.

No Swagger page: FastAPI's comes from other people's servers.
"""

import asyncio
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from cifar_tl import __version__
from cifar_tl.errors import CifarTLError, PredictionProcessDied, RunInvalid, RunNotFound
from cifar_tl.http.bodies import MAX_BODY_BYTES, MAX_FILES, read_pictures
from cifar_tl.http.guard import refused
from cifar_tl.http.predictions import Predictions
from cifar_tl.http.schemas import FileAnswer, Health, PredictAnswer, PredictQuery, Problem, Run, Runs, file_answer, run_row
from cifar_tl.paths import RunFolder, run_folder
from cifar_tl.runs.store import find_run, read_manifest
from cifar_tl.ui.predictor import PredictionProcess

_STATUS_OF = {RunNotFound: 404, RunInvalid: 409, PredictionProcessDied: 503}
_ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "The token is missing or wrong."},
    403: {"model": Problem, "description": "Another host name, or a web page of another site."},
    503: {"model": Problem, "description": "Busy, or not set up to be called from other machines."},
}
_PREDICT_ERRORS: dict[int | str, dict[str, Any]] = _ERRORS | {
    400: {"model": Problem, "description": "The body is damaged."},
    404: {"model": Problem, "description": "There is no such run."},
    408: {"model": Problem, "description": "The body came too slowly."},
    409: {"model": Problem, "description": "The run has no usable weights."},
    413: {"model": Problem, "description": "Too many bytes or files."},
    415: {"model": Problem, "description": "A content type that is not taken."},
    422: {"model": Problem, "description": "No file is a picture, or the query is wrong."},
}
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "required": True,
        "description": f"One picture, or up to {MAX_FILES} as files of a form with at most {MAX_BODY_BYTES // 2**20} MiB.",
        "content": {
            "image/*": _BYTES,
            "application/octet-stream": _BYTES,
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}}}
            },
        },
    }
}


def pages_process() -> PredictionProcess:
    """The one that the pages ask."""
    from cifar_tl.ui import cached  # not before there is a server: Streamlit's caches look for it

    return cached.predictor()


def make_api(process: Callable[[], PredictionProcess]) -> FastAPI:
    """The application, to be mounted at /api."""
    api = FastAPI(
        title="Transfer learning",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(HTTPBearer(auto_error=False, description="Required where a token is set."))],  # told only: `guard` asks
    )
    _tell_errors(api)
    predictions = Predictions(process)

    @api.post("/predict", responses=_PREDICT_ERRORS, openapi_extra=_BODY, summary="What a run's model takes pictures for")
    async def predict(request: Request, query: Annotated[PredictQuery, Query()]) -> PredictAnswer:
        folder = await asyncio.to_thread(_run_with_weights, query.run)
        answers = await predictions.answers(folder, lambda: read_pictures(request), query.asked)
        files = [file_answer(answer) for answer in answers]
        _check_any_was_read(files)
        return PredictAnswer(run_id=folder.run_id, files=files)

    @api.get("/runs", responses=_ERRORS, summary="All runs, newest first")
    async def runs() -> Runs:
        return Runs(runs=await asyncio.to_thread(_all_runs))

    @api.get("/health", responses=_ERRORS, summary="Is it there")
    async def health() -> Health:
        shared = await asyncio.to_thread(process)
        return Health(ok=True, version=__version__, prediction_process=shared.is_alive)

    return api


def _run_with_weights(run_id: str) -> RunFolder:
    """Asked before the body is read: who names a wrong run need not send it."""
    try:
        folder = find_run(run_id)
    except RunNotFound:
        raise HTTPException(404, f"There is no run {run_id!r}. GET /api/runs lists the runs.") from None  # the path is nobody's business
    if not folder.best_weights.is_file():
        raise HTTPException(409, f"Run {run_id} has no weights yet: it has not finished an epoch.")
    return folder


def _check_any_was_read(files: list[FileAnswer]) -> None:
    """As on the command line: files that cannot be read are told among the others, and are an error where there are no others."""
    if any(file.error is None for file in files):
        return
    raise HTTPException(422, files[0].error if len(files) == 1 else " ".join(f"{file.name}: {file.error}" for file in files))


def _all_runs() -> list[Run]:
    from cifar_tl.ui import cached  # as above

    rows = []
    for row in cached.summaries():
        folder = run_folder(row.run_id)
        classes = None if row.problem else _class_count(folder, cached.file_stamp(folder.manifest))
        rows.append(run_row(row, classes, folder.best_weights.is_file()))
    return rows


@lru_cache(maxsize=2000)
def _class_count(folder: RunFolder, stamp: tuple[int, int]) -> int | None:  # noqa: ARG001 - part of the cache's key
    try:
        manifest = read_manifest(folder)
    except RunInvalid:
        return None
    return len(manifest.class_names) if manifest else None


def _tell_errors(api: FastAPI) -> None:
    """All of them in one form."""

    @api.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> JSONResponse:
        return refused(error.status_code, error.detail, dict(error.headers or {}))

    @api.exception_handler(RequestValidationError)
    async def wrong_query(_: Request, error: RequestValidationError) -> JSONResponse:
        return refused(422, " ".join(f"{item['loc'][-1]}: {item['msg']}." for item in error.errors()))

    @api.exception_handler(CifarTLError)
    async def known_error(_: Request, error: CifarTLError) -> JSONResponse:
        return refused(next((status for kind, status in _STATUS_OF.items() if isinstance(error, kind)), 500), str(error))

    @api.exception_handler(Exception)
    async def unknown_error(_: Request, error: Exception) -> JSONResponse:
        return refused(500, f"An unexpected error ({type(error).__name__}). Its traceback is in the dashboard's terminal.")
