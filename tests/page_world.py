"""A server of the page, for tests with a real browser."""

import shutil
import threading
from importlib.util import find_spec

import pytest
import uvicorn

from voice_chat import serve

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PARTS = ("silero_vad", "livekit", "websockets", "playwright")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or None in map(find_spec, PARTS),
    reason=f"needs Chromium and {', '.join(PARTS)}",
)


class Server:
    """A real server, which can be ended and begun again at its address."""

    def __init__(self, studio):
        self.studio, self.port = studio, 0

    def begin(self):
        self.listening = serve._listen("127.0.0.1", self.port)
        self.port = self.listening.getsockname()[1]
        app = serve.build_app(self.studio, ["Ɛte sɛn?"])
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        sockets = {"sockets": [self.listening]}
        self.thread = threading.Thread(target=self.server.run, kwargs=sockets)
        self.thread.start()

    def end(self):
        self.server.should_exit = True
        self.thread.join()
        self.listening.close()
