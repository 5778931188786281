"""The server: many conversations, the protocol, and the page in a real browser."""

import base64
import re
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from conftest import ROOT
from head_world import alone, let_gemma_write
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from commands.errors import InputError
from data_manifests.audio import read_audio, to_pcm16
from data_manifests.language import language
from speech_head.model import SpeechHead
from speech_head.stream import Sampling
from speech_head.voices import find_voice
from voice_chat import examples, serve
from voice_chat.realtime_protocol import RealtimeSession
from voice_chat.studio import Studio
from voice_chat.turn_taking import TurnSettings
from voice_chat.updates import Ended, Left

WRITTEN = "Yoo, me te wo ase."
SETTINGS = TurnSettings(pause_s=0.4, max_turn_s=10.0)
QUIET_S = 1.2


pytestmark = pytest.mark.skipif(
    None in map(find_spec, ("silero_vad", "livekit")), reason="needs silero-vad and livekit"
)


@pytest.fixture
def studio(talker, monkeypatch):
    let_gemma_write(monkeypatch, WRITTEN)
    with Studio(alone(talker), SETTINGS, lambda turns: Sampling(), max_visits=3) as studio:
        yield studio


@pytest.fixture
def client(studio):
    return TestClient(serve.build_app(studio, ["Wo din de sɛn?"]))


@pytest.fixture(scope="module")
def question(corpus):
    """A spoken question and silence after it, 16 kHz."""
    speech = read_audio(corpus / "audio" / "train_question_0000.wav", 16_000)
    return np.concatenate([speech, np.zeros(round(QUIET_S * 16_000), np.float32)])


def sound_event(samples_N):
    audio = base64.b64encode(to_pcm16(samples_N)).decode()
    return {"type": "input_audio_buffer.append", "audio": audio}


def speak(socket, samples_N, rate_hz=16_000):
    format_ = {"type": "audio/pcm", "rate": rate_hz}
    session = {"audio": {"input": {"format": format_}}}
    socket.send_json({"type": "session.update", "session": session})
    assert socket.receive_json()["type"] == "session.updated"
    for piece_N in np.array_split(samples_N, 20):
        socket.send_json(sound_event(piece_N))


def until(socket, kind):
    """Events up to the next of a kind."""
    events = [socket.receive_json()]
    while events[-1]["type"] != kind:
        events.append(socket.receive_json())
    return events


def test_a_spoken_question_is_answered_with_the_events_of_the_interface(client, question):
    with client.websocket_connect("/v1/realtime") as socket:
        assert socket.receive_json()["type"] == "session.created"
        speak(socket, question)
        events = until(socket, "response.done")
    kinds = list(dict.fromkeys(event["type"] for event in events))
    assert kinds == [
        "input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed", "response.created",
        "response.output_audio_transcript.delta", "response.output_audio.delta",
        "response.output_audio.done", "response.output_audio_transcript.done", "response.done",
    ]  # fmt: skip
    deltas = [e["delta"] for e in events if e["type"] == "response.output_audio_transcript.delta"]
    assert "".join(deltas) == WRITTEN
    sounds = [e["delta"] for e in events if e["type"] == "response.output_audio.delta"]
    assert {len(base64.b64decode(sound)) for sound in sounds} == {2 * 1920}
    assert events[-1]["response"]["status"] == "completed"
    assert len({e["response_id"] for e in events if "response_id" in e}) == 1


def test_a_typed_question_is_answered_and_an_answer_stopped(client):
    with client.websocket_connect("/v1/realtime") as socket:
        socket.receive_json()
        item = {"type": "message", "content": [{"type": "input_text", "text": "Wo din de sɛn?"}]}
        socket.send_json({"type": "conversation.item.create", "item": item})
        socket.send_json({"type": "response.create"})
        assert until(socket, "response.done")[-1]["response"]["status"] == "completed"
        socket.send_json({"type": "conversation.item.create", "item": item})
        until(socket, "response.output_audio.delta")
        socket.send_json({"type": "response.cancel"})
        [*_, cleared, done] = until(socket, "response.done")
        assert cleared["type"] in (
            "output_audio_buffer.cleared",
            "response.output_audio_transcript.done",
        )
        assert done["response"]["status"] in ("cancelled", "completed")


