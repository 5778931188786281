"""The page of the server in a real browser, whose microphone hears a recorded question."""

import numpy as np
import pytest
import soundfile
import soxr
from head_world import alone, let_gemma_write
from page_world import CHROMIUM, Server, needs_browser

from benchmarks.fake_microphone import browsing
from data_manifests.audio import read_audio
from speech_head.stream import Sampling
from voice_chat.studio import Studio
from voice_chat.turn_taking import TurnSettings

WRITTEN = "Yoo, me te wo ase."
pytestmark = needs_browser


@pytest.fixture
def studio(talker, monkeypatch):
    let_gemma_write(monkeypatch, WRITTEN)
    settings = TurnSettings(pause_s=0.4, max_turn_s=10.0)
    with Studio(alone(talker), settings, lambda turns: Sampling(), max_visits=3) as studio:
        yield studio


@pytest.fixture
def browser(tmp_path, corpus):
    """Chromium, whose microphone hears the question again and again."""
    question = read_audio(corpus / "audio" / "train_question_0000.wav", 16_000)
    silence = np.zeros(16_000, np.float32)
    heard = np.concatenate([silence, question, *[silence] * 5])
    soundfile.write(tmp_path / "microphone.wav", soxr.resample(heard, 16_000, 48_000), 48_000)
    with browsing(CHROMIUM, tmp_path / "microphone.wav", is_repeated=True) as started:
        yield started


@pytest.fixture
def server(studio):
    server = Server(studio)
    server.begin()
    yield server
    server.end()


def test_the_page_in_a_browser(browser, server):
    """Typed, by an example, and spoken hands free; then the connection is lost and comes back."""
    page = browser.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    page.goto(f"http://127.0.0.1:{server.port}")
    answers, questions = page.locator("main .answer"), page.locator("main .question")
    page.fill("#text", "Wo din de sɛn?")
    page.press("#text", "Enter")
    answers.nth(0).get_by_text(WRITTEN).wait_for(timeout=60_000)
    page.get_by_role("button", name="Ɛte sɛn?").click()
    answers.nth(1).get_by_text(WRITTEN).wait_for(timeout=60_000)
    assert questions.all_inner_texts() == ["Wo din de sɛn?", "Ɛte sɛn?"]
    assert page.locator("main audio").count() == 2  # to be heard again
    page.check("#times")
    page.click("#listen")
    answers.nth(2).get_by_text(WRITTEN).wait_for(timeout=120_000)
    assert page.locator("#latency").inner_text().endswith(" ms")
    page.click("#listen")
    assert page.locator("#listen").get_attribute("aria-pressed") == "false"
    assert problems == []
    server.end()
    page.locator('body[data-status="lost"]').wait_for(timeout=60_000)
    server.begin()
    page.locator('body[data-status="ready"]').wait_for(timeout=60_000)
    assert page.locator("main .note").count() >= 1  # that the conversation begins anew
    page.fill("#text", "Wo din de sɛn?")
    page.press("#text", "Enter")
    answers.nth(3).get_by_text(WRITTEN).wait_for(timeout=60_000)
    page.click("#new")
    page.locator('body[data-status="ready"]').wait_for(timeout=60_000)
    page.check("#write")
    page.fill("#text", "Wo din de sɛn?")
    page.press("#text", "Enter")
    answers.nth(0).get_by_text(WRITTEN).wait_for(timeout=60_000)
    assert answers.count() == 1 and page.locator("main audio").count() == 0
    page.close()


def test_a_refused_microphone_is_told(browser, server):
    context = browser.new_context(permissions=[])
    page = context.new_page()
    page.add_init_script("navigator.mediaDevices.getUserMedia = async () => { throw new Error() }")
    page.goto(f"http://127.0.0.1:{server.port}")
    page.locator('body[data-status="ready"]').wait_for(timeout=60_000)
    page.click("#listen")
    page.locator('body[data-status="refused"]').wait_for(timeout=60_000)
    assert page.locator("#listen").get_attribute("aria-pressed") == "false"
    context.close()
