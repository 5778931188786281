"""Spoken dialogues as stage 3 reads them: what is none is refused, before anything is trained."""

from dataclasses import dataclass, replace

import pyarrow
import pyarrow.parquet
import pytest
import torch

from commands.errors import InputError
from commands.run_folder import run_folder
from data_manifests.language import language
from gemma4.gemma import load_tokenizer
from stage1_rvq.codes import CodedUtterance, code_format, write_codes
from stage1_rvq.config import RVQConfig
from stage1_rvq.model import SpeechRVQ
from stage3_finetune.data import SpokenDialogues
from stage3_finetune.dialogue import Dialogue, Turn
from stage3_finetune.dialogue_files import (
    dialogue_schema,
    read_spoken_dialogues,
    write_spoken_dialogues,
)
from stage3_finetune.mixture import TaskMixture, join_dialogues
from stage3_finetune.recorded_dialogues import read_transcribed_codes

SHAPE = RVQConfig(dim=64, num_codebooks=2, codebook_size=16)


@dataclass(frozen=True)
class NoSettings:
    """What `run_folder` writes down here."""


def message(role, content="x", spoken=False, codes=None):
    return {"role": role, "content": content, "spoken": spoken, "codes": codes}


ANSWER = message("assistant")


@pytest.mark.parametrize(
    ("messages", "wrong"),
    [
        ([message("user", spoken=True), ANSWER], "'a' has a spoken turn without codes"),
        ([message("user", spoken=True, codes=[]), ANSWER], "'a' has a spoken turn without codes"),
        ([message("user", spoken=True, codes=[[1, 16]]), ANSWER], "codes from 1 to 16, codebooks"),
        ([message("user", spoken=True, codes=[[-1, 0]]), ANSWER], "codes from -1 to 0, codebooks"),
        ([message("user", spoken=True, codes=[[1]]), ANSWER], "frames of 1 codes, expected 2"),
        ([message("user", spoken=True, codes=[[1, None]]), ANSWER], "a null among the codes"),
        ([message("user", spoken=True, codes=[None]), ANSWER], "a null among the codes"),
        ([message("user"), message("assistant", "x<turn|>")], "'a': a turn of the assistant holds"),
        ([message("user"), message("user")], "'a': turns must alternate"),
        ([None], "'a': 'role' must be one of"),
        ([], "'a': has no 'messages'"),
    ],
)
def test_spoken_dialogues_that_are_none_are_refused(tmp_path, messages, wrong):
    expected = code_format(SHAPE)
    made_by = "stage3_finetune.speak_dialogues"
    with run_folder(tmp_path / "spoken", NoSettings(), made_by) as output:
        rows = [{"id": "a", "messages": messages}]
        table = pyarrow.Table.from_pylist(rows, schema=dialogue_schema(expected))
        pyarrow.parquet.write_table(table, output.path / "dialogues_00000.parquet")
    with pytest.raises(InputError, match=wrong) as caught:
        list(read_spoken_dialogues(output.path, expected))
    assert "\n" not in str(caught.value) and "dialogues_00000.parquet" in str(caught.value)


def test_two_dialogues_of_one_id_are_refused(tmp_path):
    """Within a file, and from file to file."""
    made_by = "stage3_finetune.speak_dialogues"
    with run_folder(tmp_path / "spoken", NoSettings(), made_by) as output:
        dialogue = Dialogue("a", (Turn("user", "x"), Turn("assistant", "y")))
        for number in range(2):
            path = output.path / f"dialogues_{number:05d}.parquet"
            write_spoken_dialogues(path, [dialogue], code_format(SHAPE))
    with pytest.raises(InputError, match=r"dialogues_00001.parquet: 'a' is the id of an earlier"):
        list(read_spoken_dialogues(output.path, code_format(SHAPE)))


def test_a_dialogue_without_an_answer_is_refused_before_training():
    dialogue = Dialogue("a", (Turn("user", "x"),))
    with pytest.raises(InputError, match="dialogue 'a' has no assistant turn"):
        SpokenDialogues(
            [dialogue], None, None, target="chain", mixture=TaskMixture(0, 0, 0, 5), seed=0
        )


@pytest.fixture(scope="module")
def decoded():
    decode = SpeechRVQ(SHAPE).decode
    return lambda turn: decode(turn.codes_TK)


def spoken_dialogues(number, system=()):
    """Dialogues whose questions are spoken, in codes that differ."""
    return [
        Dialogue(
            f"d{i}",
            (
                *system,
                Turn("user", f"Q{i}.", spoken=True, codes_TK=torch.full((3 + i, 2), i)),
                Turn("assistant", f"A{i}."),
            ),
        )
        for i in range(number)
    ]


