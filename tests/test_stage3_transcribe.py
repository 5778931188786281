"""Long recordings are transcribed piece by piece, and written as others read them."""

import json

import numpy as np
import pytest
import soundfile
import torch
from conftest import run

from commands.errors import InputError
from data_manifests.audio import read_audio
from data_manifests.audio_defects import AudioDefect
from data_manifests.long_audio import LongRecording, open_long_audio
from stage3_finetune import transcribe
from stage3_finetune.conversation import load_conversation
from stage3_finetune.long_transcript import write_down
from stage3_finetune.subtitles import Cue, format_cues, format_time

RATE_HZ = 16_000
CUES = [Cue(0.5, 2.25, "Maakye & <da yie>."), Cue(3, 4, ""), Cue(3599.9996, 3661.5, "A --> ɛ.")]


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [
        (".txt", "Maakye & <da yie>.\nA --> ɛ.\n"),
        (
            ".vtt",
            "WEBVTT\n\n00:00:00.500 --> 00:00:02.250\nMaakye &amp; &lt;da yie&gt;.\n"
            "\n01:00:00.000 --> 01:01:01.500\nA --&gt; ɛ.\n",
        ),
        (
            ".srt",
            "1\n00:00:00,500 --> 00:00:02,250\nMaakye & <da yie>.\n"
            "\n2\n01:00:00,000 --> 01:01:01,500\nA → ɛ.\n",
        ),
    ],
)
def test_a_transcript_as_others_write_it(suffix, expected):
    assert format_cues(CUES, suffix) == expected


def test_a_transcript_as_json():
    said = json.loads(format_cues(CUES, ".json"))
    assert said["text"] == "Maakye & <da yie>. A --> ɛ." and said["language"] == "tw"
    assert said["segments"][1] == {"id": 1, "start": 3600.0, "end": 3661.5, "text": "A --> ɛ."}
    assert format_time(0) == "00:00:00.000" and format_time(360_000) == "100:00:00.000"


@pytest.fixture(scope="module")
def conversation(tiny_models):
    settings = {"device": torch.device("cpu"), "dtype": torch.float32, "max_new_tokens": 6}
    return load_conversation(str(tiny_models / "gemma"), None, **settings)


def noise(seconds, seed):
    size = round(seconds * RATE_HZ)
    return (0.1 * np.random.default_rng(seed).standard_normal(size)).astype(np.float32)


def texts(conversation, waveform_N, **settings):
    recording = LongRecording(RATE_HZ, 0, iter([waveform_N]))
    return [piece.cue.text for piece in write_down(conversation, recording, **settings)]


def test_a_short_recording_gives_what_it_gives_at_once(conversation, tmp_path):
    path = tmp_path / "short.wav"
    silence_N = np.zeros(RATE_HZ // 2, np.float32)
    soundfile.write(path, np.concatenate([silence_N, noise(2, 3), silence_N]), RATE_HZ)
    with open_long_audio(path) as recording:
        [piece] = write_down(conversation, recording)
    assert piece.cue.text == conversation.write_down(path) != ""
    assert (piece.cue.start_s, piece.cue.end_s) == (0.4, 2.6)


def test_joined_recordings_give_their_own_texts_one_by_one_and_in_batches(conversation):
    clips = [noise(seconds, seed) for seed, seconds in enumerate((1, 2, 1.5))]
    pause_N, kept_N = np.zeros(RATE_HZ, np.float32), np.zeros(RATE_HZ // 10, np.float32)
    joined_N = np.concatenate([part for clip in clips for part in (pause_N, clip)])
    alone = [texts(conversation, np.concatenate([kept_N, clip, kept_N])) for clip in clips[:-1]]
    one_by_one = texts(conversation, joined_N)
    assert one_by_one == texts(conversation, joined_N, batch_size=2)
    assert [[text] for text in one_by_one[:-1]] == alone and len(set(one_by_one)) > 1


@pytest.fixture
def words(tiny_models, tmp_path):
    return (
        "--gemma", tiny_models / "gemma", "--device", "cpu", "--max-new-tokens", 4,
        "--audio", tmp_path / "talk.wav", "--out", tmp_path / "talk.vtt",
    )  # fmt: skip


def test_the_command_writes_what_it_prints(words, tmp_path, capsys):
    talk_N = np.concatenate([noise(9, 1), np.zeros(RATE_HZ, np.float32), noise(1, 2)])
    soundfile.write(tmp_path / "talk.wav", talk_N, RATE_HZ)
    transcribe.main([str(w) for w in (*words, "--longest-piece-s", 4, "--shortest-pause-s", 0.5)])
    said = capsys.readouterr()
    times = [line[1:30] for line in said.out.splitlines() if line.startswith("[")]
    written = (tmp_path / "talk.vtt").read_text(encoding="utf-8")
    assert times == [line for line in written.splitlines() if " --> " in line]
    assert len(times) > 3 and times[-1] == "00:00:09.890 --> 00:00:11.000"
    assert "transcripts reached --max-new-tokens" in said.err


def test_what_a_damaged_recording_has_before_its_damage_is_kept(words, tmp_path, capsys):
    talk_N = np.concatenate([noise(2, 1), np.zeros(20 * RATE_HZ, np.float32)] * 5)
    talk_N[-1] = np.nan
    soundfile.write(tmp_path / "talk.wav", talk_N, RATE_HZ, subtype="FLOAT")
    with pytest.raises(AudioDefect, match="holds NaN"):
        run(transcribe.main, *words)
    assert "talk.vtt holds the first 90 s of it" in capsys.readouterr().err
    assert (tmp_path / "talk.vtt").read_text(encoding="utf-8").count("-->") == 5


def test_what_cannot_be_transcribed_is_one_line_and_no_file(words, tmp_path):
    soundfile.write(tmp_path / "talk.wav", np.zeros(RATE_HZ), RATE_HZ)
    with pytest.raises(InputError, match="no speech was found"):
        run(transcribe.main, *words)
    with pytest.raises(InputError, match=r"must end in \.txt, \.vtt"):
        run(transcribe.main, *words[:-1], tmp_path / "talk.doc")
    with pytest.raises(AudioDefect, match="no such audio file"):
        run(transcribe.main, *words, "--audio", tmp_path / "absent.wav")
    assert not (tmp_path / "talk.vtt").exists()


def test_a_short_file_is_decoded_as_it_always_was(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(1, 0), 22_050)
    with open_long_audio(tmp_path / "a.wav") as recording:
        [block_N] = recording.blocks
    assert np.array_equal(block_N, read_audio(tmp_path / "a.wav", 22_050))
