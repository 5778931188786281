"""Which take is kept, and stage 2's tables: known answers, and what each number depends on."""

import re
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

from commands.seeds import derive_seed
from data_manifests.alignments import align_utterances
from stage1_rvq.config import RVQConfig
from stage1_rvq.frame_metric import FrameMetric
from stage1_rvq.model import SpeechRVQ
from stage1_rvq.recognizer import CTCRecognizer, RecognizerConfig
from stage1_rvq.text_units import train_units
from stage2_speechless import takes as takes_module
from stage2_speechless.breakdown import (
    Breakdown,
    measure_by_codebooks,
    measure_by_dialect,
    measure_by_length,
    plot_durations,
)
from stage2_speechless.config import SpeechlessConfig
from stage2_speechless.data import TrainingUtterance
from stage2_speechless.evaluate import format_table
from stage2_speechless.generation import GeneratedCodes
from stage2_speechless.metrics import (
    ReadSentence,
    generate_and_transcribe,
    pool_errors,
    pool_sentences,
)
from stage2_speechless.model import Speechless
from stage2_speechless.round_trip import RoundTrip
from stage2_speechless.speak import Sentence, speak
from stage2_speechless.takes import count_takes, generate_takes

TINY = SpeechlessConfig(
    num_codebooks=3, codebook_size=12, width=32, num_layers=1, num_heads=2, depth_width=16,
    depth_layers=1, depth_heads=2, dropout=0.0, rates_cps=(8.0, 16.0),
)  # fmt: skip
TEXTS = ["me din de ama", "kofi", "yɛfrɛ me akosua na mewɔ kumasi", "maakye", "me ho yɛ"]


@pytest.fixture(scope="module")
def model() -> Speechless:
    torch.manual_seed(0)
    return Speechless(TINY).eval()


@pytest.fixture(scope="module")
def round_trip() -> RoundTrip:
    """A quantiser and a recogniser with random weights: it reads nonsense, other nonsense each
    time."""
    torch.manual_seed(0)
    rvq = SpeechRVQ(RVQConfig(dim=8, num_codebooks=3, codebook_size=12))
    rvq.init_codebooks(torch.randn(300, 8), FrameMetric(torch.ones(8)))
    units = train_units(TEXTS, 48)
    recognizer = CTCRecognizer(
        RecognizerConfig(dim=8, num_units=units.get_vocab_size(), width=8)
    ).eval()
    recognizer.units = units
    with torch.no_grad():
        for weights in (
            recognizer.input.weight,
            recognizer.lstm.weight_ih_l0,
            recognizer.output.weight,
        ):
            weights.mul_(5)
    return RoundTrip(rvq.eval(), recognizer)


def read_sentence(text: str, heard: str, dialect: str = "asante", frames: int = 10) -> ReadSentence:
    """A sentence whose recording of 10 frames was read right, and its generated codes as given."""
    real = TrainingUtterance("u", text, dialect, 9.0, torch.zeros(10, 3, dtype=torch.int16))
    errors = [align_utterances([text], [hypothesis])[0] for hypothesis in (text, heard)]
    generated = GeneratedCodes(torch.zeros(frames, 3, dtype=torch.long), frames < 750)
    return ReadSentence(real, generated, 9.0, *errors)


class ScriptedRecognizer:
    """Reads the CER that stands in the codes, in per cent."""

    def character_error_rates(self, codes, texts):
        return [int(codes_TK[0, 0]) / 100 for codes_TK in codes]


def script(monkeypatch: pytest.MonkeyPatch, takes: dict[str, list[int | None]]) -> list[list[str]]:
    """Let take n of a sentence have the nth CER, or never end; returns who was spoken each time."""
    calls: list[list[str]] = []

    def scripted(model, sentences, **_):
        cers = [takes[s.id][len(calls)] for s in sentences]
        calls.append([s.id for s in sentences])
        return [GeneratedCodes(torch.full((2, 3), cer or 0), cer is not None) for cer in cers]

    monkeypatch.setattr(takes_module, "speak", scripted)
    return calls


