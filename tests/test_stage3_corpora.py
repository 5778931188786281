"""Public corpora as dialogues: each in its layout, filtered, counted, licensed and held out."""

import json

import pytest
from conftest import ROOT, run
from miniature_texts import (
    PAIRS,
    afriqa_folder,
    afriqa_row,
    aya_row,
    farmer_row,
    ghana_chat_row,
    oasst_rows,
    write_json_rows,
    write_parquet,
)

from commands.errors import InputError
from commands.json_files import read_json, read_json_lines
from data_manifests.held_out import HELD_OUT_QUESTIONS, NearDuplicates, is_held_out
from stage3_finetune import build_dialogues
from stage3_finetune.dialogue_rows import read_dialogues

AFRIQA = ROOT.parent / "shared" / "data" / "afriqa_twi"


def build(out, *words):
    """Rows of the three files, and what was counted."""
    run(build_dialogues.main, *words, "--out", out)
    rows = [read_json_lines(out / f"{name}.jsonl") for name in ("dialogues", "held_out", "dropped")]
    return *rows, read_json(out / "provenance.json")["corpora"]


def questions(rows):
    return [row["messages"][0]["content"] for row in rows]


def as_afriqa(tmp_path, pairs):
    rows = [afriqa_row(i, q, f"['{a}']") for i, (q, a) in enumerate(pairs)]
    return f"afriqa_twi={afriqa_folder(tmp_path / 'afriqa', rows)}"


def as_oasst(tmp_path, pairs):
    rows = oasst_rows([[pair, ("Na afei ɛyɛ dɛn?", "Ɛno akyi no yɛkɔ fie.")] for pair in pairs])
    return f"oasst1_akan={write_parquet(tmp_path / 'oasst' / 'data' / 'train-0.parquet', rows)}"


def as_aya(tmp_path, pairs):
    rows = [aya_row(*pair) for pair in pairs]
    rows.append(aya_row("Me ho yɛ paa ɛnnɛ. Ɛyɛ anigyeɛ anaa?", "Aane", "text-classification"))
    return f"aya_twi={write_parquet(tmp_path / 'aya' / 'twi' / 'train-0.parquet', rows).parents[1]}"


def as_alpaca(tmp_path, pairs):
    rows = [{"instruction": q, "input": "nan", "output": a} for q, a in pairs]
    return f"alpaca_twi={write_parquet(tmp_path / 'alpaca' / 'data' / 'train-0.parquet', rows)}"


def as_ghana_chat(tmp_path, pairs):
    rows = [ghana_chat_row(q, f"{a}\n\nAsɛm foforɔ koraa nso wɔ ha.") for q, a in pairs]
    return f"ghana_chat={write_parquet(tmp_path / 'chat' / 'data' / 'train-0.parquet', rows)}"


def as_farmer_qa(tmp_path, pairs):
    rows = [farmer_row(*pair) for pair in pairs]
    return f"ghana_farmer_qa={write_parquet(tmp_path / 'qa' / 'data' / 'train-0.parquet', rows)}"


CORPORA = {
    "afriqa_twi": (as_afriqa, "CC-BY-4.0"),
    "oasst1_akan": (as_oasst, "MIT"),
    "aya_twi": (as_aya, "Apache-2.0"),
    "ghana_farmer_qa": (as_farmer_qa, "CC-BY-NC-4.0"),
    "ghana_chat": (as_ghana_chat, "CC-BY-NC-4.0"),
    "alpaca_twi": (as_alpaca, "CC-BY-NC-4.0"),
}


@pytest.mark.parametrize("name", CORPORA)
def test_every_corpus_in_its_layout(tmp_path, name):
    write, license = CORPORA[name]
    kept, out, dropped, counts = build(tmp_path / "out", "--corpus", write(tmp_path, PAIRS))
    assert {*questions(kept), *questions(out)} <= {question for question, _ in PAIRS}
    assert 0 < len(out) < 20 and len(kept) > 80
    answers = dict(PAIRS)
    for row in kept + out:
        asked, answered = row["messages"]
        assert asked["spoken"] and answered["content"] == answers[asked["content"]]
        assert (row["corpus"], row["license"]) == (name, license)
        assert row["id"].startswith(f"{name}-")
    assert len(list(read_dialogues(tmp_path / "out" / "dialogues.jsonl"))) == len(kept)
    assert counts[name]["kept"] == len(kept) and counts[name]["held_out"] == len(out)
    assert sum(counts[name]["left_out"].values()) == len(dropped)
    reasons = {"oasst1_akan": "later turn of a conversation",
               "aya_twi": "task_type is text-classification"}  # fmt: skip
    if name in reasons:
        assert counts[name]["left_out"][reasons[name]]


