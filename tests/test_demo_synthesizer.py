"""The demo's synthesiser: Twi read by rule, nothing dropped, flat voices at their exact pitch."""

import dataclasses
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, run

from commands.errors import InputError
from demo.voice import say as command
from demo.voice.espeak import IPA_OF
from demo.voice.phonemes import phonemize
from demo.voice.synthesizer import (
    AUDIBLE,
    PhonemesDroppedError,
    Synthesizer,
    check_echo,
    to_espeak_input,
)
from demo.voice.voice_variants import FLAT_PITCH_HZ
from demo.voice.voices import (
    HELD_OUT_VOICES,
    MONOTONE_VOICES,
    TRAINING_VOICES,
    draw_style,
    monotone_style,
    record,
)

QUESTION = "Mepa wo kyɛw, da bɛn na wɔwoo Kofi?"


def read_golden():
    lines = (ROOT / "tests" / "golden" / "twi_espeak.tsv").read_text(encoding="utf-8")
    return [line.split("\t") for line in lines.splitlines() if line and line[0] != "#"]


@pytest.fixture(scope="module")
def synthesizer():
    try:
        return Synthesizer()
    except InputError as error:
        pytest.skip(str(error))


def test_words_are_read_by_rule():
    golden = read_golden()
    assert len({word for word, _ in golden}) >= 160
    read = {word: " ".join(phonemize(word)[0].words[0]) for word, _ in golden}
    assert read == dict(golden)


