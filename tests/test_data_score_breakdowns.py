"""Error rates by speaker, dialect and language of the word, and what is done to texts before."""

import json
import random
from pathlib import Path

import pytest

from commands.errors import InputError
from data_manifests import bootstrap
from data_manifests.alignments import align_utterances
from data_manifests.bootstrap import rate_interval
from data_manifests.error_breakdowns import errors_by_language, rates_by_group, rates_of_speakers
from data_manifests.error_rates import compute_error_rates
from data_manifests.language import speaking
from data_manifests.score import main
from data_manifests.text_rules import TextRules

TAGS = TextRules(leave_out_tags=True)
DIGITS = TextRules(numbers_as_digits=True)


@pytest.mark.parametrize(
    ("text", "compared"),
    [
        ("Aane [noise] <unk> (laughs)", "aane"),
        ("ma<unk>me [ɔsere] kɔ", "ma me kɔ"),
        ("w) (ne fie) na )k)", "wɔ na ɔkɔ"),  # a typed ) is no bracket
        ("5 < 6 na 7 > 6", "5 6"),  # what stands in < >
        ("[a (b] c) d", "c d"),  # brackets of one kind
        ("[" + "yɛ " * 40 + "]", "yɛ " * 39 + "yɛ"),  # longer than a tag
        ("[]()<>", ""),
    ],
)
def test_tags_are_left_out(text: str, compared: str) -> None:
    assert TAGS.apply(text) == compared


def test_numbers_in_words_are_their_digits() -> None:
    references = ["Wɔwoo no afe mpem mmienu ne aduonu baako mu.", "Kwadu du-baako"]
    hypotheses = ["wɔwoo no afe 2021 mu", "kwadu 11"]
    assert compute_error_rates(references, hypotheses).wer > 0.5
    rates = compute_error_rates(references, hypotheses, rules=DIGITS)
    assert (rates.wer, rates.num_reference_words) == (0, 7)
    assert rates.normalization == "twi-2, numbers as digits"
    with speaking("ewe"), pytest.raises(InputError, match="Ewe's number words are unknown"):
        DIGITS.apply("wo")


@pytest.mark.parametrize("rules", [TextRules(), TAGS, DIGITS], ids=["plain", "tags", "digits"])
def test_rules_may_be_applied_twice(rules: TextRules) -> None:
    generator = random.Random(0)
    pieces = "[noise] (w)) <unk> aduonu baako 21 N.D.C. mmienu, ) ( k) ɔha ne 3y3 1,957"
    for _ in range(500):
        once = rules.apply(" ".join(generator.choices(pieces.split(), k=generator.randint(0, 8))))
        assert rules.apply(once) == once


def test_dotted_initials_are_one_word() -> None:
    rates = compute_error_rates(["N.D.C. ne N.P.P."], ["NDC ne npp"])
    assert (rates.wer, rates.num_reference_words) == (0, 3)


def test_rates_without_these_features_are_those_of_before() -> None:
    """Printed by the version before there were rules, groups and `twi-2`."""
    references = ["Ɛyɛ me dɛ.", "Mepa wo kyɛw", "Yɛrekɔ fie", ""]
    hypotheses = ["3y3 me d3", "mepa wo kyew", "", "aane"]
    references += ["Me din de Ama, na mefi Kumase.", "w) h) 2021"]
    hypotheses += ["me din de ama na me firi kumasi", "wɔ hɔ 2021 no"]
    rates = compute_error_rates(references, hypotheses)
    intervals = (rates.wer_low, rates.wer_high, rates.cer_low, rates.cer_high)
    assert (rates.wer, rates.cer) == pytest.approx((8 / 18, 22 / 69))
    assert intervals == pytest.approx((0.23802521, 0.8, 0.12301205, 0.85030172))
    assert rates.wer_utterance_mean == pytest.approx(0.51587302)
    assert (rates.wer_folded, rates.cer_without_spaces) == pytest.approx((7 / 18, 19 / 56))
    assert (rates.substitutions, rates.deletions, rates.insertions) == (3, 2, 3)


