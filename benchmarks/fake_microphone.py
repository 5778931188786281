"""A browser whose microphone hears recordings, on the page of `voice_chat.serve`.

with serving(config) as server, browsing(find_browser(), microphone) as browser:
    reply = ask_page(browser, server.address, microphone, question_N, pause_s=config.turns.pause_s)

Chromium can hear a file in place of a microphone. It reads it anew whenever a page opens the
microphone, so each question is written over the one before.
"""

# N samples

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks.quiet_room import ROOM_NOISE
from commands.errors import InputError
from stage3_finetune.reply import Reply

PACKAGES = ("fastapi", "uvicorn", "websockets", "playwright")
BROWSERS = ("chromium", "google-chrome")
MICROPHONE_RATE_HZ = 48_000
LEAD_S = 1.5  # of silence before a question: the page begins to listen in it
MARGIN_S = 0.5  # by which sound may arrive late
PATIENCE_S = 20.0  # after a question, in which the answer must have ended


@dataclass
class ToldPage:
    """What the server told the page in one conversation; where a question was taken for two, the
    last counts.

    Attributes:
        transcript: of the question.
        answer: "" until it has been said to its end.
        is_busy: somebody speaks, or an answer is being computed.
    """

    transcript: str = ""
    answer: str = ""
    is_busy: bool = False
    _said: str = ""

    def take(self, event: dict[str, Any]) -> None:
        """Take the server's next event."""
        kind = event["type"]
        if kind in ("input_audio_buffer.speech_started", "response.created"):
            self.is_busy = True
        elif kind == "input_audio_buffer.speech_stopped":
            self.is_busy = False
        elif kind == "conversation.item.input_audio_transcription.completed":
            self.transcript = event["transcript"]
        elif kind == "response.output_audio_transcript.done":
            self._said = event["transcript"]
        elif kind == "response.done":
            self.is_busy = False
            self.answer = self._said if event["response"]["status"] == "completed" else ""


def find_browser() -> str:
    """Where Chromium is; raises InputError if it, or a package of page or browser, is missing."""
    for name in PACKAGES:
        if find_spec(name) is None:
            raise InputError(f"needs {name}: pip install -c constraints.txt -e '.[live,browser]'")
    for name in BROWSERS:
        if program := shutil.which(name):
            return program
    raise InputError(f"needs a browser: none of {', '.join(BROWSERS)} is on the path")


def surround_with_silence(question_N: np.ndarray, rate_hz: int, after_s: float) -> np.ndarray:
    """A question as a microphone hears it: a quiet room before and after it."""
    before, after = round(LEAD_S * rate_hz), round(after_s * rate_hz)
    sound_N = np.pad(question_N, (before, after))
    noise_N = np.random.default_rng(0).standard_normal(len(sound_N))
    return (sound_N + ROOM_NOISE * noise_N).astype(np.float32)


@contextmanager
def browsing(program: str, microphone: Path, *, is_repeated: bool = False) -> Iterator[Any]:
    """A browser whose microphone hears a file, from its beginning whenever a page opens it; once,
    or again and again."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, args=[
            "--no-sandbox", "--use-fake-ui-for-media-stream",
            "--use-fake-device-for-media-stream", "--autoplay-policy=no-user-gesture-required",
            f"--use-file-for-fake-audio-capture={microphone}{'' if is_repeated else '%noloop'}",
        ])  # fmt: skip
        try:
            yield browser
        finally:
            browser.close()


def ask_page(
    browser: Any, address: str, microphone: Path, question_N: np.ndarray, *, pause_s: float
) -> Reply:
    """Ask a recorded question through the page, opened anew, hands free.

    Args:
        browser: of `browsing`.
        address: of `demo_server.serving`.
        microphone: what the browser's microphone hears; overwritten.
        question_N: float32 in [-1, 1], at `MICROPHONE_RATE_HZ`.
        pause_s: the silence that ends a turn.

    Returns:
        What was heard and answered; "" where nothing was, within `PATIENCE_S`.
    """
    sound_N = surround_with_silence(question_N, MICROPHONE_RATE_HZ, PATIENCE_S)
    soundfile.write(microphone, sound_N, MICROPHONE_RATE_HZ, subtype="PCM_16")
    told = ToldPage()
    page = browser.new_page()
    page.on("websocket", lambda connection: connection.on(
        "framereceived", lambda text: told.take(json.loads(text))
    ))  # fmt: skip
    page.goto(address)
    page.locator('body[data-status="ready"]').wait_for()
    page.click("#listen")
    began_s = time.monotonic()
    question_s = LEAD_S + len(question_N) / MICROPHONE_RATE_HZ
    while (heard_s := time.monotonic() - began_s) < question_s + PATIENCE_S:
        has_ended = heard_s > question_s + pause_s + MARGIN_S and not told.is_busy
        if has_ended and told.answer:
            break
        page.wait_for_timeout(50)
    page.close()
    return Reply(told.transcript, told.answer)
