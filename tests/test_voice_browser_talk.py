"""A conversation by voice in a real browser with the demo's models: two turns, and a word that
interrupts."""

import base64
import json

import numpy as np
import pytest
import torch
from page_world import CHROMIUM, Server, needs_browser

from benchmarks.fake_microphone import browsing
from data_manifests.audio import MIMI_SAMPLE_RATE_HZ, to_pcm16
from data_manifests.normalization import normalize_for_scoring
from demo.shipped import WEIGHTS
from demo.voice.synthesizer import Synthesizer
from demo.voice.voices import draw_style, record
from speech_head.stream import Sampling
from speech_head.talker import load_talker
from voice_chat.studio import Studio
from voice_chat.turn_taking import TurnSettings

pytestmark = needs_browser
RATE_HZ = 48_000
FIRST = ("Wobɛtumi akyerɛ me da a ɛba Benada akyi anaa?", "Wukuada na ɛdi Benada akyi.")
LONG = "Mepɛ sɛ mehunu deɛ ɛka sɛ woyi nsia firi dummienu mu."  # with a long answer
# A microphone in a quiet room, which hears what `say` is given.
MICROPHONE = """
const room = new AudioContext({ sampleRate: 48000 });
const heard = room.createMediaStreamDestination();
const noise = room.createBuffer(1, 48000, 48000);
noise.getChannelData(0).forEach((_, i, samples) => (samples[i] = 2e-4 * (Math.random() - 0.5)));
const play = (buffer, settings) => {
  const source = Object.assign(room.createBufferSource(), { buffer, ...settings });
  source.connect(heard);
  source.start();
  return source;
};
play(noise, { loop: true });
navigator.mediaDevices.getUserMedia = async () => heard.stream;
window.say = (base64) => new Promise((resolve) => {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const samples = Float32Array.from(new Int16Array(bytes.buffer), (x) => x / 32768);
  const buffer = room.createBuffer(1, samples.length, 48000);
  buffer.copyToChannel(samples, 0);
  play(buffer, { onended: resolve });
});
"""


class Page:
    """The page, somebody who speaks to it, and what the server tells it."""

    def __init__(self, browser, address):
        self.events = []
        self.sound_s = 0.0  # of the newest answer
        self.page = browser.new_page()
        self.page.add_init_script(MICROPHONE)
        self.page.on("websocket", lambda socket: socket.on("framereceived", self._take))
        self.page.goto(address)
        self.page.locator('body[data-status="ready"]').wait_for(timeout=60_000)
        self.page.click("#listen")
        self._voice = Synthesizer()

    def _take(self, text):
        event = json.loads(text)
        if event["type"] == "response.created":
            self.sound_s = 0.0
        if event["type"] == "response.output_audio.delta":
            num_bytes = len(base64.b64decode(event["delta"]))
            self.sound_s += num_bytes / 2 / MIMI_SAMPLE_RATE_HZ
        self.events.append(event["type"])

    def say(self, text, seed):
        """Say it in a voice that the models have never heard."""
        generator = np.random.default_rng(seed)
        style = draw_style(generator, held_out=True)
        said_N = record(self._voice, text, style, sample_rate_hz=RATE_HZ, generator=generator)
        self.events.clear()
        self.page.evaluate("say", base64.b64encode(to_pcm16(said_N)).decode("ascii"))

    def wait_for(self, event):
        for _ in range(600):
            if event in self.events:
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"no {event} within a minute: {self.events}")

    def texts(self, kind):
        return self.page.locator(f"main .{kind}").all_inner_texts()


@pytest.fixture
def address(espeak):
    """A server of the shipped models, which speak slowly."""
    part = {name: str(WEIGHTS / name) for name in ("gemma", "mimi", "head")}
    talker = load_talker(
        part["gemma"], WEIGHTS / "finetune", part["mimi"], part["head"],
        device=torch.device("cpu"), dtype=torch.float32, max_new_tokens=64,
    )  # fmt: skip
    slow = Sampling(pace=-1.0)
    with Studio(talker, TurnSettings(), lambda turns: slow, max_visits=1) as studio:
        server = Server(studio)
        server.begin()
        yield f"http://127.0.0.1:{server.port}"
        server.end()


def test_two_turns_and_a_word_that_interrupts(address, tmp_path):
    with browsing(CHROMIUM, tmp_path / "unused.wav") as browser:
        page = Page(browser, address)
        page.say(FIRST[0], seed=1)
        page.wait_for("response.done")
        assert [normalize_for_scoring(text) for text in page.texts("question")] == [
            normalize_for_scoring(FIRST[0])
        ]
        assert page.texts("answer") == [FIRST[1]]
        page.page.wait_for_timeout(1000 * page.sound_s)  # it is heard to its end
        page.say(LONG, seed=2)
        page.wait_for("response.output_audio.delta")
        page.page.wait_for_timeout(1000)  # nobody is heard in the first moments of an answer
        page.say("Gyae!", seed=3)
        page.wait_for("output_audio_buffer.cleared")
        page.page.locator("main .answer").nth(1).get_by_text("…").wait_for(timeout=60_000)
        assert len(page.texts("question")) == len(page.texts("answer")) == 2
        assert page.texts("answer")[0] == FIRST[1]
        page.page.close()