def test_what_is_said_is_written_down(client, studio, question):
    """Nothing is spoken; what Gemma is told to do stands beside the speech."""
    with client.websocket_connect("/v1/realtime") as socket:
        socket.receive_json()
        session = {"instructions": language().write, "output_modalities": ["text"]}
        socket.send_json({"type": "session.update", "session": session})
        described = socket.receive_json()["session"]
        assert {name: described[name] for name in session} == session
        speak(socket, question)
        events = until(socket, "response.done")
        [visit] = studio._visits
        turns = list(visit.live.answerer.talker.conversation.turns)
    kinds = {event["type"] for event in events}
    assert {"response.output_text.delta", "response.output_text.done"} <= kinds
    assert not any("audio" in kind for kind in kinds if kind.startswith("response."))
    [written] = [e["text"] for e in events if e["type"] == "response.output_text.done"]
    assert written == WRITTEN
    assert [turn.prompt for turn in turns] == [language().write, ""]


def test_other_sample_rates_are_heard(client, question):
    import soxr

    with client.websocket_connect("/v1/realtime") as socket:
        socket.receive_json()
        speak(socket, soxr.resample(question, 16_000, 44_100), 44_100)
        assert until(socket, "response.done")[-1]["response"]["status"] == "completed"


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ([], "a JSON object"),
        ({"type": 3}, "a JSON object"),
        ({"type": "nonsense"}, "unknown type 'nonsense'"),
        ({"type": "input_audio_buffer.append"}, "'audio' is missing"),
        ({"type": "input_audio_buffer.append", "audio": "!"}, "not base64"),
        ({"type": "input_audio_buffer.append", "audio": "AA=="}, "whole 16-bit samples"),
        ({"type": "conversation.item.create", "item": {"content": [{}]}}, "has no text"),
        ({"type": "conversation.item.create", "item": {"content": [{"text": " "}]}}, "nothing was"),
        ({"type": "session.update",
          "session": {"audio": {"input": {"format": {"rate": 1}}}}}, "8000 to 96000"),
        ({"type": "session.update", "session": {"instructions": 1}}, "'instructions' is not text"),
        ({"type": "session.update", "session": {"instructions": "a" * 5000}}, "4,000"),
        ({"type": "session.update", "session": {"output_modalities": "text"}}, "output_modalities"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_told_and_the_talk_goes_on(client, event, reason):
    with client.websocket_connect("/v1/realtime") as socket:
        socket.receive_json()
        socket.send_json(event)
        error = socket.receive_json()
        assert error["type"] == "error" and reason in error["error"]["message"]
        socket.send_text("{")
        assert socket.receive_json()["type"] == "error"
        socket.send_json({"type": "session.update"})
        assert socket.receive_json()["type"] == "session.updated"


def test_one_too_many_is_turned_away_and_may_come_when_another_leaves(client, studio):
    with ExitStack() as stack:
        for _ in range(3):
            socket = stack.enter_context(client.websocket_connect("/v1/realtime"))
            assert socket.receive_json()["type"] == "session.created"
        fourth = stack.enter_context(client.websocket_connect("/v1/realtime"))
        assert "3 conversations are going on" in fourth.receive_json()["error"]["message"]
        with pytest.raises(WebSocketDisconnect):
            fourth.receive_json()
    for _ in range(100):
        if not len(studio):
            break
        time.sleep(0.05)
    with client.websocket_connect("/v1/realtime") as socket:
        assert socket.receive_json()["type"] == "session.created"


def test_pages_of_other_sites_are_refused(client):
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect("/v1/realtime", headers={"origin": "https://elsewhere.example"}),
    ):
        pass
    headers = {"origin": "http://testserver"}
    with client.websocket_connect("/v1/realtime", headers=headers) as socket:
        assert socket.receive_json()["type"] == "session.created"