def test_joined_rows_are_conversations_of_the_dialogues(tiny_models, decoded):
    """Every answer of a conversation is learned, each spoken question is heard where it was asked,
    and the other rows are those of a mixture without conversations."""
    tokenizer = load_tokenizer(str(tiny_models / "gemma"))
    dialogues = spoken_dialogues(10)

    def rows(joined):
        mixture = TaskMixture(0.2, 0.3, joined, max_joined=4)
        return SpokenDialogues(
            dialogues, tokenizer, decoded, target="chain", mixture=mixture, seed=0
        )

    alone, both = rows(0), rows(2)
    assert len(alone) == 15 and len(both) == 35
    assert [alone.id_of(i) for i in range(15)] == [both.id_of(i) for i in range(15)]
    lengths = {both.id_of(i).count("+") + 1 for i in range(15, 35)}
    assert lengths == {2, 3, 4}
    turn_end = tokenizer.convert_tokens_to_ids("<turn|>")
    num_heard = num_turns = 0
    for i in range(15, 35):
        ids, row = both.id_of(i).split("+"), both[i]
        assert row.labels.count(turn_end) == len(ids)
        written = tokenizer.decode([label for label in row.labels if label >= 0])
        assert [written.index(f"A{id_[1:]}.") for id_ in ids] == sorted(
            written.index(f"A{id_[1:]}.") for id_ in ids
        )
        expected = [3 + int(id_[1:]) for id_ in ids]
        assert {len(frames_TD) for frames_TD in row.frames} <= set(expected)
        num_heard, num_turns = num_heard + len(row.frames), num_turns + len(ids)
    assert 0.6 < num_heard / num_turns < 0.95  # the rest is typed
    assert both.longest() == max(len(both[i].input_ids) for i in range(35))


def test_only_dialogues_with_the_same_system_turn_are_joined(tiny_models, decoded):
    tokenizer = load_tokenizer(str(tiny_models / "gemma"))
    polite = spoken_dialogues(3, system=(Turn("system", "Be polite."),))
    short = [replace(dialogue, id=f"s{i}") for i, dialogue in enumerate(spoken_dialogues(3))]
    rows = SpokenDialogues(
        [*polite, *short], tokenizer, decoded,
        target="direct", mixture=TaskMixture(0, 0, 5, 3), seed=1,
    )  # fmt: skip
    kinds = [{id_[0] for id_ in rows.id_of(i).split("+")} for i in range(len(rows))]
    assert all(len(kind) == 1 for kind in kinds) and {"d"} in kinds and {"s"} in kinds
    joined = join_dialogues(polite)
    assert [turn.role for turn in joined.turns] == ["system", *["user", "assistant"] * 3]
    assert joined.id == "d0+d1+d2" and join_dialogues(short[:1]) == short[0]


def write_recordings(path, texts, shape=SHAPE):
    codes = [torch.full((2 + i, shape.num_codebooks), i) for i in range(len(texts))]
    rows = [
        CodedUtterance(f"u{i}", text, "speaker", "asante", codes_TK)
        for i, (text, codes_TK) in enumerate(zip(texts, codes, strict=True))
    ]
    write_codes(path, rows, code_format(shape))
    return path


def test_recordings_are_written_down_and_never_answered(tiny_models, decoded, tmp_path):
    """They take the place of the spoken turns that were written down without them."""
    tokenizer = load_tokenizer(str(tiny_models / "gemma"))
    path = write_recordings(tmp_path / "noisy.parquet", ["Maakye.", "", "Ɛyɛ."])
    recordings, _ = read_transcribed_codes(path, code_format(SHAPE))
    assert [recording.id for recording in recordings] == ["noisy.parquet/u0", "noisy.parquet/u2"]

    def rows(recordings):
        return SpokenDialogues(
            spoken_dialogues(10), tokenizer, decoded, target="chain",
            mixture=TaskMixture(2, 0.2, 0.5, 3), seed=0, recordings=recordings,
        )  # fmt: skip

    without, mixed = rows([]), rows(recordings)
    assert len(without) == len(mixed) == 37
    texts = {"noisy.parquet/u0": "Maakye.", "noisy.parquet/u2": "Ɛyɛ."}
    are_recorded = [
        [mixed.id_of(i) in texts for i in range(37)],
        [without.id_of(i) in texts for i in range(37)],
    ]
    assert are_recorded == [[10 <= i < 30 for i in range(37)], [False] * 37]
    assert {mixed.id_of(i) for i in range(10, 30)} == set(texts)
    for i in range(10, 30):
        row, text = mixed[i], texts[mixed.id_of(i)]
        written = tokenizer.decode([label for label in row.labels if label >= 0])
        assert written == text + "<turn|>" and language().write in tokenizer.decode(row.input_ids)
        [frames_TD] = row.frames
        assert len(frames_TD) == (2 if text == "Maakye." else 4)


def test_recordings_without_transcripts_or_of_other_codes_are_refused(tmp_path):
    silent = write_recordings(tmp_path / "silent.parquet", ["", ""])
    with pytest.raises(InputError, match=r"--transcribed .*: no utterance in it has a transcr"):
        read_transcribed_codes(silent, code_format(SHAPE))
    other = write_recordings(tmp_path / "x.parquet", ["a"], replace(SHAPE, codebook_size=32))
    with pytest.raises(InputError, match=r"--transcribed .* has 2 codebooks of 32 at 25 Hz"):
        read_transcribed_codes(other, code_format(SHAPE))
