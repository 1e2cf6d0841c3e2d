"""Pictures to the prediction process and answers back: the process that the pages ask, and no more of it at a time than they take.

Bounded: requests that hold pictures in memory, and the time that one waits. Whoever comes when all places are taken is told to come again.
The event loop, which is the dashboard's, never waits for anything but futures.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Protocol

from starlette.exceptions import HTTPException

from cifar_tl.answers import Answer, Asked
from cifar_tl.http.bodies import Picture
from cifar_tl.paths import RunFolder
from cifar_tl.ui.predictor import result_of

MAX_REQUESTS = 4  # that hold pictures at a time, of at most `bodies.MAX_BODY_BYTES` each
WAIT_SECONDS = 60.0
_AGAIN = {"Retry-After": "2"}


class Process(Protocol):
    """What is asked of `ui.predictor.PredictionProcess`."""

    def submit(self, function: str, *args: object) -> Future[Any]: ...


class Predictions:
    """Asks for one request at a time, from the event loop it was first used in."""

    def __init__(self, process: Callable[[], Process]) -> None:
        self._process = process
        self._taken = 0

    async def answers(self, folder: RunFolder, read: Callable[[], Awaitable[list[Picture]]], asked: Asked) -> list[Answer]:
        """Answers for what `read` gives. Raises HTTPException (503) and whatever the process answers with: a CifarTLError."""
        if self._taken >= MAX_REQUESTS:
            raise HTTPException(503, f"Busy: {MAX_REQUESTS} requests are being answered. Ask again.", _AGAIN)
        self._taken += 1
        future: Future[Any] | None = None
        try:
            pictures = await read()
            # In a thread: the first request starts the process.
            future = await asyncio.to_thread(self._submit, folder, pictures, asked)
            return await _result(future)
        finally:
            self._give_back(future)

    def _submit(self, folder: RunFolder, pictures: list[Picture], asked: Asked) -> Future[Any]:
        return self._process().submit("cifar_tl.inference:predict_files", str(folder.path), pictures, asked)

    def _give_back(self, future: Future[Any] | None) -> None:
        """The place is free once nothing holds the pictures: an answer that nobody waits for any more is worked out all the same."""
        if future is None or future.done():
            self._taken -= 1
            return
        loop = asyncio.get_running_loop()

        def when_done(_: Future[Any]) -> None:
            with suppress(RuntimeError):  # the server has ended meanwhile
                loop.call_soon_threadsafe(self._give_back, None)

        future.add_done_callback(when_done)


async def _result(future: Future[Any]) -> list[Answer]:
    waiting = asyncio.wrap_future(future)
    done, _ = await asyncio.wait({waiting}, timeout=WAIT_SECONDS)
    if not done:
        waiting.cancel()  # and with it the request, unless the process is at it
        raise HTTPException(503, f"Busy: no answer came within {WAIT_SECONDS:g} s. Ask again.", _AGAIN)
    if waiting.cancelled():
        raise HTTPException(503, "The dashboard is about to end.")
    waiting.exception()  # asyncio complains of errors that nobody has looked at
    answers: list[Answer] = result_of(future)
    return answers
