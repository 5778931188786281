"""Public texts as sentences for stage 2: each in its layout, filtered, counted, held out."""

import pytest
from conftest import ROOT, run
from miniature_texts import PAIRS, fineweb_row, parallel_row, write_parquet

from commands.errors import InputError
from commands.json_files import read_json, read_json_lines
from stage2_speechless import build_text
from stage2_speechless.sentences import read_sentences

WAXAL = ROOT.parent / "shared" / "data" / "waxal_aka_text" / "dev.jsonl"
SENTENCES = [f"{question[15].upper()}{question[16:]}" for question, _ in PAIRS]


def build(out, *words):
    """Rows of the three files, and what was counted."""
    run(build_text.main, *words, "--out", out)
    rows = [read_json_lines(out / f"{name}.jsonl") for name in ("sentences", "held_out", "dropped")]
    return *rows, read_json(out / "provenance.json")["corpora"]


def own_text(tmp_path, *lines):
    path = tmp_path / "own.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"text={path}"


def texts(rows):
    return [row["text"] for row in rows]


def test_every_corpus_in_its_layout(tmp_path):
    parallel = [parallel_row(s) for s in SENTENCES[:20]]
    parallel.append(parallel_row("Ahyɛaseɛ no na asɛm no wɔ hɔ.", "youversion_bible_v1461; x"))
    web = [fineweb_row("Fie\nAsɛm yi yɛ dɛ. " + " ".join(SENTENCES[20:40]) + "\nKan bio wɔ ha")]
    verses = ["GEN 1:1 " + SENTENCES[40], "", "<range>", *SENTENCES[41:50]]
    (tmp_path / "twi-twi.txt").write_text("\n".join(verses), encoding="utf-8")
    kept, out, dropped, counts = build(
        tmp_path / "out", "--corpus",
        f"fineweb2_twi={write_parquet(tmp_path / 'f' / '000.parquet', web)}",
        f"parallel_twi={write_parquet(tmp_path / 'p' / 'data' / 'train-0.parquet', parallel)}",
        f"bible_akuapem={tmp_path / 'twi-twi.txt'}", own_text(tmp_path, *SENTENCES[50:60]),
    )  # fmt: skip
    assert list(counts) == ["text", "bible_akuapem", "parallel_twi", "fineweb2_twi"]
    expected = {*SENTENCES[:60], "Asɛm yi yɛ dɛ.", "Ahyɛaseɛ no na asɛm no wɔ hɔ."}
    assert {*texts(kept), *texts(out)} == expected
    licenses = {
        "text": {"unknown"},
        "bible_akuapem": {"CC-BY-SA-4.0"},
        "parallel_twi": {"CC-BY-4.0", "unknown"},
        "fineweb2_twi": {"ODC-By-1.0"},
    }
    for corpus, license in licenses.items():
        assert {row["license"] for row in kept if row["corpus"] == corpus} == license
    [taken] = [row for row in kept if row["license"] == "unknown" and row["corpus"] != "text"]
    assert taken["text"].startswith("Ahyɛaseɛ")
    assert {row.get("dialect") for row in kept if row["corpus"] == "bible_akuapem"} == {"akuapem"}
    assert not any("dialect" in row for row in kept if row["corpus"] != "bible_akuapem")
    assert counts["fineweb2_twi"]["left_out"] == {
        "sentence too short": 1,
        "no end of a sentence": 1,
    }
    assert counts["bible_akuapem"]["left_out"] == {"empty": 2}
    assert len(dropped) == 4
    path = tmp_path / "out" / "sentences.jsonl"
    spoken = read_sentences(path, dialect="asante", rate_cps=None)
    assert {s.dialect for s in spoken} == {"asante", "akuapem"} and len(spoken) == len(kept)


def test_what_is_left_out_is_counted_and_said(tmp_path, capsys):
    corpus = own_text(
        tmp_path,
        "De3 ɛwɔ hɔ no y3 nsuo. De3 ɛwɔ hɔ no y3 nsuo.",
        "Adwuma.",
        "This is the house of my father.",
        "Kofi Annan Kwame Nkrumah Yaa Asantewaa",
        "Nsuo <b>bi</b> wɔ hɔ.",
        "Nsuo bi wɔ hɔ 🙂 ɛnnɛ.",
        "Nsuo bi wɔ hɔ. " + "Na " * 200 + "ɛyɛ.",
        "Afe 2021 mu na yɛkɔe.",
        "Mmerɛ foforɔ yi mu no, nnipa 12 na ɛbaeɛ.",
        "Mmerɛ foforɔ yi mu no, ɛyɛ 3rd class adeɛ.",
        "Ebɛn adze na hɔn nyimpa dze yɛ adze?",
    )
    kept, _, dropped, counts = build(tmp_path / "out", "--corpus", corpus)
    assert texts(kept) == [
        "Deɛ ɛwɔ hɔ no yɛ nsuo.", "Nsuo bi wɔ hɔ.",
        "Mmerɛ foforɔ yi mu no, nnipa dumienu na ɛbaeɛ.", "Ebɛn adze na hɔn nyimpa dze yɛ adze?",
    ]  # fmt: skip
    assert [row.get("dialect_guess") for row in kept] == ["asante", None, "asante", "fante"]
    assert counts["text"]["left_out"] == {
        "same sentence before": 1, "sentence too short": 1, "sentence in English": 1,
        "not recognised as Twi": 1, "markup": 1, "sentence with characters that nobody reads": 1,
        "sentence too long": 1, "number, and no dialect to read it in": 1,
        "number that no rule reads": 1,
    }  # fmt: skip
    assert dropped[-1]["reason"] == "no rule says how to read 3rd class"
    assert "1  number that no rule reads" in capsys.readouterr().err
    words = ("--corpus", corpus, "--dialect", "asante", "--license", "CC0-1.0")
    kept, _, _, counts = build(
        tmp_path / "asante", *words, "--dialects", "asante", "unknown", "--min-words", "1"
    )
    assert "Afe mpem mmienu ne aduonu baako mu na yɛkɔe." in texts(kept) and "Adwuma." in texts(
        kept
    )
    assert {row["dialect"] for row in kept} == {"asante"}
    assert {row["license"] for row in kept} == {"CC0-1.0"}
    assert counts["text"]["left_out"]["spelt in fante"] == 1


def test_nothing_to_read_or_to_keep(tmp_path):
    with pytest.raises(InputError, match="no corpus given: name at least one, as in --corpus para"):
        run(build_text.main, "--out", tmp_path / "out")
    words = ("--corpus", own_text(tmp_path, "Adwuma."), "--out", tmp_path / "out")
    with pytest.raises(InputError, match="no usable sentence, the first: sentence too short"):
        run(build_text.main, *words)
    assert not (tmp_path / "out").exists()


def test_it_is_written_again_only_when_asked(tmp_path):
    words = ("--corpus", own_text(tmp_path, *SENTENCES))
    first = build(tmp_path / "out", *words)
    with pytest.raises(InputError, match="is finished: --overwrite writes it again"):
        build(tmp_path / "out", *words)
    assert build(tmp_path / "out", *words, "--overwrite") == first


@pytest.mark.skipif(not WAXAL.exists(), reason="WAXAL's texts are not here (../shared/data)")
def test_real_waxal(tmp_path):
    kept, out, dropped, counts = build(tmp_path / "out", "--corpus", f"text={WAXAL}")
    assert len(kept) > 7000 and 50 < len(out) < 110 and len(dropped) < 250
    assert counts["text"]["left_out"]["not recognised as Twi"] < 80
