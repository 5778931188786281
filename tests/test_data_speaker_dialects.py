"""Dialects guessed of all that a speaker says: the rule, a build, and the gain on real text."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import run
from languages import in_language
from test_data_own import own_recordings, rows_of

from data_manifests import build
from data_manifests.hash_set import hash_text
from data_manifests.manifest import Utterance
from data_manifests.speaker_dialects import NO_GUESS, SpeakerDialects
from data_manifests.twi_dialects import DIALECTS, count_evidence, guess_dialect

WEAK = "Nea ɔkae no."  # one weak cue of Akuapem
NOTHING = "Kofi na ɔba."


def guess(rows: list[tuple[str, str]], dialect: str = "unknown") -> list[str]:
    dialects = SpeakerDialects()
    for number, (speaker, text) in enumerate(rows):
        row = Utterance(
            id=str(number), audio="a.wav", text=text, duration_s=1.0, speaker=speaker,
            dialect=dialect, corpus="c", split="train", license="unknown",
        )  # fmt: skip
        dialects.add(row)
    hashes = np.array([hash_text(speaker) for speaker, _ in rows], dtype=np.uint64)
    found = dialects.guess(hashes)
    assert found.dtype == np.int8
    return ["-" if number == NO_GUESS else DIALECTS[number] for number in found]


def test_evidence_of_a_speaker_is_added_up() -> None:
    rows = [("c/a", WEAK), ("c/b", NOTHING), ("c/a", NOTHING), ("c/a", WEAK), ("c/c", WEAK)]
    assert guess(rows) == ["akuapem", "-", "akuapem", "akuapem", "-"]


def test_contradictions_are_not_decided() -> None:
    fante = "Adze no dze hɔn."
    assert guess([("c/a", fante), ("c/a", "Adeɛ no firi.")]) == ["-", "-"]


def test_nobody_is_guessed_of_whom_the_corpus_says_nothing_or_everything() -> None:
    assert guess([("c/unknown", WEAK), ("c/unknown", WEAK)]) == ["-", "-"]
    assert guess([("c/a", WEAK), ("c/a", WEAK)], dialect="fante") == ["-", "-"]


def test_nothing_is_guessed_in_a_language_without_these_dialects() -> None:
    with in_language("ewe"):
        assert guess_dialect("Adze no dze hɔn.") == "unknown"  # dzi, dze are Ewe words too


def test_build_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(f"clips/{i}.wav", f"Adeɛ no firi fie {i}.", "ama") for i in range(4)]
    rows += [(f"clips/{i}.wav", f"Kofi na ɔba {i}.", "ama") for i in range(4, 8)]
    rows += [(f"clips/{i}.wav", f"Kofi na ɔba {i}.", "yaw") for i in range(8, 12)]
    table = own_recordings(tmp_path, rows, header=("audio", "text", "speaker"))
    words = ("--corpus", f"table={table}", "--hold-out", "sentence", "--dataset-columns",
             "audio=audio", "text=text", "speaker=speaker")  # fmt: skip
    found = {}
    for by in ("utterance", "speaker"):
        run(build.main, *words, "--guess-dialect-by", by, "--out", tmp_path / by)
        written = [u for split in ("train", "dev", "test") for u in rows_of(tmp_path / by, split)]
        found[by] = Counter((u.speaker.split("/")[1], u.dialect_guess) for u in written)
    assert found["utterance"] == {("ama", "asante"): 4, ("ama", None): 4, ("yaw", None): 4}
    assert found["speaker"] == {("ama", "asante"): 8, ("yaw", None): 4}
    printed = capsys.readouterr().err
    assert "guessed from the spelling of 8 of 12 others" in printed
    assert "(without their speakers' other utterances: 4)" in printed


def test_on_real_text(real_data: Path) -> None:
    """Guesses of the other utterances of a speaker, beside that of an utterance's own spelling."""
    path = real_data / "waxal_aka_text" / "dev.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    own = [guess_dialect(row["text"]) for row in rows]
    pooled = guess([("waxal/" + row["speaker_id"], row["text"]) for row in rows])
    evidence = [count_evidence(row["text"]) for row in rows]
    total: Counter[tuple[str, str]] = Counter()
    for row, points in zip(rows, evidence, strict=True):
        total.update({(row["speaker_id"], dialect): n for dialect, n in points.items()})
    agree = num_guessed = 0
    for row, points, alone in zip(rows, evidence, own, strict=True):
        others = {d: total[row["speaker_id"], d] - points[d] for d in DIALECTS}
        best = max(others, key=lambda d: others[d])
        num_guessed += alone != "unknown"
        agree += alone == best and all(3 * others[d] <= others[best] for d in DIALECTS if d != best)
    num_pooled = sum(guessed != "-" for guessed in pooled)
    print(f"{num_guessed} of {len(rows)} guessed alone, {num_pooled} by speaker")
    print(f"the speaker's other utterances agree with {agree} of {num_guessed}")
    assert (num_guessed, num_pooled, len(rows)) == (1314, 2092, 2092)
    assert agree >= 1308
