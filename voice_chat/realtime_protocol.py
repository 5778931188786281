"""The protocol between server and page: events in JSON, after OpenAI's Realtime interface.

Clients written for that interface can talk with this server. The client sends

    session.update                {"session": {"audio": {"input": {"format": {"rate": 16000}}},
                                  "instructions": "...", "output_modalities": ["text"],
                                  "voice": "..."}}
    input_audio_buffer.append     {"audio": 16-bit mono samples, little-endian, in base64}
    input_audio_buffer.commit     the turn has ended, whatever the voice detector thinks
    conversation.item.create      a typed question: {"item": {"content": [{"text": "..."}]}}
    response.cancel               stop the answer

and the server answers with `session.created`, `input_audio_buffer.speech_started` and
`.speech_stopped`, `conversation.item.input_audio_transcription.completed`, `response.created`,
`response.output_audio.delta` (24 kHz), `response.output_audio_transcript.delta`, `response.done`
and `error`. `instructions` are shown to Gemma beside all that is said from then on: what to do with
it. With the modality "text" instead of "audio", answers are only written, as
`response.output_text.delta` and `.done`. `voice` (or `audio.output.voice`) is the name of one of
the voices that the head knows, and holds from the next answer on; a head of one voice ignores it,
and the session then has none. No recording of a person can be sent as a voice. Turns are always
found by the server; a typed question needs no `response.create`. Functions are called by the server
(`--tools`); clients declare none, and are told of none.

Who speaks while an answer is heard holds it up: `output_audio_buffer.held`. After a word of assent
follows `output_audio_buffer.resumed`; else `output_audio_buffer.cleared`, and what has not been
played is not to be played. If a question that was taken to have ended goes on, its `cleared` has
`"question_continues": true`: the question and what was said of its answer are taken back.
"""

# N samples

import base64
import binascii
import secrets
from collections.abc import Iterator
from typing import Any

import numpy as np
import soxr

from commands.errors import InputError
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ, MIMI_SAMPLE_RATE_HZ, to_pcm16
from voice_chat.studio import Visit
from voice_chat.turn_taking import TurnEvent
from voice_chat.updates import (
    Asked,
    Ended,
    Heard,
    Held,
    Ignored,
    Interrupted,
    Left,
    Refused,
    Resumed,
    Said,
    Update,
    Wrote,
)

Event = dict[str, Any]
MIN_RATE_HZ, MAX_RATE_HZ = 8_000, 96_000