def test_text_becomes_clauses():
    first, second = phonemize("“Wan” na ɔne wan kɔ, wan gyata - Kofi...")
    assert first.spellings == ("Wan", "na", "ɔne", "wan", "kɔ")
    assert [word[-1] for word in first.words] == ["n", "a", "I", "N", "O"]
    assert (first.punctuation, second.punctuation) == (",", ".")
    assert [word[-1] for word in second.words] == ["n^", "a", "i"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Mewɔ nkwadu 25.", "word '25': cannot pronounce '2', '5'; write numbers in words"),
        ("Kofi & Ama", "word '&': cannot pronounce '&'"),
        ("aбa", "word 'aбa': cannot pronounce 'б'"),
        ("... ?", "no word to pronounce"),
    ],
)
def test_what_cannot_be_read_is_named(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        phonemize(text)


def test_every_pair_of_phonemes_comes_out(synthesizer):
    everything = [f"[[b|a|{one}|{other}|b|a]]." for one in IPA_OF for other in IPA_OF]
    synthesizer._espeak.set_voice("hi")
    _, events = synthesizer._espeak.synthesize(" ".join(everything))
    said = [phoneme for _, phoneme in events if phoneme]
    wanted = [
        IPA_OF[p] for one in IPA_OF for other in IPA_OF for p in ("b", "a", one, other, *"ba")
    ]
    assert said == wanted


def test_a_dropped_phoneme_is_noticed(synthesizer):
    clauses = phonemize("Kofi wɔ fie.")
    unknown = dataclasses.replace(clauses[0], words=(("k", "o", "f", "i"), ("w", "Q7"), ("f", "i")))
    synthesizer._espeak.set_voice("hi")
    _, events = synthesizer._espeak.synthesize(to_espeak_input([unknown]))
    with pytest.raises(PhonemesDroppedError, match="did not say 'wɔ'"):
        check_echo(clauses, events)
    _, events = synthesizer._espeak.synthesize(to_espeak_input(clauses))
    spoken = [phoneme for _, phoneme in check_echo(clauses, events)]
    assert spoken == ["k", "o", "f", "i", "w", "ɔ", "f", "i", "e", ""]
    for lacking in [i for i, (_, phoneme) in enumerate(events) if phoneme]:
        with pytest.raises(PhonemesDroppedError):
            check_echo(clauses, events[:lacking] + events[lacking + 1 :])


@pytest.mark.parametrize("voice", [*TRAINING_VOICES, *HELD_OUT_VOICES, *MONOTONE_VOICES])
def test_phonemes_are_aligned(synthesizer, voice):
    speech = synthesizer.speak(QUESTION, voice, sample_rate_hz=16_000, warp=1.03)
    starts = [event.start_s for event in speech.phonemes]
    assert starts[0] == 0
    assert (np.diff(starts) > 0).all()
    assert starts[-1] < len(speech.samples_N) / 16_000
    wanted = [IPA_OF[p] for clause in phonemize(QUESTION) for word in clause.words for p in word]
    assert [event.phoneme for event in speech.phonemes if event.phoneme] == wanted
    assert speech.samples_N.dtype == np.float32
    assert np.abs(speech.samples_N).max() == pytest.approx(0.5, abs=1e-4)
    edge = np.abs(speech.samples_N[:800])
    assert edge.max() <= 0.5 * AUDIBLE < np.abs(speech.samples_N[800:810]).max()


def test_vowels_are_where_the_events_say(synthesizer):
    speech = synthesizer.speak("Asa isi.", "hi+flat100", sample_rate_hz=24_000)
    ends = [*[event.start_s for event in speech.phonemes[1:]], len(speech.samples_N) / 24_000]
    is_noisy = {}
    for event, end_s in zip(speech.phonemes, ends, strict=True):
        middle = speech.samples_N[int(event.start_s * 24_000) : int(end_s * 24_000)]
        middle = middle[len(middle) // 3 : -len(middle) // 3]
        crossings = np.mean(np.diff(np.signbit(middle).astype(int)) != 0)
        is_noisy.setdefault(event.phoneme, []).append(crossings > 0.25)
    assert all(is_noisy["s"])
    assert not any(is_noisy["a"] + is_noisy["i"])


@pytest.mark.parametrize("rate_wpm", [135, 165])
@pytest.mark.parametrize("voice", MONOTONE_VOICES)
def test_flat_voices_keep_their_pitch(synthesizer, voice, rate_wpm):
    for text in ("aaaaaaaaaaaaaaaa.", "iiiiiiiiiiiiiiii?", "mmmmmmmmmmmmmmmm,"):
        speech = synthesizer.speak(text, voice, sample_rate_hz=24_000, rate_wpm=rate_wpm)
        for at in (0.1, 0.35, 0.6):
            start = int(at * len(speech.samples_N))
            measured_hz = measure_pitch_hz(speech.samples_N[start : start + 7200], 24_000)
            assert measured_hz == pytest.approx(FLAT_PITCH_HZ[voice], abs=0.3)


def measure_pitch_hz(samples_N, sample_rate_hz):
    """By autocorrelation: the first period, then ever longer multiples of it."""
    num_samples = len(samples_N)
    spectrum = np.fft.rfft(samples_N - samples_N.mean(), 2 * num_samples)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[:num_samples] / np.arange(num_samples, 0, -1)
    shortest, longest = sample_rate_hz // 280, sample_rate_hz // 70
    lags = correlation[shortest:longest]
    # The shortest of the lags that are as good as any: not a multiple of the period.
    best = int(np.flatnonzero(lags > 0.95 * lags.max())[0])
    period = float(shortest + best + np.argmax(lags[best : best + 10]))
    for multiple in range(1, int(num_samples / 2 / period)):
        around = round(multiple * period)
        peak = around - 8 + int(np.argmax(correlation[around - 8 : around + 9]))
        a, b, c = correlation[peak - 1 : peak + 2]
        period = (peak + (a - c) / 2 / (a - 2 * b + c)) / multiple
    return sample_rate_hz / period


def test_same_calls_same_samples(synthesizer):
    """In two fresh processes; the voices are those with noise, wavering and echo."""
    script = (
        "import hashlib; from demo.voice.synthesizer import Synthesizer; Synthesizer(); "
        "speaker = Synthesizer(); sha = hashlib.sha256(); "
        "[sha.update(speaker.speak('Ɛnnɛ yɛ Fiada.', v, sample_rate_hz=16_000).samples_N.tobytes())"
        " for v in ('hi', 'hi+airy', 'hi+f2', 'hi+uncle', 'hi+flat100')]; print(sha.hexdigest())"
    )
    one, other = (
        subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    )
    assert one == other


def test_held_out_takes_are_none_of_training():
    generator = np.random.default_rng(0)
    training = [draw_style(generator, held_out=False) for _ in range(2000)]
    held_out = [draw_style(generator, held_out=True) for _ in range(2000)]
    for field in ("voice", "rate_wpm", "pitch"):
        trained = {getattr(take, field) for take in training}
        assert not trained & {getattr(take, field) for take in held_out}
    assert {take.voice for take in training} == set(TRAINING_VOICES)
    assert {take.voice for take in held_out} == set(HELD_OUT_VOICES)
    noise_db = [take.noise_snr_db for take in training if take.noise_snr_db is not None]
    held_out_db = [take.noise_snr_db for take in held_out if take.noise_snr_db is not None]
    assert max(held_out_db) <= min(noise_db)
    assert len(noise_db) / 2000 == pytest.approx(0.8, abs=0.05)
    assert draw_style(np.random.default_rng(5), held_out=True) == draw_style(
        np.random.default_rng(5), held_out=True
    )


def test_silence_surrounds_what_is_heard_and_hardly_the_answering_voice(synthesizer):
    generator = np.random.default_rng(0)
    heard = dataclasses.replace(draw_style(generator, held_out=True), noise_snr_db=None)
    answering = monotone_style(generator, MONOTONE_VOICES[0])
    longest = {}
    for name, take in (("heard", heard), ("answering", answering)):
        silences = []
        for seed in range(40):
            samples = record(
                synthesizer, QUESTION, take,
                sample_rate_hz=16_000, generator=np.random.default_rng(seed),
            )  # fmt: skip
            loud = np.flatnonzero(np.abs(samples) > 0.01)
            silences.append((loud[0] / 16_000, (len(samples) - loud[-1]) / 16_000))
        longest[name] = np.max(silences, axis=0)
    assert (longest["heard"] > 0.22).all() and (longest["answering"] < 0.25).all()
    assert longest["answering"][0] < 0.15 < longest["heard"][0] < 0.4


def test_noise_has_the_level_asked_for(synthesizer):
    take = monotone_style(np.random.default_rng(0), MONOTONE_VOICES[0])
    for color in ("white", "pink"):
        noisy = dataclasses.replace(take, noise_snr_db=20.0, noise_color=color)
        clean, loud = (
            record(
                synthesizer,
                QUESTION,
                each,
                sample_rate_hz=16_000,
                generator=np.random.default_rng(1),
            )
            for each in (take, noisy)
        )
        quiet = loud[-1600:]  # after the speech there is nothing but noise
        ratio_db = 10 * np.log10(np.mean(clean**2) / np.mean(quiet**2))
        assert ratio_db == pytest.approx(20, abs=2)


def test_real_texts_are_spoken_in_full(synthesizer, real_data):
    lines = (real_data / "afriqa_twi" / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["question"] for line in lines]
    texts = [text for text in texts if text and not any(char.isdigit() for char in text)][:150]
    assert len(texts) == 150
    for text in texts:
        synthesizer.speak(text, "hi", sample_rate_hz=16_000)


def test_english_words_are_spoken_in_the_ghanaian_manner(synthesizer):
    text = "Fa orange laptop no kɔ church, na the vision of measure and judgement yɛ yellow zoo."
    assert phonemize(text)[0].words[1:3] == (("O", "*", "a", "n", "dZ;"), tuple("laptOp"))
    synthesizer.speak(text, "hi", sample_rate_hz=16_000)


def test_command_writes_a_recording(synthesizer, tmp_path):
    out = tmp_path / "kofi.wav"
    printed = run(command.main, "--text", "Me din de Kofi.", "--voice", "hi+m3", "--out", out)
    assert printed.strip() == str(out)
    assert out.stat().st_size > 30_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--text", "Mfe 5"), "cannot pronounce '5'"),
        (("--text", "Mfe", "--voice", "hi+flat10"), "did you mean 'flat100'"),
        (("--text", "Mfe", "--voice", "en"), "no voice 'en'"),
        (("--text", "Mfe", "--rate-wpm", "5"), "rate_wpm 5: must be 80 to 450"),
    ],
)
def test_bad_input_is_one_line(synthesizer, tmp_path, words, message):
    with pytest.raises(InputError, match=message):
        command.main([*words, "--out", str(tmp_path / "x.wav")])