SCRIPT: dict[str, list[int | None]] = {
    "best-last": [40, 20, 10],
    "tie": [30, 10, 10],
    "perfect": [30, 0, 0],
    "perfect-at-once": [0, 0, 0],
    "edge": [None, None, 30],
    "bad": [90, None, 31],
    "never": [None, None, None],
}


def test_the_take_with_the_lowest_cer_is_kept(model, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = script(monkeypatch, SCRIPT)
    sentences = [Sentence(id_, "Kofi") for id_ in SCRIPT]
    kept, reasons = generate_takes(model, sentences, ScriptedRecognizer(), takes=3, max_cer=0.3)
    assert {id_: (take.number, take.cer) for id_, take in kept.items()} == {
        "best-last": (2, 0.1), "tie": (1, 0.1), "perfect": (1, 0.0), "perfect-at-once": (0, 0.0),
        "edge": (2, 0.3),
    }  # fmt: skip
    assert kept["best-last"].codes_TK[0, 0] == 10
    assert reasons == {
        "bad": "read back with a CER of 0.31 at best (3 takes, 1 never ended), over 0.3",
        "never": "never ended within 30 s (3 takes)",
    }
    spoken = [["perfect-at-once" in call, "perfect" in call, "tie" in call] for call in calls]
    assert spoken == [[True, True, True], [False, True, True], [False, False, True]]
    assert count_takes(take.number for take in kept.values()) == {"0": 1, "1": 2, "2": 2}


def test_without_a_recognizer_the_first_take_that_ended_is_kept(model, monkeypatch) -> None:
    calls = script(monkeypatch, SCRIPT)
    sentences = [Sentence(id_, "Kofi") for id_ in SCRIPT]
    kept, reasons = generate_takes(model, sentences, None, takes=3, max_cer=0.3)
    assert {id_: take.number for id_, take in kept.items() if take.number} == {"edge": 2}
    assert {take.cer for take in kept.values()} == {None}
    assert reasons == {"never": "never ended within 30 s (3 takes)"}
    assert calls[1:] == [["edge", "never"]] * 2


def test_english_is_given_in_twi_letters_and_read_back_in_either_spelling(
    model, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []

    def speak_all(model, sentences, **_):
        given.extend(s.text for s in sentences)
        return [GeneratedCodes(torch.zeros(2, 3), True) for _ in sentences]

    class Recognizer(ScriptedRecognizer):
        def character_error_rates(self, codes, texts):
            return [0.25 if "laptop" in text else 0.5 for text in texts]

    monkeypatch.setattr(takes_module, "speak", speak_all)
    sentences = [Sentence("a", "Fa laptop no bra."), Sentence("b", "Kofi.")]
    kept, _ = generate_takes(model, sentences, Recognizer(), takes=1, max_cer=1, respell=True)
    assert given == ["Fa laptɔp no bra.", "Kofi."]
    assert {id_: take.cer for id_, take in kept.items()} == {"a": 0.25, "b": 0.5}
    generate_takes(model, sentences, None, takes=1, max_cer=1)
    assert given[2:] == ["Fa laptop no bra.", "Kofi."]


def test_takes_are_the_same_in_any_batch(model: Speechless, round_trip: RoundTrip) -> None:
    sentences = [Sentence(f"s{i}", text) for i, text in enumerate(TEXTS)]
    lowest: dict[str, tuple[float, int]] = {}
    for number in range(4):
        for s in sentences:
            spoken = speak(model, [s], seed=derive_seed(7, number) if number else 7)[0]
            cer = round_trip.character_error_rates([spoken.codes_TK], [s.text])[0]
            if spoken.ended:
                lowest[s.id] = min(lowest.get(s.id, (cer, number)), (cer, number))
    settings = {"takes": 4, "max_cer": 9.0, "seed": 7}
    for batch_size in (1, 32):
        kept, _ = generate_takes(model, sentences, round_trip, **settings, batch_size=batch_size)
        assert {id_: (take.cer, take.number) for id_, take in kept.items()} == lowest
    assert len({number for _, number in lowest.values()}) > 1


def test_pooled_numbers() -> None:
    sentences = [
        read_sentence("me din de ama", "me din de ama", frames=20),
        read_sentence("kofi", "ama kofi", frames=750),
    ]
    numbers = pool_sentences(sentences).as_dict()
    assert list(numbers)[:7] == [
        "wer_real_codes", "wer_generated", "cer_generated", "length_ratio", "length_ratio_asked",
        "never_ended", "num_utterances",
    ]  # fmt: skip
    assert numbers["wer_real_codes"] == numbers["cer_real_codes"] == 0
    assert numbers["wer_generated"] == pytest.approx(1 / 5)
    assert (numbers["wer_generated_low"], numbers["wer_generated_high"]) == (0, 1)
    assert numbers["cer_generated"] == pytest.approx(4 / 17)
    assert (numbers["length_ratio"], numbers["length_ratio_asked"]) == (770 / 20, 18 / 20)
    assert (numbers["never_ended"], numbers["num_utterances"]) == (0.5, 2)


def test_by_dialect_and_by_length() -> None:
    sentences = [
        read_sentence("a" * 25, "a" * 25, "fante"),
        read_sentence("A" * 26 + "!", "b", "asante"),
        read_sentence("a" * 41, "a" * 41, "asante"),
    ]
    by_length = measure_by_length(sentences)
    assert {name: row.num_utterances for name, row in by_length.items()} == {
        "up to 25": 1, "26 to 40": 1, "over 40": 1,
    }  # fmt: skip
    assert [row.errors.generated.wer for row in by_length.values()] == [0, 1, 0]
    by_dialect = measure_by_dialect(sentences)
    assert {name: row.errors.generated.wer for name, row in by_dialect.items()} == {
        "asante": 0.5, "fante": 0,
    }  # fmt: skip
    assert list(measure_by_length(sentences[1:2])) == ["26 to 40"]


def test_by_codebooks_only_the_coarsest_are_heard(model: Speechless, round_trip: RoundTrip) -> None:
    generator = torch.Generator().manual_seed(0)
    utterances = [
        TrainingUtterance(
            f"u{i}", text, "asante", 9.0, torch.randint(12, (30, 3), generator=generator)
        )
        for i, text in enumerate(TEXTS)
    ]  # fmt: skip
    sentences = generate_and_transcribe(model, utterances, round_trip, max_frames=40)
    rows = measure_by_codebooks(sentences, round_trip)
    assert list(rows) == ["1", "2", "3"]
    everything = pool_errors(
        [s.real_errors for s in sentences], [s.generated_errors for s in sentences]
    )
    assert rows["3"] == everything
    assert everything == pool_sentences(sentences).errors
    for s in sentences:
        for codes_TK in (s.real.codes_TK, s.generated.codes_TK):
            codes_TK[:, 1:] = (codes_TK[:, 1:] + 5) % 12
    scrambled = measure_by_codebooks(sentences, round_trip)
    assert scrambled["1"] == rows["1"]
    assert scrambled["2"] != rows["2"] and scrambled["3"] != rows["3"]


def test_table_and_durations(tmp_path: Path) -> None:
    sentences = [read_sentence("kofi", "kofi"), read_sentence("me ho yɛ", "me", frames=750)]
    numbers = pool_sentences(sentences)
    by_dialect, by_length = measure_by_dialect(sentences), measure_by_length(sentences)
    table = format_table(Breakdown(numbers, by_dialect, by_length, {"1": numbers.errors}))
    assert re.search(r"^WER, generated +50.00 %  95 % interval 0.00 to 66.67$", table, re.MULTILINE)
    assert re.search(r"^  asante +0.0 +0.0 +50.0 +50.0 +38.000 +50.0 +2$", table, re.MULTILINE)
    for frames in (10, 750):  # nothing cut off; nothing that ended
        plot_durations([read_sentence("kofi", "kofi", frames=frames)], 25.0, tmp_path / "p.png")
        assert imread(tmp_path / "p.png").std() > 0