def test_the_page_and_its_parts_are_served_and_nothing_else(client):
    page = client.get("/")
    assert (
        page.status_code == 200 and "default-src 'self'" in page.headers["content-security-policy"]
    )
    for name in ("talk.js", "microphone.js", "style.css"):
        assert f"/page/{name}" in page.text + (serve.PAGE / "talk.js").read_text("utf-8")
        assert client.get(f"/page/{name}").status_code == 200
    page = client.get("/page.json").json()
    assert page == {"examples": ["Wo din de sɛn?"], "write": language().write, "voices": []}
    for path in ("/page/../serve.py", "/page/%2e%2e/serve.py", "/etc/passwd", "/docs"):
        assert client.get(path).status_code == 404


def test_everybody_hears_their_own_answer_at_the_same_time(studio, monkeypatch):
    """Three talk at once; each gets every sound of an answer, in order, and it is theirs."""
    heard = {name: [] for name in "abc"}
    ended = {name: threading.Event() for name in heard}
    visits = {}
    for name in heard:

        def listen(updates, name=name):
            heard[name] += updates
            if any(isinstance(update, Ended) for update in updates):
                ended[name].set()

        visits[name] = studio.enter(listen)
    for name, visit in visits.items():
        visit.ask(f"Me din de {name}. Wo din de sɛn?")
    assert all(event.wait(60) for event in ended.values())
    for name, visit in visits.items():
        [answer] = [u for u in heard[name] if isinstance(u, Ended)]
        assert answer.text == WRITTEN and not answer.problem
        turns = visit.live.answerer.talker.conversation.turns
        assert [turn.content for turn in turns] == [f"Me din de {name}. Wo din de sɛn?", WRITTEN]
        visit.leave()
    assert len(studio) == 0


def test_an_error_of_ours_ends_one_conversation_only(studio, monkeypatch, capsys):
    happened, others = [], []
    broken, well = studio.enter(happened.extend), studio.enter(others.extend)
    broken.live.hear = None
    broken.hear(np.zeros(512, np.float32))
    well.ask("Wo din de sɛn?")
    for _ in range(600):
        if others and isinstance(others[-1], Ended):
            break
        time.sleep(0.1)
    assert others[-1] == Ended(WRITTEN)
    assert happened == [Left("the conversation ended by an error of the server")]
    assert "TypeError" in capsys.readouterr().err and len(studio) == 1


def test_a_client_whose_conversation_broke_is_told_and_sent_away(client, studio):
    with client.websocket_connect("/v1/realtime") as socket:
        socket.receive_json()
        [visit] = studio._visits
        visit.live.hear = None
        socket.send_json(sound_event(np.zeros(512, np.float32)))
        assert "an error of the server" in until(socket, "error")[-1]["error"]["message"]
        with pytest.raises(WebSocketDisconnect):
            socket.receive_json()


def test_a_question_too_long_for_gemma_is_told_and_the_talk_goes_on(client, monkeypatch):
    with client.websocket_connect("/v1/realtime") as socket:
        socket.receive_json()
        for text in ("ɛ " * 1900, "Wo din de sɛn?"):
            item = {"type": "message", "content": [{"type": "input_text", "text": text}]}
            with monkeypatch.context() as patch:
                if len(text) > 100:
                    patch.setattr("stage3_finetune.prompt_limits.MAX_PROMPT_TOKENS", 300)
                socket.send_json({"type": "conversation.item.create", "item": item})
                event = socket.receive_json()
            expected = "error" if len(text) > 100 else "response.created"
            assert event["type"] == expected
        assert until(socket, "response.done")[-1]["response"]["status"] == "completed"


