"""Requests that must not reach Gradio: those with long bodies, or with URLs in place of files.

Gradio 6.31 reads a whole request into memory, whatever its length, and accepts a URL in place of a
file: it would fetch any URL for anybody. This ASGI middleware filters requests before Gradio.
Uploads pass: Gradio has its own limit for them (`launch(max_file_size=...)`).
"""

import json
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A question has at most a few kilobytes; the page itself reports the limit for longer texts.
MAX_REQUEST_BYTES = 2**20
UPLOAD_PATH = "/upload"


class RequestLimits:
    """ASGI middleware that answers such requests with 403 or 413."""

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
    """The whole body; None if it is too long."""
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
    """A `receive` that returns a body that was already read, and then any later messages."""
    is_sent = False

    async def receive_again() -> Message:
        nonlocal is_sent
        if is_sent:
            return await receive()
        is_sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


def _asks_for_address(body: bytes) -> bool:
    """Whether any file's "path" in a JSON body is a URL."""
    try:
        waiting: list[Any] = [json.loads(body)] if body else []
    except (ValueError, RecursionError):
        return False  # not JSON: Gradio refuses it
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
