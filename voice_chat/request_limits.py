"""What of a request is not let through to Gradio: long bodies, and addresses of other hosts.

Gradio 6.31 reads a whole request into memory, whatever its length, and where a file is expected it
takes an address too: it would fetch for anybody what they name. This stands before it, as ASGI
middleware. Uploads pass: for them Gradio has a limit of its own (`launch(max_file_size=...)`).
"""

import json
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A question has at most a few kilobytes; a page of text is told its limit by the page itself.
MAX_REQUEST_BYTES = 2**20
UPLOAD_PATH = "/upload"


class RequestLimits:
    """ASGI middleware that answers 403 or 413 in place of the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if "://" in scope["path"]:  # as in /gradio_api/file=https://...
            await PlainTextResponse("not served", 403)(scope, receive, send)
            return
        if scope["method"] != "POST" or scope["path"].rstrip("/").endswith(UPLOAD_PATH):
            await self._app(scope, receive, send)
            return
        body = await _read_body(Request(scope, receive))
        if body is None:
            await PlainTextResponse("request too long", 413)(scope, receive, send)
        elif _asks_for_address(body):
            await PlainTextResponse("a file must be uploaded", 403)(scope, receive, send)
        else:
            await self._app(scope, _replay(body, receive), send)


async def _read_body(request: Request) -> bytes | None:
    """The whole body; None where it is too long."""
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_REQUEST_BYTES:
                return None
    except ClientDisconnect:
        return None
    return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that hands out a body that was read already, and then what comes after it."""
    is_sent = False

    async def receive_again() -> Message:
        nonlocal is_sent
        if is_sent:
            return await receive()
        is_sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


def _asks_for_address(body: bytes) -> bool:
    """Whether somewhere in a JSON body a file's "path" is an address."""
    try:
        waiting: list[Any] = [json.loads(body)] if body else []
    except (ValueError, RecursionError):
        return False  # no JSON: refused by Gradio
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            path = value.get("path")
            if isinstance(path, str) and "://" in path:
                return True
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return False
