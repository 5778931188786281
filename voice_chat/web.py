"""Voice chat in the browser: speak or type; read the answer and hear it while it is being written.

    python -m voice_chat.web --head runs/head --finetune runs/finetune
    make web                                    with the small trained models of the demo

Prints the page's address. The microphone button starts and ends a recording; starting one, or
asking the next question, interrupts an answer that is being played. Every visitor has their own
conversation, which nobody else can read or hear, and which is forgotten when they leave or start a
new one; its spoken answers are also kept as WAVs, in a folder of `--out` per conversation. Answers
are computed one after another: a visitor who waits sees how many are before them. The limits are
those of `visits.py` and stage3_finetune/prompt_limits.py.

Needs Gradio: `pip install -c constraints.txt -e '.[web]'`. Browsers allow a microphone on localhost
and over https only: for a machine elsewhere, `ssh -L 7860:localhost:7860 that-machine`.
"""

import contextlib
import html
import importlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from commands.command_line import parse_config, run_command
from commands.errors import InputError, WriteError
from commands.new_paths import refuse_unwritable
from commands.setting_types import Port
from speech_head.settings import TalkerConfig
from stage3_finetune.prompt_limits import MAX_TYPED_CHARACTERS
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


@dataclass(frozen=True, kw_only=True)
class WebConfig(TalkerConfig):
    """Talk with Gemma in Twi, in the browser."""

    out: Path = Path("runs/web")
    """folder for the answers' WAV files; each conversation adds a folder"""
    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 allows connections from other machines"""
    port: Port = 7860
    """TCP port to listen on"""


def main(argv: list[str] | None = None) -> None:
    """Serve the page until interrupted."""
    config = parse_config(WebConfig, argv)
    refuse_unwritable(config.out, flag="--out", is_folder=True, may_exist=True)
    import_gradio()
    talker = config.load()
    with visitors_files() as files:
        page = build_page(VoiceChat(talker, config, config.out, files))
        try:
            address = launch(page, host=config.host, port=config.port)
        except OSError as error:
            raise InputError(f"--host {config.host} --port {config.port}: {error}") from None
        print(address, flush=True)
        try:
            threading.Event().wait()
        finally:
            page.close(verbose=False)


@contextlib.contextmanager
def visitors_files() -> Iterator[Path]:
    """A folder for visitors' uploads and answers that only this user can read; deleted at the end.

    An environment variable, which is restored, makes Gradio use it.
    """
    name = "GRADIO_TEMP_DIR"
    before = os.environ.get(name)
    with tempfile.TemporaryDirectory(prefix="spoken-twi-", ignore_cleanup_errors=True) as folder:
        # Gradio compares paths with links resolved, and macOS's temporary folder is a link.
        os.environ[name] = str(Path(folder).resolve())
        try:
            yield Path(os.environ[name])
        finally:
            del os.environ[name]
            if before is not None:
                os.environ[name] = before


def launch(page: Any, *, host: str, port: int | None) -> str:
    """Start serving a page in background threads; port None takes a free one.

    Returns:
        The page's address.

    Raises:
        OSError: the port is taken.
    """
    from starlette.middleware import Middleware  # comes with Gradio

    from voice_chat.request_limits import RequestLimits

    gradio = import_gradio()
    # Use fonts of the visitor's machine: those of Gradio's themes would be downloaded.
    theme = gradio.themes.Default(font="system-ui", font_mono="monospace")
    _, address, _ = page.launch(
        server_name=host, server_port=port, theme=theme, css=CSS, quiet=True,
        prevent_thread_lock=True, max_file_size=MAX_UPLOAD_BYTES, show_error=False,
        state_session_capacity=MAX_SESSIONS, enable_monitoring=False, footer_links=[],
        app_kwargs={"middleware": [Middleware(RequestLimits)]},
    )  # fmt: skip
    return str(address)


def import_gradio() -> ModuleType:
    """Import Gradio; raises InputError if it is not installed."""
    try:
        return importlib.import_module("gradio")
    except ImportError:
        raise InputError("needs Gradio: pip install -c constraints.txt -e '.[web]'") from None


def build_page(voice_chat: VoiceChat) -> Any:
    """Build the page, a `gradio.Blocks`; raises InputError if Gradio is not installed."""
    gr = import_gradio()  # Gradio looks for its own `Request` in the signatures below

    def player_of(path: Path) -> Any:
        return gr.Audio(str(path), show_label=False, interactive=False, buttons=["download"])

    def messages(exchanges: list[Shown]) -> list[Message]:
        """Exchanges in the form that gr.Chatbot takes."""
        shown = []
        for exchange in exchanges:
            # Gradio renders HTML in every text it shows.
            asked = [player_of(exchange.recording)] if exchange.recording else []
            spoken = [player_of(exchange.wav)] if exchange.wav else []
            shown += [
                {"role": "user", "content": [*asked, html.escape(exchange.question)]},
                {"role": "assistant", "content": [html.escape(describe(exchange)), *spoken]},
            ]
        return shown

    def answer(asked: str | Path, visitor: str) -> Iterator[list[Any]]:
        inputs = ["", None]  # clear the text box and the microphone
        before: list[Shown] = []
        shown_before: list[Message] = []
        try:
            question = voice_chat.receive(visitor, asked) if isinstance(asked, Path) else asked
            for shown in voice_chat.ask(visitor, question):
                exchanges = voice_chat.visit(visitor).exchanges
                others = [exchange for exchange in exchanges if exchange.sound != shown.sound]
                if others != before:  # an answer was interrupted by this question
                    before, shown_before = others, messages(others)
                yield [shown_before + messages([shown]), shown.sound, *inputs]
                inputs = [gr.skip(), gr.skip()]
        except InputError as error:
            gr.Warning(html.escape(str(error)))
            # The typed text stays, so that it can be corrected.
            yield [messages(voice_chat.visit(visitor).exchanges), "", gr.skip(), None]
        except (WriteError, OSError) as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            gr.Warning("the server could not keep this answer's sound; it was heard only once")

    def answer_text(text: str, request: gr.Request) -> Iterator[list[Any]]:  # type: ignore[name-defined]
        yield from answer(text, request.session_hash)

    def answer_recording(recording: str, request: gr.Request) -> Iterator[list[Any]]:  # type: ignore[name-defined]
        yield from answer(Path(recording), request.session_hash)

    def interrupt(request: gr.Request) -> None:  # type: ignore[name-defined]
        voice_chat.interrupt(request.session_hash)

    def leave(request: gr.Request) -> None:  # type: ignore[name-defined]
        voice_chat.leave(request.session_hash)

    def begin_anew(request: gr.Request) -> tuple[list[Message], str]:  # type: ignore[name-defined]
        voice_chat.leave(request.session_hash)
        return [], ""

    def next_sound(name: str) -> str | None:
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

        silence = {"fn": interrupt, "js": "() => { stopSpeaking(); return []; }", "queue": False}
        # Questions wait in the voice chat's own line, not in Gradio's queue. And the page may send
        # a question while the previous answer is being generated, which it interrupts.
        asking = {"concurrency_limit": None, "concurrency_id": "asking", "trigger_mode": "multiple"}
        shown = [chat, player, text, microphone]
        answers = [
            asked(**silence).then(fn, source, shown, **asking)
            for asked, fn, source in (
                (text.submit, answer_text, text),
                (microphone.stop_recording, answer_recording, microphone),
                (microphone.upload, answer_recording, microphone),
            )
        ]
        gr.on([microphone.start_recording, player.click], **silence)
        gr.on([anew.click, chat.clear], **silence).then(
            begin_anew, None, [chat, player], cancels=answers, queue=False
        )
        page.unload(leave)
    page.queue(max_size=4 * MAX_WAITING)
    return page


def describe(shown: Shown) -> str:
    """The text shown in place of the answer."""
    if shown.num_before:
        return f"({shown.num_before} before you)"
    if shown.num_forgotten:
        return f"(The oldest of this long conversation is forgotten.) {shown.answer}"
    return shown.answer


if __name__ == "__main__":
    run_command(main)
