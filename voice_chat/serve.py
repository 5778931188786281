"""Voice chat in the browser, hands free: it listens while you speak, and many can talk at once.

    python -m voice_chat.serve --head runs/head --finetune runs/finetune
    make serve                                  with the small trained models of the demo

Prints the page's address. The page needs no button: it hears when a turn begins and ends, answers,
and can be interrupted; a button to hold, and typing, are there too. Every conversation is its own,
is kept in memory only, and is forgotten when the page is closed. Other programs talk with
`ws://HOST:PORT/v1/realtime` (voice_chat/realtime_protocol.py).

Needs `pip install -c constraints.txt -e '.[live]'`. Browsers allow a microphone on localhost and
over https only: for a machine elsewhere, `ssh -L 7861:localhost:7861 that-machine`.
"""

import asyncio
import contextlib
import json
import socket as sockets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.setting_types import Port, PositiveInt
from data_manifests.language import language
from voice_chat.examples import read_examples
from voice_chat.own_voice import refuse_missing_canceller
from voice_chat.realtime_protocol import RealtimeSession, error_event
from voice_chat.settings import ConversationConfig
from voice_chat.studio import Studio
from voice_chat.turn_taking import TurnSettings, refuse_missing_detector
from voice_chat.updates import Left, Update

PAGE = Path(__file__).parent / "page_files"
SWITCH_S = 0.0005
MAX_MESSAGE_BYTES = 2**18  # 4 s of sound at 24 kHz, in base64
# Nothing but what this server serves: no script, font or image of others.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; media-src blob:"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
TRY_AGAIN_LATER, NOT_ALLOWED, INTERNAL_ERROR = (
    1013,
    1008,
    1011,
)  # codes of a closed WebSocket (RFC 6455)


@dataclass(frozen=True, kw_only=True)
class ServeConfig(ConversationConfig):
    """Talk with Gemma in Twi, in the browser, hands free."""

    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 allows connections from other machines"""
    port: Port = 7861
    """TCP port to listen on; 0 takes a free one"""
    max_visits: PositiveInt = 16
    """conversations at a time"""
    examples: Path | None = None
    """text file of questions that the page suggests, one a line"""
    turns: TurnSettings = TurnSettings()


def main(argv: list[str] | None = None) -> None:
    """Serve the page until interrupted."""
    config = parse_config(ServeConfig, argv)
    examples = read_examples(config.examples)
    refuse_missing_detector()
    refuse_missing_canceller()
    uvicorn = _import_server()
    listening = _listen(config.host, config.port)
    talker = config.load()
    with (
        Studio(
            talker, config.turns, config.sampling_of_turn, max_visits=config.max_visits
        ) as studio,
        contextlib.closing(listening),
    ):
        server = uvicorn.Server(uvicorn.Config(
            build_app(studio, examples), log_level="error", ws_max_size=MAX_MESSAGE_BYTES,
        ))  # fmt: skip
        # The studio's thread computes all the time. Python lets another thread in after 5 ms only,
        # and 16 microphones send 500 messages a second.
        sys.setswitchinterval(SWITCH_S)
        print(f"http://{config.host}:{listening.getsockname()[1]}", flush=True)
        server.run(sockets=[listening])


def build_app(studio: Studio, examples: list[str]) -> Any:
    """The page and the protocol, as a FastAPI application."""
    from fastapi import FastAPI, Request, WebSocket
    from fastapi.responses import FileResponse, Response
    from fastapi.staticfiles import StaticFiles

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def add_headers(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @app.get("/page.json")
    def suggested() -> dict[str, Any]:
        return {"examples": examples, "write": language().write, "voices": studio.voices}

    @app.websocket("/v1/realtime")
    async def realtime(socket: WebSocket) -> None:
        if _is_foreign(socket.headers.get("origin"), socket.headers.get("host")):
            await socket.close(NOT_ALLOWED)
            return
        await socket.accept()
        await converse(socket, studio)

    app.mount("/page", StaticFiles(directory=PAGE))
    return app


async def converse(socket: Any, studio: Studio) -> None:
    """One client's conversation, from an open WebSocket to its end."""
    from starlette.websockets import WebSocketDisconnect

    loop = asyncio.get_running_loop()
    happened: asyncio.Queue[list[Update]] = asyncio.Queue()

    def listen(updates: list[Update]) -> None:
        with contextlib.suppress(RuntimeError):  # the server has ended meanwhile
            loop.call_soon_threadsafe(happened.put_nowait, updates)

    try:
        visit = await asyncio.to_thread(studio.enter, listen)
    except InputError as error:
        await socket.send_json(error_event(str(error)))
        await socket.close(TRY_AGAIN_LATER)
        return
    session = RealtimeSession(visit)

    async def tell() -> None:
        updates: list[Update] = []
        while not any(isinstance(update, Left) for update in updates):
            updates = await happened.get()
            for event in session.translate(updates):
                await socket.send_json(event)
        await socket.close(INTERNAL_ERROR)

    async def obey() -> None:
        await socket.send_json(session.created())
        while (message := await socket.receive())["type"] != "websocket.disconnect":
            try:
                events = session.receive(json.loads(message.get("text") or ""))
            except (InputError, ValueError, RecursionError) as error:
                events = [error_event(str(error))]
            for event in events:
                await socket.send_json(event)

    tasks = [asyncio.create_task(part()) for part in (tell, obey)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            with contextlib.suppress(WebSocketDisconnect):  # closed while something was sent
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        visit.leave()


def _is_foreign(origin: str | None, host: str | None) -> bool:
    """Whether a page of another site wants to talk, in the name of whoever looks at it."""
    return origin is not None and urlsplit(origin).netloc != host


def _listen(host: str, port: int) -> sockets.socket:
    try:
        return sockets.create_server((host, port), family=_family(host))
    except OSError as error:
        raise InputError(f"--host {host} --port {port}: {error}") from None


def _family(host: str) -> sockets.AddressFamily:
    return sockets.AF_INET6 if ":" in host else sockets.AF_INET


def _import_server() -> Any:
    try:
        import fastapi  # noqa: F401
        import uvicorn
        import websockets  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(
            f"needs {error.name}: pip install -c constraints.txt -e '.[live]'"
        ) from None
    return uvicorn


if __name__ == "__main__":
    run_command(main)
