"""Several voices of one head: learned from other recordings of the same speaker, chosen by name or
by a recording, and the same alone, in a batch and in a stream."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import run
from head_world import SMALL, make_states, models
from test_head_model import CONFIG, WEIGHTS, as_tokens, make_example
from torch.nn.utils import clip_grad_norm_

from commands.errors import InputError
from data_manifests.audio import write_wav
from data_manifests.manifest import read_manifest, write_manifest
from demo.world.make_corpus import ANSWERING_VOICES
from gemma4.layer_states import LAYERS
from speech_head import evaluate, speak, train
from speech_head.asked_voices import ask_for_voices, measure_voices, median_pitch_hz
from speech_head.head_batch import collate
from speech_head.held_out import HeldOut
from speech_head.model import SpeechHead, load_head
from speech_head.naturalness import SpeakerSimilarity, Versions
from speech_head.references import Reference, References, voice_names
from speech_head.speech import Speech
from speech_head.spoken_answers import SpokenRow
from speech_head.stream import HeadStream, Sampling, speak_answers
from speech_head.talker import load_talker
from speech_head.voice_encoder import VoiceEncoder
from speech_head.voices import choose_voice, find_voice, hear_voice

VOICED = replace(CONFIG, voice_width=8, voices=["ama", "kofi"])
LOW, HIGH = ANSWERING_VOICES


def make_head(**changes):
    torch.manual_seed(0)
    head = SpeechHead(replace(VOICED, **changes)).eval()
    torch.nn.init.normal_(head.read_voice.weight)
    head.voices_VE.normal_()
    return head


def make_codes(num_frames, seed):
    return torch.randint(
        0, 16, (num_frames, 4), generator=torch.Generator().manual_seed(seed)
    )  # fmt: skip


@pytest.fixture(scope="module")
def voiced(head_world, corpus, tmp_path_factory):
    """States and a head of both answering voices, beside the models of `head_world`."""
    folder = tmp_path_factory.mktemp("voiced")
    rows = list(read_manifest(corpus / "answers_train.jsonl"))
    by_voice = {voice: [row for row in rows if row.speaker == voice] for voice in (LOW, HIGH)}
    write_manifest(folder / "train.jsonl", [*by_voice[LOW][:3], *by_voice[HIGH][:2]])
    for name in ("gemma", "mimi", "recognizer"):
        (folder / name).symlink_to(head_world / name)
    make_states(folder, folder / "states")
    run(
        train.main, "--states", folder / "states", "--dev-states", folder / "states", *SMALL,
        "--steps", 12, "--learning-rate", 0.01, "--warmup-steps", 2, "--save-every", 12,
        "--recognizer", folder / "recognizer", *models(folder)[2:6], "--num-dev-sentences", 1,
        "--out", folder / "trained",
    )  # fmt: skip
    head = load_head(str(folder / "trained"), device=torch.device("cpu"))
    torch.manual_seed(0)
    torch.nn.init.normal_(head.read_voice.weight)  # so few steps leave voices alike
    torch.nn.init.normal_(head.voices_VE)
    head.save_pretrained(folder / "head")
    return folder


def test_a_head_of_one_voice_is_built_and_drawn_as_ever():
    """It has no weights for voices, and draws nothing for them."""
    torch.manual_seed(0)
    one = SpeechHead(CONFIG)
    voices = {"voice_encoder", "read_voice", "name_voice", "voices_VE"}
    assert not voices & {name.split(".")[0] for name in one.state_dict()}
    torch.manual_seed(1)
    told = replace(one.train().draw_told(3, 5, 0.5), frames_BF=None)
    rest = torch.rand(1)
    torch.manual_seed(1)
    torch.rand(3, 5)
    assert told.voice_B is None and torch.equal(rest, torch.rand(1))


def test_a_voice_depends_neither_on_padding_nor_on_the_order_of_frames():
    torch.manual_seed(0)
    encoder = VoiceEncoder(4, 16, 8)
    short, long = make_codes(5, 1), make_codes(12, 2)
    batch = collate([make_example(3, 5, 1), make_example(3, 5, 2)]).with_voices([short, long])
    voices_BE = encoder(batch.reference_BRK, batch.reference_mask_BR)
    for codes_RK, voice_E in zip((short, long), voices_BE, strict=True):
        torch.testing.assert_close(encoder.mean([codes_RK]), voice_E)
        torch.testing.assert_close(encoder.mean([codes_RK.flip(0), codes_RK]), voice_E)
    torch.testing.assert_close(voices_BE.square().mean(dim=1), torch.ones(2))
    assert not torch.allclose(*voices_BE, atol=0.1)


def test_padding_of_references_changes_nothing_in_the_loss():
    head = make_head()
    examples, shown = [make_example(9, 7, 1), make_example(3, 7, 2)], [make_codes(4, 3)]
    shown.append(make_codes(9, 4))
    batched = head(collate(examples).with_voices(shown), WEIGHTS)
    single = [
        head(collate([e]).with_voices([codes]), WEIGHTS)
        for e, codes in zip(examples, shown, strict=True)
    ]
    mean = sum(loss.codebooks_K for loss in single) / 2
    torch.testing.assert_close(batched.codebooks_K, mean, atol=1e-5, rtol=0)
    silent = head(collate(examples), WEIGHTS)
    assert not torch.allclose(silent.codebooks_K, batched.codebooks_K, atol=1e-3)
    told = replace(head.draw_told(2, 7), voice_B=torch.tensor([False, False]))
    hidden = head(collate(examples).with_voices(shown), WEIGHTS, told)
    torch.testing.assert_close(hidden.codebooks_K, silent.codebooks_K)


@pytest.mark.parametrize("text_dropout", [0.0, 0.5])
def test_every_row_of_a_batch_has_its_own_voice_as_it_would_alone_or_in_a_stream(text_dropout):
    head = make_head(text_dropout=text_dropout)
    example = make_example(3, 5, seed=1)
    voices = [None, *head.voices_VE]
    together = speak_answers(head, [example] * 3, ["a"] * 3, Sampling(), voices=voices)
    codes = [spoken.codes_FK for spoken in together]
    assert not torch.equal(codes[0], codes[1]) and not torch.equal(codes[1], codes[2])
    for voice_E, codes_FK in zip(voices, codes, strict=True):
        [alone] = speak_answers(head, [example], ["a"], Sampling(), voices=[voice_E])
        assert torch.equal(alone.codes_FK, codes_FK)
        stream = HeadStream(head, "a", Sampling(), voice_E)
        frames = []
        for token in range(3):
            stream.push(as_tokens(example, slice(token, token + 1)))
            if token == 2:
                stream.close()
            while stream.can_step:
                frames.append(stream.step())
        assert torch.equal(torch.stack([f for f in frames if f is not None]), codes_FK)


def test_the_same_words_are_learned_in_two_voices():
    torch.manual_seed(0)
    head = SpeechHead(VOICED).train()
    one, other = make_example(6, 10, seed=3), make_example(6, 10, seed=3)
    other = replace(other, codes_FK=make_codes(10, 9))
    shown = [[make_codes(8, 10 * s + n) % 8 + 8 * s for n in range(20)] for s in range(2)]
    before = {name: value.clone() for name, value in head.named_parameters()}
    optimizer = torch.optim.AdamW(head.parameters(), lr=5e-3, weight_decay=0.0)
    for step in range(60):
        batch = collate([one, other])
        batch = batch.with_voices([shown[s][step % 19] for s in range(2)], torch.arange(2))
        head(batch, WEIGHTS, replace(head.draw_told(2, 10), voice_B=None)).total.backward()
        clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert not [n for n, value in head.named_parameters() if torch.equal(value, before[n])]
    head.eval()
    voices = [head.voice_encoder.mean([shown[s][19]]) for s in range(2)]  # not heard in training
    spoken = speak_answers(head, [one, one], ["a", "b"], Sampling(temperature=0.0), voices=voices)
    assert torch.equal(spoken[0].codes_FK, one.codes_FK)
    assert torch.equal(spoken[1].codes_FK, other.codes_FK)


def folder_of(speakers, num_frames):
    """Only what `References` reads of states: row i is `num_frames[i]` frames of the code i."""
    utterances = [SimpleNamespace(row=i) for i in range(len(speakers))]
    return SimpleNamespace(
        utterances=utterances,
        table=SimpleNamespace(texts=lambda name: iter(speakers)),
        num_frames_N=np.array(num_frames, np.int32),
        format=SimpleNamespace(frame_rate_hz=12.5),
        read_codes=lambda u: torch.arange(num_frames[u.row])[:, None] + 1000 * u.row,
    )


def test_a_reference_is_another_recording_of_the_same_speaker():
    speakers = ["ama", "kofi", "ama", "esi", "ama", "kofi"]
    references = References(folder_of(speakers, [200, 10, 30, 40, 50, 60]), ["kofi", "ama"])
    torch.manual_seed(0)
    drawn = [references.draw(range(6)) for _ in range(50)]
    for row, name in enumerate(speakers):
        found = {reference.row for batch in drawn for reference in batch[row : row + 1]}
        others = {i for i, other in enumerate(speakers) if other == name and i != row}
        assert found == (others or {row})
    lengths = {r.num_frames for batch in drawn for r in batch if r.row == 0}
    assert min(lengths) >= 12 and max(lengths) <= 63 and len(lengths) > 10
    [codes_RK] = references.read([Reference(2, 3, 5)])
    assert codes_RK[:, 0].tolist() == [2003, 2004, 2005, 2006, 2007]
    assert [len(codes) for codes in references.of_speaker("ama")] == [62, 30, 50]
    assert references.first([0]) == references.first([0])
    assert references.voices(references.draw(range(6))).tolist() == [1, 0, 1, -1, 1, 0]


def test_voices_are_named_by_who_speaks_most():
    speakers = ["ama", "kofi", "ama", "esi", "kofi"]
    assert voice_names(folder_of(speakers, [10, 20, 20, 99, 20])) == ["kofi", "ama"]


def test_training_keeps_the_voices_of_its_speakers(voiced):
    head = load_head(str(voiced / "trained"), device=torch.device("cpu"))
    assert (head.config.voices, head.config.voice_width) == ([LOW, HIGH], 64)
    assert head.voices_VE.square().mean(dim=1).allclose(torch.ones(2))
    assert not torch.equal(*head.voices_VE) and head.read_voice.weight.any()
    run(
        train.main, "--states", voiced / "states", *SMALL, "--voice-width", 0, "--init-from",
        voiced / "trained", "--out", voiced / "one-voice",
    )  # fmt: skip
    one = load_head(str(voiced / "one-voice"), device=torch.device("cpu"))
    assert (one.config.voices, one.config.voice_width) == ([], 0)
    with pytest.raises(InputError, match=r"--voice ama: this head speaks in one voice"):
        find_voice(one, "ama")
    assert choose_voice(one, None, None, None) is None
    with pytest.raises(InputError, match=r"the parallel head has none"):
        words = ("--states", voiced / "states", *SMALL, "--architecture", "parallel")
        run(train.main, *words, "--voice-width", 8, "--out", voiced / "x")


def test_a_voice_is_chosen_by_name_or_by_a_recording(voiced, tmp_path, capsys):
    said = {}
    noise_N = 0.1 * np.random.default_rng(0).standard_normal(12 * 24_000).astype(np.float32)
    recording = tmp_path / "ama.wav"
    write_wav(recording, noise_N, 24_000)
    for words in ((), ("--voice", HIGH), ("--voice-recording", recording)):
        out = tmp_path / f"{len(said)}.wav"
        run(speak.main, *models(voiced), "--text", "Yoo.", *words, "--out", out)
        said[words] = out.read_bytes()
    assert len(set(said.values())) == 3
    assert "only its first 10 s are heard" in capsys.readouterr().err
    write_wav(tmp_path / "short.wav", noise_N[:12_000], 24_000)
    write_wav(tmp_path / "silent.wav", np.zeros(48_000, np.float32), 24_000)
    for words, message in (
        (("--voice", "hi+flat10"), rf"no such voice; did you mean '.*'\? the head knows {LOW[:2]}"),
        (("--voice-recording", tmp_path / "short.wav"), r"0\.50 s long, a voice needs at least 1"),
        (("--voice-recording", tmp_path / "silent.wav"), r"silent"),
        (("--voice-recording", tmp_path / "none.wav"), r"none\.wav"),
        (("--voice-recording", recording, "--voice", LOW), r"not both"),
    ):
        with pytest.raises(InputError, match=message):
            run(speak.main, *models(voiced), "--text", "Yoo.", *words, "--out", tmp_path / "x")


def test_speech_in_a_voice_is_that_of_the_batch(voiced):
    names = (str(voiced / "gemma"), None, str(voiced / "mimi"), str(voiced / "head"))
    talker = load_talker(*names, device=torch.device("cpu"), dtype=torch.float32, voice=HIGH)
    width = talker.head.config.state_width
    tokens = make_example(6, 5, seed=2)
    ids_S = torch.tensor(talker.tokenizer("Maakye, me", add_special_tokens=False)["input_ids"][:6])
    generator = torch.Generator().manual_seed(0)
    tokens = replace(
        as_tokens(tokens, slice(0, len(ids_S))), ids_S=ids_S,
        states_SLD=torch.randn(len(ids_S), len(LAYERS), width, generator=generator),
        embeddings_SD=torch.randn(len(ids_S), width, generator=generator),
    )  # fmt: skip
    speech = Speech(talker, Sampling())
    list(speech.say([tokens]))
    voice_E = find_voice(talker.head, HIGH).vector_E
    [whole] = speak_answers(talker.head, [tokens], ["answer"], Sampling(), voices=[voice_E])
    assert torch.equal(torch.stack(speech.frames), whole.codes_FK)


def test_evaluation_speaks_each_answer_in_the_voice_of_its_recording(voiced, tmp_path):
    words = (*models(voiced), "--recognizer", voiced / "recognizer")
    manifest = ("--manifest", voiced / "train.jsonl")
    table = run(evaluate.main, *words, *manifest, "--out", tmp_path / "out")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["voices"].keys() == {LOW, HIGH} and "in the voice of" in table
    assert [metrics["voices"][name]["num_answers"] for name in (LOW, HIGH)] == [3, 2]
    rows = [json.loads(line) for line in (tmp_path / "out" / "utterances.jsonl").open("rb")]
    assert all(row["voice"] == row["speaker"] for row in rows)
    pitches = {row["speaker"]: row["pitch_hz_recording"] for row in rows}
    assert pitches[LOW] == pytest.approx(100, rel=0.1)
    assert pitches[HIGH] == pytest.approx(200, rel=0.1)
    assert metrics["wer_spoken"] is not None and metrics["voices"][LOW]["in_pitch_mimi"] is not None
    with pytest.raises(InputError, match="in place of --voice-recording"):
        voices = ("--voice-recording", tmp_path / "x.wav", "--speaker-model", "x")
        run(evaluate.main, *words, *manifest, *voices, "--out", tmp_path / "x")


def test_an_unknown_speaker_is_heard_in_another_recording(voiced):
    """And answers without a recording take the voices by turns."""
    head = load_head(str(voiced / "head"), device=torch.device("cpu"))
    talker = load_talker(
        str(voiced / "gemma"), None, str(voiced / "mimi"), str(voiced / "head"),
        device=torch.device("cpu"), dtype=torch.float32,
    )  # fmt: skip
    rows = list(read_manifest(voiced / "train.jsonl"))[:3]
    rows = [replace(row, speaker="esi", duration_s=max(row.duration_s, 1.0)) for row in rows[:2]]
    held_out = [HeldOut(row.id, None, row) for row in rows] + [
        HeldOut(f"typed {i}", None, None) for i in range(3)
    ]
    asked = ask_for_voices(held_out, talker, is_fixed=False)
    assert [row.voice.name for row in asked] == ["esi", "esi", LOW, HIGH, LOW]
    heard = hear_voice(head, talker.mimi, rows[1].audio)
    torch.testing.assert_close(asked[0].voice.vector_E, heard.vector_E)
    fixed = ask_for_voices(held_out, talker, is_fixed=True)
    assert {row.voice.name for row in fixed} == {talker.voice.name} == {LOW}


def test_similarity_has_its_ceiling_and_its_floor():
    """Of two voices that are alike to each other by 0.6."""
    rater = object.__new__(SpeakerSimilarity)
    rater._embed = lambda waveform, rate_hz: torch.tensor([waveform[0], waveform[1]])
    one, two = np.float32([1, 0]), np.float32([0.6, 0.8])
    recorded, speakers = [one, one, two, two], ["ama", "ama", "kofi", "kofi"]
    spoken = [one, two, two, two]
    rated = rater.rate(Versions(recorded, recorded, spoken, 16_000, speakers, speakers))
    assert rated == pytest.approx(
        {"teacher": 1, "mimi": 1, "spoken": 0.9, "others": 0.6, "right_voice": 0.75}
    )
    all_kofi = rater.rate(Versions(recorded, recorded, spoken, 16_000, speakers, ["kofi"] * 4))
    assert all_kofi["spoken"] == pytest.approx(0.9)


def test_pitch_tells_whether_a_voice_is_right():
    times = np.arange(16_000) / 16_000
    tone = [np.sin(2 * np.pi * f * times).astype(np.float32) for f in (100, 200)]
    assert [median_pitch_hz(x, 16_000) for x in tone] == pytest.approx([100, 200], rel=0.03)
    assert median_pitch_hz(np.zeros(8000, np.float32), 16_000) is None
    given = {"text": "yoo", "end": "ended", "num_pushed": 0, "audio_through_mimi": "x.wav"}
    rows = [
        SpokenRow(id="1", voice="ama", speaker="ama", pitch_hz=110, pitch_hz_recording=100,
                  pitch_hz_mimi=90, **given),
        SpokenRow(id="2", voice="ama", speaker="kofi", pitch_hz=None, pitch_hz_recording=200,
                  pitch_hz_mimi=260, **given),
        SpokenRow(id="3", voice="esi", **given),
    ]  # fmt: skip
    measured = measure_voices(rows)
    assert (measured["ama"].in_pitch, measured["ama"].in_pitch_mimi) == (0.5, 1.0)
    assert (measured["esi"].in_pitch, measured["esi"].rates) == (None, None)
    assert measure_voices([replace(row, voice=None) for row in rows]) == {}
