"""What stage 2 reads, and which settings and files it refuses."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from commands.command_line import parse_config
from commands.errors import InputError
from stage1_rvq.codes import (
    CodedUtterance,
    code_format,
    write_codes,
)
from stage1_rvq.config import RVQConfig
from stage2_speechless import train
from stage2_speechless.corpus import open_corpus
from stage2_speechless.generate import GenerateConfig
from stage2_speechless.sentences import read_sentences
from stage2_speechless.speak import Sentence, with_numbers_in_words
from stage2_speechless.takes import generate_takes
from stage2_speechless.vocabulary import Vocabulary

RVQ = RVQConfig(dim=8, num_codebooks=3, codebook_size=12)
FORMAT = code_format(RVQ)


def test_numbers_are_read_in_words() -> None:
    spoken = with_numbers_in_words(Sentence("a", "Ɛyɛ GH¢5.", "asante"))
    assert spoken == Sentence("a", "Ɛyɛ sidi num.", "asante")
    assert with_numbers_in_words(Sentence("a", "Ɛyɛ GH¢5.", "fante")).text == "Ɛyɛ sidi enum."
    sentence = Sentence("a", "Ɛyɛ GH¢5.", "unknown")
    assert with_numbers_in_words(sentence) is sentence
    unread = with_numbers_in_words(Sentence("a", "Bra 13:30, yɛn 2.", "akuapem"))
    assert unread.text == "Bra 13:30, yɛn baanu."
    model = SimpleNamespace(vocabulary=Vocabulary())
    codes, reasons = generate_takes(model, [unread], None, takes=1, max_cer=1.0)
    assert not codes and reasons == {"a": "no rule says how to read 13:30,"}


def test_unusable_utterances_are_counted(tmp_path: Path) -> None:
    rows = [
        CodedUtterance(id_, text, "s", "asante", torch.zeros(num_frames, 3, dtype=torch.long))
        for id_, text, num_frames in [
            ("a", "kofi", 9), ("b", "...", 9), ("c", "kofi", 751), ("d", "Ж", 9),
        ]
    ]  # fmt: skip
    path = tmp_path / "codes.parquet"
    write_codes(path, rows, FORMAT)
    corpus = open_corpus(path, Vocabulary())
    assert [u.id for u in corpus.utterances] == ["a"]
    assert corpus.utterances[0].rate_cps == pytest.approx(4 * 25 / 9)
    assert dict(corpus.left_out) == {"text that cannot be spoken": 2, "over 750 frames": 1}
    write_codes(path, rows[1:], FORMAT)
    with pytest.raises(InputError, match="no usable utterance"):
        open_corpus(path, Vocabulary())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("\n \n", "no sentence in it"),
        ('{"id": "a", "text": "Kofi"}\n{"id": "a", "text": "Ama"}', r":2: id 'a' is used twice"),
        ('{"id": "a"}', r":1: needs a string 'text'"),
        ('{"id": "a", "text": "Kofi", "dialect": "ga"}', r":1: dialect 'ga'"),
        ("Kofi", r":1: not valid JSON"),
    ],
)
def test_refused_text_files(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "sentences.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_sentences(path, dialect="unknown", rate_cps=None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--rvq", "runs/rvq"], "go together"),
        (["--takes", "0"], "--takes must be greater than or equal to 1"),
        (["--rate", "0"], "--rate must be greater than 0"),
        (["--dialect", "asant"], "asant"),
        (["--temperature", "-1"], "--temperature must be greater than or equal to 0"),
        (["--top-k", "-1"], "--top-k must be greater than or equal to 0"),
    ],
)
def test_refused_settings(settings: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_config(GenerateConfig, ["--speechless", "s", "--text", "t", "--out", "o", *settings])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--history-dropout", "1"], "--history-dropout must be less than 1, got 1"),
        (["--history-dropout", "-0.1"], "--history-dropout must be greater than or equal to 0"),
        (["--codebook-weights", "4", "0"], "--codebook-weights '1' must be greater than 0"),
        (["--codebook-weights"], "--codebook-weights"),
    ],
)
def test_refused_training_settings(settings: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_config(train.TrainConfig, ["--codes", "c", "--out", "o", *settings])
