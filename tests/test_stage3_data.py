"""Spoken dialogues as stage 3 reads them: what is none is refused, before anything is trained."""

from dataclasses import dataclass

import pyarrow
import pyarrow.parquet
import pytest

from commands.errors import InputError
from commands.run_folder import run_folder
from stage1_rvq.codes import code_format
from stage1_rvq.config import RVQConfig
from stage1_rvq.model import SpeechRVQ
from stage3_finetune.data import (
    SpokenDialogues,
    TaskMixture,
    dialogue_schema,
    read_spoken_dialogues,
    write_spoken_dialogues,
)
from stage3_finetune.dialogue import Dialogue, Turn

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
    decode = SpeechRVQ(SHAPE).decode
    dialogue = Dialogue("a", (Turn("user", "x"),))
    with pytest.raises(InputError, match="dialogue 'a' has no assistant turn"):
        SpokenDialogues([dialogue], None, decode, target="chain", mixture=TaskMixture(0, 0), seed=0)
