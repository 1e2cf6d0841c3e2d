"""The pictures in a request's body: the bytes of one, or multipart/form-data with several. Bounded while they come, not afterwards.

Names and content types of files prove nothing and are not trusted; whether the bytes are a picture is for `data.decode` to say. Every
refusal is an HTTPException with one clear line.
"""

import asyncio
from collections.abc import AsyncGenerator

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from cifar_tl.data.decode import MAX_BYTES
from cifar_tl.runs.names import one_line

MAX_FILES = 32  # of a request: what the network looks at together
MAX_BODY_BYTES = 2 * MAX_BYTES  # of a multipart request; of one picture MAX_BYTES
BODY_SECONDS = 120.0  # a caller who is slower holds up others

_MOST_NAME = 255  # characters
_MOST_FIELD = 2**16  # bytes of a form field, which is refused anyhow
_MIB = 2**20

Picture = tuple[str, bytes]


async def read_pictures(request: Request) -> list[Picture]:
    """(name, bytes) of each picture of the body, in order; one at least. Raises HTTPException."""
    kind = _kind_of(request)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            if kind == "multipart/form-data":
                return await _parts(request)
            return [("picture", b"".join([chunk async for chunk in _bounded(request, MAX_BYTES)]))]
    except TimeoutError:
        raise HTTPException(408, f"The body did not arrive within {BODY_SECONDS:g} s.") from None
    except ClientDisconnect:
        raise HTTPException(400, "The connection ended before the body did.") from None  # nobody is there to read it


def _kind_of(request: Request) -> str:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, "Send the body as it is, without Content-Encoding.")
    kind, options = parse_options_header(request.headers.get("content-type"))
    name = kind.decode("latin-1").lower()
    # Python knows encodings that take long to decode, or are none of text.
    if name == "multipart/form-data" and options.get(b"charset", b"utf-8").lower() != b"utf-8":
        raise HTTPException(415, "The names of files must be in UTF-8.")
    if name not in ("", "application/octet-stream", "multipart/form-data") and not name.startswith("image/"):
        raise HTTPException(
            415,
            f"The content type {one_line(name)[:80]!r} is not taken. Send the bytes of one picture as image/* or application/octet-stream, "
            "or several pictures as multipart/form-data.",
        )
    return name


async def _bounded(request: Request, most_bytes: int) -> AsyncGenerator[bytes, None]:
    """The body as it comes, until there is too much of it; what is announced as too much is not read."""
    announced, received = request.headers.get("content-length", ""), 0
    if announced.isdecimal() and int(announced) > most_bytes:
        raise _too_large(most_bytes)
    async for chunk in request.stream():
        received += len(chunk)
        if received > most_bytes:
            raise _too_large(most_bytes)
        yield chunk


def _too_large(most_bytes: int) -> HTTPException:
    return HTTPException(413, f"The body is too large: at most {most_bytes // _MIB} MiB are taken.")


class _Parts(MultiPartParser):
    """Starlette's parser takes a body that is cut off for a whole one; this one knows whether the last boundary came."""

    def __init__(self, request: Request) -> None:
        body = self._whole(_bounded(request, MAX_BODY_BYTES))
        super().__init__(request.headers, body, max_files=MAX_FILES, max_fields=MAX_FILES, max_part_size=_MOST_FIELD)
        self._has_ended = False

    def on_end(self) -> None:
        self._has_ended = True

    async def _whole(self, body: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for chunk in body:
            yield chunk
        if not self._has_ended:  # raised here, the parser closes the files it has begun
            raise MultiPartException("its last boundary is missing.")


async def _parts(request: Request) -> list[Picture]:
    try:
        form = await _Parts(request).parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise HTTPException(413, f"At most {MAX_FILES} pictures are taken at once.") from None
        raise HTTPException(400, f"The body is not whole multipart/form-data: {one_line(error.message)}") from None
    try:
        return [await _picture(number, name, value) for number, (name, value) in enumerate(_some(form.multi_items()), 1)]
    finally:
        await form.close()


def _some(parts: list[tuple[str, UploadFile | str]]) -> list[tuple[str, UploadFile | str]]:
    if not parts:
        raise HTTPException(400, "There is no picture in the body.")
    return parts


async def _picture(number: int, field: str, value: UploadFile | str) -> Picture:
    if isinstance(value, str):
        raise HTTPException(
            400, f"The form field {one_line(field)[:80]!r} is no file. Pictures are files with a file name; all else belongs in the query."
        )
    return one_line(value.filename or "")[:_MOST_NAME] or f"picture {number}", await value.read()
