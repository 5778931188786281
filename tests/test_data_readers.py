"""Readers of rows, lines and tables: whatever stands in a file, they read it, or say in one line
what is wrong and where; what is written reads back equal."""

import json
from pathlib import Path

import pytest
from conftest import run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commands.errors import InputError
from commands.json_files import read_json, read_json_lines, read_lines
from commands.schema import check_json, parse_json
from data_manifests.corpora.delimited_table import read_delimited_table
from data_manifests.language import language
from data_manifests.manifest import (
    SPLITS,
    Utterance,
    format_row,
    read_manifest,
    write_manifest,
)
from stage1_rvq import embed
from stage1_rvq.data import EmbeddingFolder
from tests.attacks.audio import write_recordings
from tests.attacks.manifests import good_rows
from tests.attacks.mutations import NASTY_JSON, mutate, row_text

FIELDS = tuple(field for field in Utterance.__dataclass_fields__)
QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(str.strip)
utterances = st.builds(
    Utterance,
    id=names,
    audio=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60)
    .map(lambda path: str(Path(f"/{path}"))),
    text=names,
    duration_s=st.floats(0.001, 86_400),
    speaker=names,
    dialect=st.sampled_from(language().all_dialects),
    corpus=names,
    split=st.sampled_from(SPLITS),
    license=st.text(st.characters(codec="utf-8"), max_size=40),
    start_s=st.none() | st.floats(0, 86_400),
    sample_rate_hz=st.none() | st.integers(1, 1_000_000),
    dialect_guess=st.none() | st.sampled_from(language().all_dialects),
)  # fmt: skip


def refused_in_one_line(error: InputError, where: str) -> bool:
    return str(error).startswith(where) and "\n" not in str(error) and len(str(error)) < 500


@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), json_values, max_size=3))
@QUICK
def test_any_object_is_a_row_or_one_line(tmp_path, changes):
    """Any values in place of those of a good row, and any keys beside them."""
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({**good_rows()[0], **changes}) + "\n", encoding="utf-8")
    try:
        (utterance,) = read_manifest(path)
    except InputError as error:
        assert refused_in_one_line(error, f"{path}:1: "), error
    else:
        assert utterance.id and 0 < utterance.duration_s < float("inf")
        check_json(format_row(utterance), Utterance, where="what is written again")


@pytest.mark.parametrize("field", FIELDS)
def test_nasty_values_are_a_row_or_one_line(tmp_path, field):
    path = tmp_path / "m.jsonl"
    for nasty in NASTY_JSON:
        path.write_text(
            row_text(good_rows()[0]) + "\n" + row_text(good_rows()[1], **{field: nasty}) + "\n",
            encoding="utf-8",
        )
        try:
            assert len(list(read_manifest(path))) == 2
        except InputError as error:
            assert refused_in_one_line(error, f"{path}:2: "), error


@given(st.lists(utterances, min_size=1, max_size=4, unique_by=lambda u: u.id))
@QUICK
def test_what_is_written_reads_back_equal(tmp_path, written):
    path = tmp_path / "m.jsonl"
    write_manifest(path, written)
    assert list(read_manifest(path)) == written


damaged_rows = st.randoms().map(lambda rng: mutate(b'{"a": "\xc9\x9b"}\n' * 3, rng))


@given(st.binary(max_size=200) | damaged_rows)
@QUICK
def test_any_bytes_are_lines_or_one_line(tmp_path, content):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    try:
        read = [(int(where.rpartition(":")[2]), line) for where, line in read_lines(path)]
    except InputError as error:
        assert refused_in_one_line(error, f"{path}: "), error
    else:
        there = enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1)
        expected = [(number, line) for number, line in there if line.strip()]
        assert [(number, line.removesuffix(b"\n")) for number, line in read] == expected
    for read in (read_json, read_json_lines):
        try:
            read(path)
        except InputError as error:
            assert refused_in_one_line(error, str(path)), error


@given(st.lists(st.dictionaries(st.text(max_size=9), json_values, max_size=4), max_size=4))
@QUICK
def test_json_lines_read_back_equal(tmp_path, rows):
    path = tmp_path / "x.jsonl"
    content = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(content, encoding="utf-8")
    try:
        read = read_json_lines(path)
    except InputError as error:
        assert "surrogate" in str(error) or "is not a number in JSON" in str(error)
    else:
        assert json.dumps(read) == json.dumps(rows)


