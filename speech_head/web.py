"""Voice chat in the browser: speak or type; read the answer and hear it while it is being written.

    python -m speech_head.web --head runs/head --finetune runs/finetune
    make web                                    the small trained models that come along

Prints the page's address. Recording starts and ends with the microphone's button; who starts one,
or types the next question, while an answer is heard interrupts it. Every visitor has a conversation
of their own; answers are computed one after another, and written as WAVs too.

Needs Gradio: `pip install -c constraints.txt -e '.[web]'`. Browsers allow a microphone on localhost
and over https only: for a machine elsewhere, `ssh -L 7860:localhost:7860 that-machine`.
"""

# N samples (24,000 per second)

import base64
import importlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from data_manifests.audio import to_pcm16, write_wav
from data_manifests.config import parse_config, run_command
from data_manifests.errors import InputError
from data_manifests.setting_types import Port
from speech_head.generate import Speech, Talker
from speech_head.live_sound import LiveSound
from speech_head.settings import TalkerConfig
from speech_head.speak import next_answer_path
from stage3_finetune.dialogue import Turn, split_chain

PLAYER_JS = Path(__file__).with_name("player.js")
# A request of the browser waits so long for the next sound, then asks again.
POLL_S = 10.0
# Gradio 6.31 draws recordings in a chat 256 pixels high: show the middle of that.
CSS = """
.message .minimal-audio-player, .message .waveform-wrapper { height: 3rem; }
.message .waveform-wrapper { display: flex; align-items: center; overflow: hidden; }
.message .waveform-wrapper > div { width: 100%; }
"""
Message = dict[str, Any]  # of gr.Chatbot: role, content


