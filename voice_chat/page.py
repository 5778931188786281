"""The page of the voice chat, in Gradio, and what its events do."""

import html
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from commands.errors import InputError, WriteError
from stage3_finetune.prompt_limits import MAX_TYPED_CHARACTERS
from voice_chat.request_limits import RequestLimits
from voice_chat.visits import MAX_WAITING, Shown, VoiceChat

PLAYER_JS = Path(__file__).with_name("player.js")
# Five minutes, the longest recording, as a browser records them: 48 kHz, 16 bit, stereo.
MAX_UPLOAD_BYTES = 60_000_000
# Gradio keeps a copy of the page's settings for at most this many visitors.
MAX_SESSIONS = 200
# Every ten minutes, uploads older than an hour that no question used are deleted.
DELETE_UPLOADS = (600, 3600)
# Gradio 6.31 draws recordings in a chat 256 pixels high: show only the middle. And whatever
# `buttons` says, it adds a button that uploads them to huggingface.co: hide it.
CSS = """
.message-wrap button[title="Share"] { display: none; }
.message .minimal-audio-player, .message .waveform-wrapper { height: 3rem; }
.message .waveform-wrapper { display: flex; align-items: center; overflow: hidden; }
.message .waveform-wrapper > div { width: 100%; }
"""
Message = dict[str, Any]  # for gr.Chatbot: role, content


def build_page(voice_chat: VoiceChat) -> gr.Blocks:
    """Build the page."""
    events = Events(voice_chat)

    def next_sound(name: str) -> str | None:  # Gradio marks it, which it cannot do to a method
        return voice_chat.next_sound(name)

    with gr.Blocks(
        title="Spoken Twi", analytics_enabled=False, fill_height=True, delete_cache=DELETE_UPLOADS
    ) as page:
        chat = gr.Chatbot(
            label="Twi", scale=1, render_markdown=False, latex_delimiters=[], buttons=["copy_all"]
        )
        player = gr.HTML(
            html_template="<button hidden>Stop</button>",
            js_on_load=PLAYER_JS.read_text(encoding="utf-8"),
            server_functions=[next_sound],
        )
        with gr.Row():
            text = gr.Textbox(
                placeholder="Type in Twi",
                show_label=False,
                submit_btn=True,
                scale=3,
                autofocus=True,
                max_length=MAX_TYPED_CHARACTERS,
            )
            microphone = gr.Audio(
                label="Speak Twi", sources=["microphone", "upload"], type="filepath", scale=2
            )
        anew = gr.Button("New conversation")

        stop_speaking = "() => { stopSpeaking(); return []; }"
        silence = {"fn": events.interrupt, "js": stop_speaking, "queue": False}
        # Questions wait in the voice chat's own line, not in Gradio's queue. And the page may send
        # a question while the previous answer is being generated, which it interrupts.
        asking = {"concurrency_limit": None, "concurrency_id": "asking", "trigger_mode": "multiple"}
        shown = [chat, player, text, microphone]
        answers = [
            asked(**silence).then(fn, source, shown, **asking)
            for asked, fn, source in (
                (text.submit, events.answer_text, text),
                (microphone.stop_recording, events.answer_recording, microphone),
                (microphone.upload, events.answer_recording, microphone),
            )
        ]
        gr.on([microphone.start_recording, player.click], **silence)
        gr.on([anew.click, chat.clear], **silence).then(
            events.begin_anew, None, [chat, player], cancels=answers, queue=False
        )
        page.unload(events.leave)
    page.queue(max_size=4 * MAX_WAITING)
    return page


def launch(page: gr.Blocks, *, host: str, port: int | None) -> str:
    """Start serving a page in background threads; port None takes a free one.

    Returns: The page's address.

    Raises:
        OSError: the port is taken.
    """
    # Use fonts of the visitor's machine: those of Gradio's themes would be downloaded.
    theme = gr.themes.Default(font="system-ui", font_mono="monospace")
    _, address, _ = page.launch(
        server_name=host, server_port=port, theme=theme, css=CSS, quiet=True,
        prevent_thread_lock=True, max_file_size=MAX_UPLOAD_BYTES, show_error=False,
        state_session_capacity=MAX_SESSIONS, enable_monitoring=False, footer_links=[],
        app_kwargs={"middleware": [Middleware(RequestLimits)]},
    )  # fmt: skip
    return str(address)


class Events:
    """What happens when a visitor speaks, types or leaves."""

    def __init__(self, voice_chat: VoiceChat) -> None:
        self.voice_chat = voice_chat

    def _answer(self, asked: str | Path, visitor: str) -> Iterator[list[Any]]:
        inputs = ["", None]  # clear the text box and the microphone
        before: list[Shown] = []
        shown_before: list[Message] = []
        try:
            question = self.voice_chat.receive(visitor, asked) if isinstance(asked, Path) else asked
            for shown in self.voice_chat.ask(visitor, question):
                exchanges = self.voice_chat.visit(visitor).exchanges
                others = [exchange for exchange in exchanges if exchange.sound != shown.sound]
                if others != before:  # an answer was interrupted by this question
                    before, shown_before = others, _messages(others)
                yield [shown_before + _messages([shown]), shown.sound, *inputs]
                inputs = [gr.skip(), gr.skip()]
        except InputError as error:
            gr.Warning(html.escape(str(error)))
            # The typed text stays, so that it can be corrected.
            yield [_messages(self.voice_chat.visit(visitor).exchanges), "", gr.skip(), None]
        except (WriteError, OSError) as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            gr.Warning("the server could not keep this answer's sound; it was heard only once")

    def answer_text(self, text: str, request: gr.Request) -> Iterator[list[Any]]:
        yield from self._answer(text, request.session_hash)

    def answer_recording(self, recording: str, request: gr.Request) -> Iterator[list[Any]]:
        yield from self._answer(Path(recording), request.session_hash)

    def interrupt(self, request: gr.Request) -> None:
        self.voice_chat.interrupt(request.session_hash)

    def leave(self, request: gr.Request) -> None:
        self.voice_chat.leave(request.session_hash)

    def begin_anew(self, request: gr.Request) -> tuple[list[Message], str]:
        self.voice_chat.leave(request.session_hash)
        return [], ""


def _player_of(path: Path) -> gr.Audio:
    return gr.Audio(str(path), show_label=False, interactive=False, buttons=["download"])


def _messages(exchanges: list[Shown]) -> list[Message]:
    """Exchanges in the form that gr.Chatbot takes."""
    shown = []
    for exchange in exchanges:
        # Gradio renders HTML in every text it shows.
        asked = [_player_of(exchange.recording)] if exchange.recording else []
        spoken = [_player_of(exchange.wav)] if exchange.wav else []
        shown += [
            {"role": "user", "content": [*asked, html.escape(exchange.question)]},
            {"role": "assistant", "content": [html.escape(describe(exchange)), *spoken]},
        ]
    return shown


def describe(shown: Shown) -> str:
    """The text shown in place of the answer."""
    if shown.num_before:
        return f"({shown.num_before} before you)"
    if shown.num_forgotten:
        return f"(The oldest of this long conversation is forgotten.) {shown.answer}"
    return shown.answer