def test_errors_in_english_words_are_counted_apart() -> None:
    references = ["Kofi bowls no wɔ table so", "Aane"]
    hypotheses = ["kofi bows wɔ table school so", "aane paa"]
    errors = errors_by_language(align_utterances(references, hypotheses))
    english, other = errors["english"], errors["other"]
    # "bowls" is heard as "bows", "no" is not heard; "school" and "paa" were not said.
    assert (english.substitutions, english.deletions, english.insertions) == (1, 0, 1)
    assert (english.num_reference_words, english.rate) == (2, 1 / 2)
    assert (other.substitutions, other.deletions, other.insertions) == (0, 1, 1)
    assert (other.num_reference_words, other.rate) == (5, 1 / 5)


def test_errors_of_both_languages_are_all_errors() -> None:
    generator = random.Random(1)
    words = [
        "me",
        "no",
        "bowls",
        "table",
        "school",
        "wɔ",
        "kɔ",
        "so",
        "so",
        "fie",
        "the",
        "meeting",
    ]
    texts = [generator.choices(words, k=generator.randint(0, 7)) for _ in range(60)]
    references, hypotheses = (
        [" ".join(text) for text in half] for half in (texts[:30], texts[30:])
    )
    parts = errors_by_language(align_utterances(references, hypotheses)).values()
    rates = compute_error_rates(references, hypotheses)
    for name in ("substitutions", "deletions", "insertions", "num_reference_words"):
        assert sum(getattr(part, name) for part in parts) == getattr(rates, name)


def test_speech_without_english_has_no_rate_of_it() -> None:
    errors = errors_by_language(align_utterances(["me kɔ fie"], ["me kɔ"]))["english"]
    assert (errors.rate, errors.rate_interval, errors.num_reference_words) == (0, None, 0)


def test_speakers_are_drawn_as_a_whole() -> None:
    """One speaker is always wrong, nine never: utterances say 10 % within a point or two, speakers
    anything from 0 to 30 %."""
    references = ["aane"] * 1000
    hypotheses = ["dabi"] * 100 + ["aane"] * 900
    speakers = [f"speaker-{place // 100}" for place in range(1000)]
    rates = rates_of_speakers(align_utterances(references, hypotheses), speakers)
    assert rates.wer_interval == pytest.approx((0, 0.3), abs=0.001)
    assert (rates.num_speakers, rates.wer_speaker_mean) == (10, pytest.approx(0.1))
    assert (rates.highest, rates.wer_speaker_highest) == ("speaker-0", 1)


def test_a_speaker_counts_once_and_alone_has_no_interval() -> None:
    utterances = align_utterances(["me kɔ fie nnɛ", "aane", "..."], ["me kɔ fie nnɛ", "dabi", "x"])
    rates = rates_of_speakers(utterances, ["ama", "kofi", "esi"])
    assert rates.wer_speaker_mean == 0.5  # Esi has no word
    assert rates.num_speakers == 3
    assert rates_of_speakers(utterances, ["ama"] * 3).wer_interval is None


def test_speakers_with_one_utterance_each_are_utterances() -> None:
    errors, lengths = [1, 0, 3, 2], [4, 5, 6, 2]
    by_speaker = rate_interval(errors, lengths, blocks=["a", "b", "c", "d"])
    assert by_speaker == rate_interval(errors, lengths)
    assert rate_interval([1, 0], [0, 0]) is None


def test_many_utterances_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    errors, lengths = [1, 0, 3, 2] * 5, [4, 5, 6, 0] * 5
    at_once = rate_interval(errors, lengths)
    monkeypatch.setattr(bootstrap, "MAX_DRAWN_AT_ONCE", 70)
    assert rate_interval(errors, lengths) == at_once


def test_groups_are_pooled_apart() -> None:
    utterances = align_utterances(["me kɔ", "aane", "dabi"], ["me", "aane", "aane"])
    rates = rates_by_group(utterances, ["fante", "asante", "fante"])
    assert list(rates) == ["asante", "fante"]
    assert (rates["asante"].wer, rates["fante"].wer) == (0, pytest.approx(2 / 3))
    assert (rates["fante"].num_utterances, rates["fante"].num_reference_words) == (2, 3)


# ---- the command


ROWS = [
    {"id": "a", "text": "Me kɔ fie", "speaker": "ama", "dialect": "asante", "corpus": "x"},
    {"id": "b", "text": "[noise]", "speaker": "kofi", "dialect": "fante", "corpus": "x"},
    {"id": "c", "text": "Table no yɛ N.D.C.", "speaker": "kofi", "dialect": "fante", "corpus": "y"},
]
HEARD = [{"id": "c", "heard": "tebo no yɛ ndc"}, {"id": "a", "heard": "me fie"}]
HEARD += [{"id": "b", "heard": "hm"}]