@dataclass(frozen=True, kw_only=True)
class WebConfig(TalkerConfig):
    """Talk with Gemma in Twi, in the browser."""

    out: Path = Path("runs/web")
    """folder for the answers' WAV files; more are added to those in it"""
    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 lets other machines in"""
    port: Port = 7860
    """TCP port to listen on"""


@dataclass(frozen=True)
class Shown:
    """What the page shows of an answer so far.

    Attributes:
        sound: name of its sound, for `VoiceChat.next_sound`.
        question: as it was asked; of a recording, what Gemma heard, once that is known.
        answer: the text so far.
        wav: all of the speech, at the end.
    """

    sound: str
    question: str
    answer: str = ""
    wav: Path | None = None


class VoiceChat:
    """Answers visitors aloud, one answer at a time."""

    def __init__(self, talker: Talker, config: WebConfig) -> None:
        self.talker = talker
        self.config = config
        self._sounds: dict[str, LiveSound] = {}
        self._numbers = count(1)

    def ask(self, visitor: str, question: str | Path, turns: list[Turn]) -> Iterator[Shown]:
        """Answer a question aloud.

        Args:
            visitor: who asks; an answer they still listen to is interrupted.
            question: typed, or the path of a recording.
            turns: their conversation so far. Question and answer are added; where the answer is
                interrupted, as far as it was written.

        Yields:
            What to show, whenever there is more of it.

        Raises:
            InputError: as `Speech.say`, or the recording is unusable.
        """
        talker = replace(self.talker, conversation=self.talker.conversation.continuing(turns))
        if isinstance(question, Path):
            turn = talker.conversation.spoken_turn(question)
        else:
            turn = talker.conversation.typed_turn(question)
        speech = Speech(talker, self.config.sampling_of_turn(turns))
        self.interrupt(visitor)
        shown = Shown(f"{visitor}/{next(self._numbers)}", "" if turn.spoken else turn.content)
        sound = self._sounds[shown.sound] = LiveSound()
        yield shown
        pieces: list[np.ndarray] = []
        try:
            with closing(talker.answer(turn)) as answer, closing(speech.say(answer)) as speaking:
                for samples_N in speaking:
                    if sound.is_interrupted:
                        break
                    pieces.append(samples_N)
                    sound.add(samples_N)
                    if speech.text != shown.answer:
                        shown = replace(shown, answer=speech.text)
                        yield shown
        finally:
            sound.end()
        shown = replace(shown, answer=speech.text)  # a word may come after the last sound
        if turn.spoken and talker.conversation.writes_transcripts and pieces:
            shown = replace(shown, question=split_chain(turns[-1].content)[0])
        if pieces:
            wav = next_answer_path(self.config.out)
            write_wav(wav, np.concatenate(pieces), talker.mimi.sample_rate_hz)
            shown = replace(shown, wav=wav)
        yield shown

    def next_sound(self, name: str) -> str | None:
        """Samples not yet fetched; waits for some, at most `POLL_S`.

        Returns:
            16-bit little-endian integers as base64; None where there are no more.
        """
        sound = self._sounds.get(name)
        samples_N = sound and sound.take(POLL_S)
        if samples_N is None:
            self._sounds.pop(name, None)
            return None
        return base64.b64encode(to_pcm16(samples_N)).decode()

    def interrupt(self, visitor: str) -> None:
        """The visitor wants to hear no more of what they are told."""
        for name in list(self._sounds):
            if name.startswith(f"{visitor}/"):
                self._sounds.pop(name).interrupt()


@dataclass
class Visit:
    """One visitor's conversation.

    Attributes:
        messages: as the page shows it.
        turns: as Gemma is told it.
    """

    messages: list[Message] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)


def main(argv: list[str] | None = None) -> None:
    """Serve the page until interrupted."""
    config = parse_config(WebConfig, argv)
    gradio = import_gradio()
    page = build_page(VoiceChat(config.load(), config))
    # Fonts of the visitor's machine: those of Gradio's themes would be downloaded.
    theme = gradio.themes.Default(font="system-ui", font_mono="monospace")
    try:
        _, address, _ = page.launch(
            server_name=config.host, server_port=config.port, theme=theme, quiet=True,
            prevent_thread_lock=True, css=CSS, allowed_paths=[str(config.out)],
        )  # fmt: skip
    except OSError as error:
        raise InputError(f"--host {config.host} --port {config.port}: {error}") from None
    print(address, flush=True)
    page.block_thread()


def import_gradio() -> ModuleType:
    """Gradio; InputError where it is not installed."""
    try:
        return importlib.import_module("gradio")
    except ImportError:
        raise InputError("needs Gradio: pip install -c constraints.txt -e '.[web]'") from None


def build_page(voice_chat: VoiceChat) -> Any:
    """The page, a `gradio.Blocks`; InputError where Gradio is not installed."""
    gr = import_gradio()

    def recording(path: Path) -> gr.Audio:
        return gr.Audio(str(path), show_label=False, interactive=False, buttons=["download"])

    def answer(question: str | Path, visit: Visit, request: gr.Request) -> Iterator[list[Any]]:
        before = visit.messages
        inputs = ["", None]  # the question leaves the text box or the microphone
        asked = [recording(question)] if isinstance(question, Path) else []
        try:
            for shown in voice_chat.ask(request.session_hash, question, visit.turns):
                spoken = [recording(shown.wav)] if shown.wav else []
                visit.messages = [
                    *before,
                    {"role": "user", "content": [*asked, shown.question]},
                    {"role": "assistant", "content": [shown.answer, *spoken]},
                ]
                yield [visit.messages, visit, shown.sound, *inputs]
                inputs = [gr.skip(), gr.skip()]
        except InputError as error:
            gr.Warning(str(error))
            visit.messages = before
            yield [before, visit, "", *inputs]

    def answer_recording(recording: str, visit: Visit, request: gr.Request) -> Iterator[list[Any]]:
        yield from answer(Path(recording), visit, request)

    def interrupt(request: gr.Request) -> None:
        voice_chat.interrupt(request.session_hash)

    def next_sound(name: str) -> str | None:
        return voice_chat.next_sound(name)

    with gr.Blocks(title="Spoken Twi", analytics_enabled=False, fill_height=True) as page:
        visit = gr.State(Visit())
        chat = gr.Chatbot(label="Twi", scale=1, render_markdown=False, buttons=["copy_all"])
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
            )
            microphone = gr.Audio(
                label="Speak Twi", sources=["microphone", "upload"], type="filepath", scale=2
            )
        anew = gr.Button("New conversation")

        silence = {"fn": interrupt, "js": "() => { stopSpeaking(); return []; }", "queue": False}
        shown = [chat, visit, player, text, microphone]
        one_at_a_time = {"concurrency_limit": 1, "concurrency_id": "gemma"}
        answers = [
            asked(**silence).then(fn, [source, visit], shown, **one_at_a_time)
            for asked, fn, source in (
                (text.submit, answer, text),
                (microphone.stop_recording, answer_recording, microphone),
                (microphone.upload, answer_recording, microphone),
            )
        ]
        gr.on([microphone.start_recording, player.click], **silence)
        gr.on([anew.click, chat.clear], **silence).then(
            lambda: ([], Visit(), ""), None, [chat, visit, player], cancels=answers, queue=False
        )
        page.unload(interrupt)
    return page


if __name__ == "__main__":
    run_command(main)