def test_no_corpus_trains_on_what_another_holds_out(tmp_path):
    """The same questions everywhere, each corpus with its own spelling of them."""
    spellings = [str, str.upper, str.lower, lambda q: q.replace("ɛ", "e").replace("ɔ", "o"),
                 lambda q: q[:-1] + " anaa?", lambda q: q.replace(" ", "  ")]  # fmt: skip
    words = [
        write(tmp_path, [(spell(q), a) for q, a in PAIRS])
        for (write, _), spell in zip(CORPORA.values(), spellings, strict=True)
    ]
    kept, out, _, counts = build(tmp_path / "out", "--corpus", *words)
    near = NearDuplicates(questions(out))
    assert [near.find(question) for question in questions(kept)] == [None] * len(kept)
    assert any(counts[name]["left_out"].get("nearly one that is held out") for name in counts)
    assert {row["corpus"] for row in kept} >= {"afriqa_twi", "ghana_chat"}
    again = build(tmp_path / "again", "--corpus", *reversed(words))
    assert again[:3] == (kept, out, _)


def test_what_is_left_out_is_counted_and_said(tmp_path, capsys):
    good, answer = PAIRS[0]
    pairs = [
        (good, answer),
        (good.upper(), "Mmuaeɛ foforɔ bi ni."),
        ("What is the name of this plant?", answer),
        ("Ɛyɛ dɛn na wɔnoa abɛ?", "It is cooked in a pot with water."),
        ("Ɛyɛ dɛn na wɔsie aburo?", "Wɔde gu kotokuo mu and then keep dry na ɛnyɛ mmerɛ wɔ hɔ."),
        ("Ɛyɛ dɛn na wɔdi mango?", "1. Hohoro. 2. Twa. 3. Di."),
        ("Ɛyɛ dɛn na wɔnom nsuo?", "<b>Fa kuruwa</b> na nom."),
        ("Ɛyɛ dɛn na wɔto nnwom?", "Bue w'ano na to 🎵 no."),
        ("Ɛyɛ dɛn na wɔda awia?", "Da wɔ baabi a ɛyɛ dwo. " * 40),
        ("Ɛyɛ dɛn na wɔhwɛ abofra? " * 20, answer),
        ("Ɛyɛ dɛn na wɔtwa kwan?", ""),
        ("...", answer),
        ("Ɛyɛ dɛn <turn|> na wɔkɔ?", answer),
        ("Mɛni hewɔ kookoo lɛ mli wa kɛji nu bɛ?", answer),
        ("Ebɛn adze na hɔn nyimpa dze yɛ adze?", "Wɔdze dua na ɔyɛ adze."),
    ]
    words = ("--corpus", as_alpaca(tmp_path, pairs))
    kept, _, dropped, counts = build(tmp_path / "out", *words)
    assert questions(kept)[0] == good and kept[0]["id"] == "alpaca_twi-0"
    assert counts["alpaca_twi"]["left_out"] == {
        "question asked before": 1, "question in English": 1, "answer in English": 1,
        "answer left in English in part": 1, "markup in the answer": 2,
        "answer with characters that nobody reads": 1, "answer too long": 1,
        "question too long": 1, "no answer": 1, "no speakable question": 1,
        "a mark of Gemma's chat template": 1, "question in another language than Twi": 1,
    }  # fmt: skip
    reasons = {row["row"]: row["reason"] for row in dropped}
    assert reasons[5] == "a list in the answer" and reasons[7].endswith("nobody reads: 🎵")
    assert {row["corpus"] for row in dropped} == {"alpaca_twi"}
    told = capsys.readouterr().err
    assert "left out of alpaca_twi:" in told and "1  answer too long" in told
    few = ("--dialects", "asante", "unknown", "--max-answer-characters", "2000")
    kept, _, _, counts = build(tmp_path / "few", *words, *few)
    assert counts["alpaca_twi"]["left_out"]["spelt in fante"] == 1
    assert "answer too long" not in counts["alpaca_twi"]["left_out"]