cells = st.text(st.characters(codec="utf-8", exclude_characters='"\t\r\n'), max_size=12)


@given(
    st.lists(st.lists(cells, min_size=2, max_size=4), min_size=1, max_size=4),
    st.booleans(), st.booleans(),
)  # fmt: skip
@QUICK
def test_tables_read_back_equal(rows, row_per_line, quoted):
    """Every row of as many cells as the header is read, others are named; nothing is lost."""
    lines = ["one\ttwo\tthree", *("\t".join(row) for row in rows)]
    content = "\n".join(lines).encode()
    table = read_delimited_table(content, "x.tsv", row_per_line=row_per_line, quoted=quoted)
    expected = [[cell.strip() for cell in row] for row in rows if any(row)]
    assert [list((row.cells or {}).values()) for row in table.rows] == [
        row if len(row) == 3 else [] for row in expected
    ]


@given(st.binary(max_size=100) | st.randoms().map(lambda rng: mutate(b'a,b\n"x\ny",z\n1,2\n', rng)))
@QUICK
def test_any_bytes_are_a_table_or_one_line(content):
    for row_per_line in (True, False):
        try:
            table = read_delimited_table(content, "x.csv", row_per_line=row_per_line)
            assert len(table.columns) > 1
        except InputError as error:
            assert refused_in_one_line(error, "x.csv:"), error


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b,a\n1,2,3\n", "column 'a' is repeated"),
        (b",,\n,,\n", "expected a header of several columns"),
        (b'a,b\n"x,y\n1,2\n3,4\n', "unexpected end of data"),
    ],
)
def test_tables_that_would_lose_rows_are_refused(content, message):
    with pytest.raises(InputError, match=message):
        read_delimited_table(content, "x.csv", row_per_line=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 1}}', "the key 'c' is repeated"),
        ('{"a": ' + "9" * 5000 + "}", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"a": "\\ud800"}', "surrogate"),
        ("{'a': 1}", "not valid JSON"),
    ],
)
def test_json_that_python_would_take_or_break_at(text, message):
    with pytest.raises(InputError, match=message) as caught:
        parse_json(text.encode(), where="x:1")
    assert refused_in_one_line(caught.value, "x:1: ")


def test_a_key_there_twice_is_refused_in_a_manifest(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text(row_text(good_rows()[0])[:-1] + ', "text": "Other words."}\n')
    with pytest.raises(InputError, match=r"m.jsonl:1: not valid JSON: the key 'text' is repeated"):
        list(read_manifest(path))


SEPARATED = ("Me\u2028din", "Wo\u2029ho", "Meda\x85ase", "Kofi \x0ckɔ\x1c")


def write_separated(folder: Path) -> Path:
    """A manifest whose texts hold what `str.splitlines` takes for line ends."""
    write_recordings(folder)
    rows = [{**row, "text": text} for row, text in zip(good_rows(), SEPARATED, strict=True)]
    path = folder / "m.jsonl"
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    return path


def test_line_separators_in_texts_survive_embedding(tmp_path, tiny_models):
    manifest = write_separated(tmp_path)
    run(embed.main, "--manifest", manifest, "--gemma", tiny_models / "gemma", "--out",
        tmp_path / "out", "--device", "cpu")  # fmt: skip
    assert tuple(u.text for u in EmbeddingFolder(tmp_path / "out").utterances) == SEPARATED


def test_line_separators_in_texts_survive_states(tmp_path, head_world):
    from head_world import CPU

    from speech_head import states
    from speech_head.data import StatesFolder

    world = head_world
    run(states.main, "--manifest", write_separated(tmp_path), "--gemma", world / "gemma", "--mimi",
        world / "mimi", "--recognizer", world / "recognizer", "--out", tmp_path / "out",
        *CPU)  # fmt: skip
    texts = [u.text for u in StatesFolder(tmp_path / "out").utterances]
    assert texts and set(texts) <= set(SEPARATED)
