"""Public sets of questions and answers in Twi: how each is laid out, licensed, and wrong.

Layouts: "seen" means that rows were read here; "told" that other people's code or pages name the
columns; "guessed" that nothing does. Licences change: read that of your copy before you publish.

    for table, path in named_tables(("afriqa_twi=afriqa",), INSTRUCTION_SETS):
        for pair in read_pairs(table, open_public_table(table, path)):
            ...
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from data_manifests.corpora.public_tables import Layout, OpenedTable, PublicTable, TableRow
from data_manifests.corpora.text_tables import cell_text, holds_half_pair
from data_manifests.left_out_rows import LeftOut


@dataclass(frozen=True, kw_only=True)
class InstructionSet(PublicTable):
    """A public table of questions and answers.

    A layout reads "question" and "answer"; "input", which belongs to the question; what both are in
    English ("english_question", "english_answer"); in a conversation, "id", "parent", "role" and
    "text" instead, and "rank".

    Attributes:
        answer_is_list: the answer is a list, or Python's way of writing one; the first is used.
        first_paragraph: the answer is the first paragraph of its cell.
    """

    answer_is_list: bool = False
    first_paragraph: bool = False


@dataclass(frozen=True)
class Pair:
    """A question and its answer, as the table has them.

    Attributes:
        question: the question.
        answer: the answer.
        english_question: the same in English, "" if the table has none.
        english_answer: likewise.
    """

    question: str
    answer: str
    english_question: str = ""
    english_answer: str = ""


_TREE = {"id": "message_id", "parent": "parent_id", "role": "role"}
_TWI_TEXTS = ("text_ak", "text_akan", "akan_text", "akan", "text_tw", "text_twi", "twi", "text")
_ENGLISH = {"english_question": "question", "english_answer": "answer"}

# OpenAssistant, translated into Akan. MIT on the hub (OpenAssistant itself: Apache-2.0). One to ten
# thousand rows; layout guessed: OpenAssistant's own, a message a row, the text in Akan. Of each
# conversation the first question and the answers to it are used; later turns need what came before.
OASST1_AKAN = InstructionSet(
    name="oasst1_akan",
    hub="enochprince/oasst1-akan",
    license="MIT",
    layouts=(
        *(Layout(columns={**_TREE, "text": text}, also={"rank": "rank"}) for text in _TWI_TEXTS),
        Layout(columns={"question": "instruction", "answer": "output"}, also={"input": "input"}),
        Layout(columns={"question": "prompt", "answer": "response"}),
        Layout(columns={"question": "question", "answer": "answer"}),
    ),
)

# Aya Collection, the split of Twi: 7,320 training rows. Apache-2.0. Layout told. Most rows are
# tweets to be classified, with an English instruction and a label for an answer: these are
# excluded.
AYA_TWI = InstructionSet(
    name="aya_twi",
    hub="CohereLabs/aya_collection_language_split",
    config="twi",
    license="Apache-2.0",
    layouts=(Layout(columns={"question": "inputs", "answer": "targets"}),),
    folders=("twi",),
    excluded={"task_type": frozenset({"text-classification"})},
)

# AfriQA: questions that people asked in Twi, and short answers from English Wikipedia. CC BY 4.0
# in its repository, CC BY-SA 4.0 on the hub's card. Layouts seen: its queries, which the hub has
# too, and its gold passages. 903 questions in train and dev; the same in both more than forty
# times. Many have no answer; others are names and dates, not sentences; some answer another
# question. The hub's own loading is code, so the converted Parquet files are read.
_AFRIQA_PARQUET = "hf://datasets/masakhane/afriqa@refs/convert/parquet/twi"
AFRIQA_TWI = InstructionSet(
    name="afriqa_twi",
    hub="masakhane/afriqa",
    parquet_files={s: f"{_AFRIQA_PARQUET}/{s}/*.parquet" for s in ("train", "validation")},
    license="CC-BY-4.0",
    layouts=(
        Layout(
            columns={"question": "question", "answer": "answers"},
            also={
                "english_question": "translated_question",
                "english_answer": "translated_answer",
            },
        ),
        Layout(
            columns={"question": "question_lang", "answer": "answer_lang"},
            also={"english_question": "question_translated"},
        ),
    ),
    folders=("data/queries/twi", "queries/twi", "twi"),
    answer_is_list=True,
)

# Alpaca, cleaned, translated by Google Translate: 52,000 rows, a fifth of them test. CC BY-NC.
# Layout told. Machine translation; about poems, code and English words too; an empty input may
# read "nan".
ALPACA_TWI = InstructionSet(
    name="alpaca_twi",
    hub="saillab/alpaca-twi-cleaned",
    license="CC-BY-NC-4.0",
    layouts=(
        Layout(columns={"question": "instruction", "answer": "output"}, also={"input": "input"}),
    ),
    folders=("data",),
)

# Ghana chat corpus, Akan: 226,300 rows. CC BY-NC 4.0. Layout told. Machine translation by way of
# a third language. Every answer to a conversation is joined to the first question of it by an
# empty line, so only the first paragraph answers.
GHANA_CHAT = InstructionSet(
    name="ghana_chat",
    hub="michsethowusu/ghana-chat-corpus-ak",
    license="CC-BY-NC-4.0",
    layouts=(
        Layout(
            columns={"question": "generated_question_ak", "answer": "text_ak"},
            also={"english_question": "generated_question", "english_answer": "text"},
        ),
    ),
    folders=("data",),
    first_paragraph=True,
)

# Ghana farmer QA, Twi: 151,469 rows. CC BY-NC 4.0 in the repository that makes it; others write
# CC BY-SA 4.0. Layout seen in a sample of that repository. Questions and answers were written by
# a model from interviews, and translated by machine; nobody checked either. English is left in
# the middle of some sentences.
GHANA_FARMER_QA = InstructionSet(
    name="ghana_farmer_qa",
    hub="ghanaopendata/ghana-farmer-qa-twi",
    license="CC-BY-NC-4.0",
    layouts=tuple(
        Layout(columns={"question": f"question_{code}", "answer": f"answer_{code}"}, also=_ENGLISH)
        for code in ("ak", "twi", "tw")
    ),
    folders=("data",),
)

INSTRUCTION_SETS: Mapping[str, InstructionSet] = {
    table.name: table
    for table in (AFRIQA_TWI, OASST1_AKAN, AYA_TWI, GHANA_FARMER_QA, GHANA_CHAT, ALPACA_TWI)
}
"""In the order in which they are read: of equal questions the first is kept, so those that people
wrote come first."""


def read_pairs(table: InstructionSet, opened: OpenedTable) -> Iterator[tuple[int, Pair | LeftOut]]:
    """The pairs of a set, each with the number of its row; or why the row has none.

    Raises:
        InputError: a cell cannot be decoded.
    """
    if all("parent" in layout.columns for _, layout in opened.parts):
        yield from _read_conversations(opened)
        return
    for row in opened.read():
        yield row.number, LeftOut(row.excluded) if row.excluded else _pair_of(row, table)


def _pair_of(row: TableRow, table: InstructionSet) -> Pair | LeftOut:
    cells = dict(row.cells)
    if table.answer_is_list:
        cells |= {
            what: _first_of(cells[what]) for what in ("answer", "english_answer") if what in cells
        }
    texts = _texts_of(cells)
    if isinstance(texts, LeftOut):
        return texts
    question, answer, more = texts["question"], texts["answer"], texts.get("input", "")
    if more and more != "nan":
        question = f"{question}\n{more}"
    english_answer = texts.get("english_answer", "")
    if table.first_paragraph:
        answer, english_answer = map(_first_paragraph, (answer, english_answer))
    return Pair(question, answer, texts.get("english_question", ""), english_answer)


def _read_conversations(opened: OpenedTable) -> Iterator[tuple[int, Pair | LeftOut]]:
    """First questions with the answers to them. In memory: the first questions."""
    questions: dict[Any, str] = {}
    for row in opened.read():
        if row.cells["role"] == "prompter" and not cell_text(row.cells["parent"]):
            questions[row.cells["id"]] = cell_text(row.cells["text"]) or ""
    for row in opened.read():
        yield row.number, _reply_of(row, questions)


def _reply_of(row: TableRow, questions: Mapping[Any, str]) -> Pair | LeftOut:
    if row.cells["role"] == "prompter":
        return LeftOut("question of a conversation: used with its answers")
    if row.cells["parent"] not in questions:
        return LeftOut("later turn of a conversation")
    if cell_text(row.cells.get("rank")) not in ("", "0", "0.0"):  # "": not ranked
        return LeftOut("not the best answer")
    texts = _texts_of({"answer": row.cells["text"]})
    if isinstance(texts, LeftOut):
        return texts
    return Pair(questions[row.cells["parent"]], texts["answer"])


def _texts_of(cells: Mapping[str, Any]) -> dict[str, str] | LeftOut:
    texts = {}
    for what, value in cells.items():
        text = cell_text(value)
        if text is None or holds_half_pair(text):
            return LeftOut("no text", f"{what} holds no text but a {type(value).__name__}")
        texts[what] = text
    return texts


def _first_of(value: Any) -> Any:
    """The first of a list, or of one written as Python writes it: "['Sunyani']" -> Sunyani.

    Not parsed as Python: AfriQA has lists like ['Earth's southernmost'].
    """
    if isinstance(value, list):
        return value[0] if value else ""
    if isinstance(value, str) and (match := re.fullmatch(r"\[(.*)\]", value.strip(), re.DOTALL)):
        first = re.split(r"""['"], ['"]""", match[1].strip())[0]
        return first.strip("'\", ")
    return value


def _first_paragraph(text: str) -> str:
    return re.split(r"\n\s*\n", text.strip(), maxsplit=1)[0]