def test_what_was_not_translated(tmp_path):
    rows = [
        afriqa_row(0, "Sika bɛn na wɔde di dwuma?", "['peso']", translated_answer="['peso']"),
        afriqa_row(1, "Ɛhe na wɔwoo no?", "['Sunyani']", translated_answer="['Sunyani']"),
    ]
    path = write_json_rows(tmp_path / "x.jsonl", rows)
    kept, _, dropped, _ = build(tmp_path / "out", "--corpus", f"afriqa_twi={path}")
    assert [row["id"] for row in kept] == ["afriqa_twi-1"]
    assert dropped == [{"corpus": "afriqa_twi", "row": 0, "reason": "answer not translated"}]


def test_one_s_own_table_beside_a_corpus(tmp_path):
    """It is held out alike, but not filtered: its owner knows what is in it."""
    rows = [{"instruction": q, "input": "", "output": "As *you* like."} for q, _ in PAIRS]
    path = write_json_rows(tmp_path / "own.jsonl", rows)
    own = ("--table", path, "--license", "CC0-1.0")
    kept, out, _, counts = build(
        tmp_path / "both", *own, "--corpus", as_alpaca(tmp_path, PAIRS[:20])
    )
    assert list(counts) == ["alpaca_twi", "own"]
    mine = [row for row in kept if row["corpus"] == "own"]
    assert {row["license"] for row in mine} == {"CC0-1.0"} and mine[0]["id"].startswith("row-")
    assert out and all(is_held_out(q, share=HELD_OUT_QUESTIONS) for q in questions(out))
    run(build_dialogues.main, *own, "--out", tmp_path / "alone")
    assert not (tmp_path / "alone" / "held_out.jsonl").exists()
    assert len(read_json_lines(tmp_path / "alone" / "dialogues.jsonl")) == len(PAIRS)


def test_nothing_to_read_or_to_keep(tmp_path):
    with pytest.raises(InputError, match="nothing to read: name a public corpus"):
        run(build_dialogues.main, "--out", tmp_path / "out")
    for question, reason in (("...", "no speakable question"),
                             ("What is the name of it?", "question in English")):  # fmt: skip
        words = ("--corpus", as_alpaca(tmp_path, [(question, "Ɛyɛ.")]), "--out", tmp_path / "out")
        with pytest.raises(InputError, match=f"no usable row among 1, the first: {reason}"):
            run(build_dialogues.main, *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not AFRIQA.exists(), reason="real AfriQA is not here (../shared/data)")
def test_real_afriqa(tmp_path):
    kept, out, dropped, counts = build(tmp_path / "out", "--corpus", f"afriqa_twi={AFRIQA}")
    assert len(kept) + len(out) + len(dropped) == 903
    assert len(kept) > 550 and len(out) > 30
    left_out = counts["afriqa_twi"]["left_out"]  # docs/data.md says these
    assert (left_out["no answer"], left_out["answer not translated"]) == (169, 57)
    assert not any("[" in json.dumps(row["messages"])[1:-1] for row in kept)


def test_the_english_of_a_set_is_kept_and_none_is_made(tmp_path):
    corpora = (as_afriqa(tmp_path, PAIRS[:8]), as_alpaca(tmp_path, PAIRS[8:16]))
    kept, held_out, *_ = build(tmp_path / "out", "--corpus", *corpora)
    for row in (*kept, *held_out):
        english = [message.get("english") for message in row["messages"]]
        is_told = row["corpus"] == "afriqa_twi"
        assert english == (["Which one is it?", "It is so"] if is_told else [None, None])
    [turn, _] = next(read_dialogues(tmp_path / "out" / "dialogues.jsonl")).turns
    assert turn.english == "Which one is it?"