def test_sound_that_nobody_can_keep_up_with_is_refused(studio):
    visit = studio.enter(lambda updates: None)
    session = RealtimeSession(visit)
    visit._add = lambda job, sound=None: None  # the studio is busy
    second = sound_event(np.zeros(24_000, np.float32))
    with pytest.raises(InputError, match="30 s of sound wait already"):
        for _ in range(40):
            session.receive(second)


def test_examples_are_read_and_a_missing_file_is_told(tmp_path):
    (tmp_path / "examples.txt").write_text("Wo din de sɛn?\n\n  Ɛte sɛn?  \n", "utf-8")
    assert examples.read_examples(tmp_path / "examples.txt") == ["Wo din de sɛn?", "Ɛte sɛn?"]
    with pytest.raises(InputError, match="--examples"):
        examples.read_examples(tmp_path / "no.txt")


def test_events_are_those_of_the_protocol():
    """What the page handles, the server sends."""
    page = (ROOT / "voice_chat" / "page_files" / "talk.js").read_text("utf-8")
    protocol = (ROOT / "voice_chat" / "realtime_protocol.py").read_text("utf-8")
    handled = re.findall(r'^  "?([a-z_.]+)"?: (?:\(|addText)', page, re.MULTILINE)
    assert len(handled) >= 8
    for kind in handled:
        assert kind.removeprefix("response.") in protocol, kind


def test_a_voice_is_chosen_by_its_name(talker, monkeypatch):
    """It holds from the next answer on; a head of one voice ignores it."""
    let_gemma_write(monkeypatch, WRITTEN)
    head = SpeechHead(replace(talker.head.config, voice_width=8, voices=["ama", "kofi"])).eval()
    head.load_state_dict(talker.head.state_dict(), strict=False)
    torch.nn.init.normal_(head.read_voice.weight, std=3.0)
    head.voices_VE.copy_(torch.randn(2, 8, generator=torch.Generator().manual_seed(0)))
    voiced = replace(alone(talker), head=head, voice=find_voice(head, "ama"))
    item = {"type": "message", "content": [{"type": "input_text", "text": "Wo din de sɛn?"}]}
    said, named = [], []
    sessions = ({"voice": "kofi"}, {"audio": {"output": {"voice": "ama"}}}, {"voice": "kofi"})
    with Studio(voiced, SETTINGS, lambda turns: Sampling(), max_visits=4) as studio:
        client = TestClient(serve.build_app(studio, []))
        assert client.get("/page.json").json()["voices"] == ["ama", "kofi"]
        for session in sessions:
            with client.websocket_connect("/v1/realtime") as socket:
                socket.receive_json()
                socket.send_json({"type": "session.update", "session": session})
                updated = until(socket, "session.updated")[-1]
                named.append(updated["session"]["audio"]["output"]["voice"])
                socket.send_json({"type": "conversation.item.create", "item": item})
                events = until(socket, "response.done")
            sounds = [e["delta"] for e in events if e["type"] == "response.output_audio.delta"]
            said.append("".join(sounds))
        with client.websocket_connect("/v1/realtime") as socket:
            for voice, message in (("kofy", "did you mean 'kofi'.* knows ama, kofi"), (1, "name")):
                socket.send_json({"type": "session.update", "session": {"voice": voice}})
                assert re.search(message, until(socket, "error")[-1]["error"]["message"])
    assert named == ["kofi", "ama", "kofi"]
    assert said[0] == said[2] != said[1]


def test_a_head_of_one_voice_has_none_to_choose(client):
    with client.websocket_connect("/v1/realtime") as socket:
        assert socket.receive_json()["session"]["audio"]["output"]["voice"] is None
        socket.send_json({"type": "session.update", "session": {"voice": "alloy"}})
        updated = until(socket, "session.updated")[-1]["session"]
        assert updated["audio"]["output"]["voice"] is None
