"""Stage 4's page over HTTP: what is served to whom, and what is refused."""

import http.client
import os
import socket
import sys
from html import escape

import gradio
import gradio_client
import httpx
import pytest
from conftest import run
from head_world import QUESTION, let_gemma_write, models
from test_head_web import fetch_samples

from commands.errors import InputError
from voice_chat import page, web
from voice_chat.visits import VoiceChat

IMAGE = '<img src="http://elsewhere.example/x.png" onerror="alert(1)">'


@pytest.fixture(scope="module")
def secrets_of_others(tmp_path_factory):
    """Files that no visitor may read, in a folder of the server's."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "secret.txt").write_text("secret")
    return folder


@pytest.fixture(scope="module")
def served(talker, secrets_of_others):
    """Address of the page, and its voice chat; a tiny Gemma writes HTML to whatever is asked."""
    with pytest.MonkeyPatch.context() as patch, web.visitors_files() as files:
        let_gemma_write(patch, f"Yoo {IMAGE}")
        patch.setattr(page, "MAX_UPLOAD_BYTES", 100_000)
        config = web.WebConfig(head="head", out=secrets_of_others / "answers")
        voice_chat = VoiceChat(talker, config, config.out, files)
        blocks = page.build_page(voice_chat)
        try:
            yield page.launch(blocks, host="127.0.0.1", port=None), blocks, voice_chat
        finally:
            blocks.close(verbose=False)


@pytest.fixture
def told(monkeypatch):
    """What visitors are told beside the conversation."""
    told = []
    monkeypatch.setattr(gradio, "Warning", told.append)
    return told


def connect(served):
    # Downloads would go to a folder of all users of the machine.
    return gradio_client.Client(served[0], verbose=False, download_files=False)


def test_the_page_answers_and_nobody_else_hears_it(served, told):
    address, blocks, voice_chat = served
    ama, kofi = connect(served), connect(served)
    question, answer = ama.predict(f"Wo {IMAGE} ho?", api_name="/answer_text")[0]
    assert question["content"][0]["text"] == escape(f"Wo {IMAGE} ho?")
    assert answer["content"][0]["text"] == escape(f"Yoo {IMAGE}")
    [player] = [block for block in blocks.blocks.values() if isinstance(block, gradio.HTML)]

    def fetch(name):
        body = {
            "data": name, "fn_name": "next_sound", "component_id": player._id,
            "session_hash": kofi.session_hash,
        }  # fmt: skip
        return httpx.post(f"{address}gradio_api/component_server", json=body).json()

    for name in ("", "1", "ama/1", ama.session_hash, f"{ama.session_hash}/1", "../1"):
        assert fetch(name) is None
    sound = voice_chat.visit(ama.session_hash).sound[0]
    heard_N = fetch_samples(fetch, sound)
    assert len(heard_N) % 1920 == 0 and len(heard_N) > 0 and fetch(sound) is None
    messages, *_ = kofi.predict(QUESTION, api_name="/answer_text")
    assert len(messages) == 2 and not told


def test_the_wav_is_served_by_its_name_until_the_visitor_leaves(served, secrets_of_others):
    address, _, voice_chat = served
    client = connect(served)
    client.predict(QUESTION, api_name="/answer_text")
    visit = voice_chat.visit(client.session_hash)
    [shown] = visit.exchanges
    url = f"{address}gradio_api/file={shown.wav}"
    assert httpx.get(url).content == shown.wav.read_bytes()
    [kept] = (secrets_of_others / "answers" / visit.name).iterdir()
    assert httpx.get(f"{address}gradio_api/file={kept}").status_code == 403
    assert httpx.get(f"{address}gradio_api/file={shown.wav.parent}").status_code == 403
    voice_chat.leave(client.session_hash)
    assert httpx.get(url).status_code == 403 and kept.exists()


def test_what_cannot_be_asked_is_told_and_the_next_question_answered(served, told, tmp_path):
    client = connect(served)
    client.predict("", api_name="/answer_text")
    client.predict("ɛ" * 100_000, api_name="/answer_text")
    (tmp_path / "note.wav").write_text("no sound")
    note = gradio_client.handle_file(tmp_path / "note.wav")
    client.predict(note, api_name="/answer_recording")
    assert told[0] == "nothing was asked" and "100,000 characters, at most 4,000" in told[1]
    assert told[2].startswith("the recording: not readable as audio")
    messages, *_ = client.predict(QUESTION, api_name="/answer_text")
    assert len(messages) == 2 and len(told) == 3
    messages, *_ = client.predict(QUESTION, api_name="/answer_text")
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2


def test_uploads_and_requests_have_limits(served, tmp_path):
    address, *_ = served
    upload, join = f"{address}gradio_api/upload", f"{address}gradio_api/queue/join"
    for num_bytes, status in ((1_000, 200), (200_000, 413)):
        reply = httpx.post(upload, files={"files": ("a.wav", bytes(num_bytes))})
        assert reply.status_code == status
    assert httpx.post(join, json={"data": ["a" * 2_000_000]}).status_code == 413


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/file={secret}",
        "gradio_api/file=/etc/passwd",
        "gradio_api/file={files}/../../etc/passwd",
        "gradio_api/file=..%2f..%2f..%2fetc%2fpasswd",
        "gradio_api/file={files}",
        "gradio_api/file/etc/passwd",
        "gradio_api/file=https://elsewhere.example/x",
        "gradio_api/file=HTTP://127.0.0.1/x",
        "gradio_api/proxy=https://elsewhere.example/x",
        "static/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "assets/../../../../etc/passwd",
        "answers/answer_001.wav",
    ],
)
def test_no_other_file_is_served(served, secrets_of_others, path):
    address, _, voice_chat = served
    path = path.format(secret=secrets_of_others / "secret.txt", files=voice_chat.files)
    connection = http.client.HTTPConnection(address.split("/")[2])  # sends ".." as it is
    connection.request("GET", f"/{path}")
    reply = connection.getresponse()
    assert reply.status in (403, 404) and b"root:" not in reply.read()
    connection.close()


def test_a_recording_cannot_be_an_address_or_a_file_of_the_server(served, secrets_of_others, told):
    address, blocks, _ = served
    [fn] = [i for i, fn in blocks.fns.items() if fn.api_name == "answer_recording"]
    for path, status in (
        ("https://elsewhere.example/x.wav", 403),
        (str(secrets_of_others / "secret.txt"), 200),
    ):
        body = {
            "data": [{"path": path, "meta": {"_type": "gradio.FileData"}}], "fn_index": fn,
            "session_hash": "esi",
        }  # fmt: skip
        reply = httpx.post(f"{address}gradio_api/queue/join", json=body)
        assert reply.status_code == status
    with httpx.stream("GET", f"{address}gradio_api/queue/data?session_hash=esi") as events:
        text = "".join(events.iter_text())
    assert '"success":false' in text and str(secrets_of_others) not in text
    assert (secrets_of_others / "secret.txt").exists() and not told


def test_visitors_files_go_with_the_server():
    before = os.environ.get("GRADIO_TEMP_DIR")
    with web.visitors_files() as files:
        assert os.environ["GRADIO_TEMP_DIR"] == str(files) and files.stat().st_mode & 0o77 == 0
        (files / "upload.wav").touch()
    assert not files.exists() and os.environ.get("GRADIO_TEMP_DIR") == before


def test_what_hinders_the_page_is_named(head_world, tmp_path, monkeypatch):
    words = (*models(head_world), "--out", tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {port}"):
            run(web.main, *words, "--port", port)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"--out \S+ is a file"):
        run(web.main, "--head", "nowhere", "--out", tmp_path / "file")
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(InputError, match="needs Gradio"):
        run(web.main, *words)