class RealtimeSession:
    """One client: its events do something, and what happens becomes events for it."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._rate_hz = MIMI_SAMPLE_RATE_HZ  # as in OpenAI's interface, unless told otherwise
        self._resample: soxr.ResampleStream | None = None
        self._set_rate(self._rate_hz)
        self._question_id = self._response_id = self._answer_id = ""
        self._text = ""  # of the answer that is being said
        self._instruction, self._modalities = "", ["audio"]
        self._voice = visit.talker.voice.name if visit.talker.voice else None

    def created(self) -> Event:
        """The first event."""
        return {"type": "session.created", "session": self._describe()}

    def receive(self, event: object) -> list[Event]:
        """Do what a client asks for.

        Args:
            event: decoded JSON.

        Returns:
            Events for the client; what follows from it comes by `translate`.

        Raises:
            InputError: the event is not understood, or asks for something impossible.
        """
        if not isinstance(event, dict) or not isinstance(event.get("type"), str):
            raise InputError("an event is a JSON object with a 'type'")
        kind = event["type"]
        if kind == "input_audio_buffer.append":
            self._visit.hear(self._decode(event.get("audio")))
        elif kind == "input_audio_buffer.commit":
            self._visit.end_turn()
        elif kind == "conversation.item.create":
            self._visit.ask(_typed_text(event))
        elif kind == "response.cancel":
            self._visit.stop()
        elif kind == "session.update":
            self._update_session(event)
            return [{"type": "session.updated", "session": self._describe()}]
        elif kind not in ("response.create", "input_audio_buffer.clear"):
            raise InputError(f"unknown type {kind[:60]!r}")
        return []

    def _update_session(self, event: Event) -> None:
        rate_hz, session = _input_rate(event), event.get("session")
        session = session if isinstance(session, dict) else {}
        instruction = session.get("instructions", self._instruction)
        modalities = session.get("output_modalities", self._modalities)
        if not isinstance(instruction, str):
            raise InputError("'instructions' is not text")
        if modalities not in (["audio"], ["text"]):
            raise InputError('\'output_modalities\' is ["audio"] or ["text"]')
        voice = _asked_voice(session) if self._visit.talker.head.config.voice_width else None
        if voice == self._voice:
            voice = None
        self._visit.instruct(instruction.strip(), speaks=modalities == ["audio"], voice=voice)
        self._instruction, self._modalities = instruction, modalities
        self._voice = voice or self._voice
        if rate_hz is not None:
            self._set_rate(rate_hz)

    def translate(self, updates: list[Update]) -> Iterator[Event]:
        """What happened -> events for the client."""
        for i, update in enumerate(updates):
            is_ignored = isinstance(updates[i + 1], Ignored) if i + 1 < len(updates) else False
            yield from self._translate(update, is_ignored=is_ignored)

    def _translate(self, update: Update, *, is_ignored: bool) -> Iterator[Event]:
        if isinstance(update, TurnEvent):
            yield from self._turn(update, is_ignored=is_ignored)
        elif isinstance(update, Asked):
            yield self._begin_response()
        elif isinstance(update, Heard):
            yield {
                "type": "conversation.item.input_audio_transcription.completed",
                "item_id": self._question_id, "content_index": 0, "transcript": update.transcript,
            }  # fmt: skip
        elif isinstance(update, Said):
            yield from self._written(update.text)
            sound = base64.b64encode(to_pcm16(update.samples_N)).decode("ascii")
            yield self._of_answer("output_audio.delta", delta=sound)
        elif isinstance(update, Wrote):
            yield from self._written(update.text)
        elif isinstance(update, Ended):
            yield from self._written(update.text)
            if self._modalities == ["audio"]:
                yield self._of_answer("output_audio.done")
                yield self._of_answer("output_audio_transcript.done", transcript=update.text)
            else:
                yield self._of_answer("output_text.done", text=update.text)
            yield self._done("failed" if update.problem else "completed", update.problem)
        elif isinstance(update, Refused | Left):
            yield error_event(update.problem)
        elif isinstance(update, Held | Resumed):
            kind = "held" if isinstance(update, Held) else "resumed"
            yield {"type": f"output_audio_buffer.{kind}", "response_id": self._response_id}
        elif isinstance(update, Interrupted):
            yield {"type": "output_audio_buffer.cleared", "response_id": self._response_id,
                   "question_continues": update.is_continued}  # fmt: skip
            if self._answer_id:
                yield self._done("cancelled", "")

    def _turn(self, event: TurnEvent, *, is_ignored: bool) -> Iterator[Event]:
        time_ms = round(1000 * event.time_s)
        if event.kind == "began":
            self._question_id = _new_id("item")
            yield {"type": "input_audio_buffer.speech_started", "audio_start_ms": time_ms,
                   "item_id": self._question_id}  # fmt: skip
        elif event.kind == "ended":
            yield {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": time_ms,
                   "item_id": self._question_id}  # fmt: skip
            if not is_ignored:
                yield {"type": "input_audio_buffer.committed", "item_id": self._question_id}
                yield self._begin_response()

    def _written(self, text: str) -> Iterator[Event]:
        """What of the answer is new."""
        if len(text) > len(self._text):
            kind = "output_audio_transcript" if self._modalities == ["audio"] else "output_text"
            yield self._of_answer(f"{kind}.delta", delta=text[len(self._text) :])
            self._text = text

    def _begin_response(self) -> Event:
        self._response_id, self._answer_id, self._text = _new_id("resp"), _new_id("item"), ""
        response = {"id": self._response_id, "object": "realtime.response", "status": "in_progress"}
        return {"type": "response.created", "response": response}

    def _of_answer(self, kind: str, **values: str) -> Event:
        return {"type": f"response.{kind}", "response_id": self._response_id,
                "item_id": self._answer_id, "output_index": 0, "content_index": 0,
                **values}  # fmt: skip

    def _done(self, status: str, problem: str) -> Event:
        self._answer_id = ""
        response: Event = {"id": self._response_id, "object": "realtime.response", "status": status}
        if problem:
            response["status_details"] = {"type": "failed", "error": {"message": problem}}
        return {"type": "response.done", "response": response}

    def _describe(self) -> Event:
        return {
            "type": "realtime",
            "object": "realtime.session",
            "instructions": self._instruction,
            "output_modalities": self._modalities,
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": self._rate_hz},
                    "turn_detection": {"type": "server_vad"},
                },
                "output": {
                    "format": {"type": "audio/pcm", "rate": MIMI_SAMPLE_RATE_HZ},
                    "voice": self._voice,
                },
            },
        }

    def _set_rate(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._resample = None
        if rate_hz != GEMMA_SAMPLE_RATE_HZ:
            self._resample = soxr.ResampleStream(rate_hz, GEMMA_SAMPLE_RATE_HZ, 1, dtype="float32")

    def _decode(self, audio: object) -> np.ndarray:
        if not isinstance(audio, str):
            raise InputError("'audio' is missing")
        try:
            data = base64.b64decode(audio, validate=True)
        except binascii.Error:
            raise InputError("'audio' is not base64") from None
        if len(data) % 2:
            raise InputError("'audio' does not hold whole 16-bit samples")
        samples_N = np.frombuffer(data, "<i2").astype(np.float32) / 32768
        return self._resample.resample_chunk(samples_N) if self._resample else samples_N


def error_event(message: str) -> Event:
    """What went wrong."""
    return {"type": "error", "error": {"type": "invalid_request_error", "message": message}}


def _typed_text(event: Event) -> str:
    """The text of a `conversation.item.create`."""
    item = event.get("item")
    content = item.get("content") if isinstance(item, dict) else None
    if isinstance(content, list):
        for part in content:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                return str(part["text"])
    raise InputError("the item has no text")


def _input_rate(event: Event) -> int | None:
    """The sample rate that a `session.update` asks for, if it does."""
    value: Any = event
    for key in ("session", "audio", "input", "format", "rate"):
        value = value.get(key) if isinstance(value, dict) else None
    if value is None:
        return None
    if not isinstance(value, int) or not MIN_RATE_HZ <= value <= MAX_RATE_HZ:
        raise InputError(f"the rate must be {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz")
    return value


def _asked_voice(session: Event) -> str | None:
    """The voice that a `session.update` asks for, if it does, in either of the two places in which
    OpenAI's interface has had it."""
    audio = session.get("audio")
    output = audio.get("output") if isinstance(audio, dict) else None
    nested = output.get("voice") if isinstance(output, dict) else None
    voice = session.get("voice") if nested is None else nested
    if voice is None or isinstance(voice, str):
        return voice
    raise InputError("'voice' is not the name of a voice")


def _new_id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(8)}"