def write_rows(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def flags(folder: Path, *more: str) -> list[str]:
    references = write_rows(folder / "test.jsonl", ROWS)
    hypotheses = write_rows(folder / "heard.jsonl", HEARD)
    return ["--references", references, "--hypotheses", hypotheses, *more]


def test_a_manifest_brings_ids_speakers_and_dialects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "u.jsonl"
    more = ["--by", "dialect", "corpus", "--english", "--leave-out-tags", "--leave-out-empty"]
    main(flags(tmp_path, *more, "--json", "--per-utterance", str(path)))
    report = json.loads(capsys.readouterr().out)
    assert (report["wer"], report["num_left_out"]) == (pytest.approx(2 / 7), 1)
    assert report["normalization"] == "twi-2, without tags"
    assert report["by"]["dialect"]["asante"]["wer"] == pytest.approx(1 / 3)
    assert report["by"]["corpus"]["y"]["wer"] == pytest.approx(1 / 4)
    assert report["speakers"]["num_speakers"] == 2
    assert report["words"]["english"]["rate"] == 1
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["a", "c"]

    main(flags(tmp_path, *more, "--numbers-as-digits"))
    table = capsys.readouterr().out
    assert (
        "left out                     1" in table and "\nfante                    25.00  " in table
    )
    assert "english words                1\n  wrong                 100.00 %" in table
    assert "  mean of their WERs     29.17 %\n  highest of them        33.33 %  ama" in table


def test_speakers_of_texts_stand_in_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = {"r": "me kɔ\naane\n", "h": "me\naane\n", "s": "ama\nkofi\n", "short": "ama\n"}
    texts["nobody"] = "ama\n \n"
    paths = {name: tmp_path / f"{name}.txt" for name in texts}
    for name, text in texts.items():
        paths[name].write_text(text, encoding="utf-8")
    given = ["--references", str(paths["r"]), "--hypotheses", str(paths["h"])]
    main([*given, "--speakers", str(paths["s"]), "--by", "speaker", "--json"])
    assert json.loads(capsys.readouterr().out)["by"]["speaker"]["ama"]["wer"] == 0.5
    with pytest.raises(InputError, match=r"2 lines but .*short.txt has 1 lines"):
        main([*given, "--speakers", str(paths["short"])])
    with pytest.raises(InputError, match=r"nobody.txt: line 2 names nobody"):
        main([*given, "--speakers", str(paths["nobody"])])
    with pytest.raises(InputError, match=r"--by speaker: .* no speaker for line 1; .*--speakers"):
        main([*given, "--by", "speaker"])


@pytest.mark.parametrize(
    ("rows", "heard", "more", "message"),
    [
        (ROWS, HEARD[1:], [], "lacks 1 of the 3 utterances of"),
        ([*ROWS, ROWS[0]], HEARD, [], "test.jsonl:4: id 'a' is there twice, see .*test.jsonl:1"),
        ([{"id": "a"}], HEARD, [], "test.jsonl:1: has no 'text'"),
        ([], HEARD, [], "no rows"),
        ([{"id": "a", "text": "x"}], HEARD[1:2], ["--by", "dialect"], "no dialect for id 'a'"),
        (ROWS[1:2], HEARD[2:], ["--leave-out-tags", "--leave-out-empty"], "no reference has a wo"),
        (ROWS, HEARD, ["--english", "--no-normalize"], "--english needs normalised texts"),
        (ROWS, HEARD, ["--by", "age"], "speaker"),
    ],
)
def test_what_does_not_belong_together(tmp_path, rows, heard, more, message) -> None:
    given = flags(tmp_path, *more)
    write_rows(tmp_path / "test.jsonl", rows)
    write_rows(tmp_path / "heard.jsonl", heard)
    with pytest.raises(InputError, match=message):
        main(given)


def test_ids_need_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("aane\n")
    given = flags(tmp_path)
    with pytest.raises(InputError, match=r"has ids, and --references .*r.txt has none"):
        main(["--references", str(tmp_path / "r.txt"), *given[2:]])
