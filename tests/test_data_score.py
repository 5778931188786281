"""`python -m data_manifests.score`: table, JSON, per-utterance file, every error line."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from commands.errors import InputError
from data_manifests.error_rates import compute_error_rates
from data_manifests.score import main
from data_manifests.text_lines import read_lines
from data_manifests.text_rules import TextRules

REFERENCES = ["Ɛyɛ me dɛ.", "Mepa wo kyɛw", "Yɛrekɔ fie"]
HYPOTHESES = ["3y3 me d3", "mepa wo kyew", ""]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "references.txt", tmp_path / "hypotheses.txt"
    for path, lines in zip(paths, (REFERENCES, HYPOTHESES), strict=True):
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return paths


def flags(files: tuple[Path, Path], *more: str) -> list[str]:
    return ["--references", str(files[0]), "--hypotheses", str(files[1]), *more]


def test_table(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    main(flags(files))
    assert (
        capsys.readouterr().out == compute_error_rates(REFERENCES, HYPOTHESES).format_table() + "\n"
    )


def test_json(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    main(flags(files, "--json", "--no-normalize", "--seed", "3"))
    expected = compute_error_rates(REFERENCES, HYPOTHESES, rules=TextRules(normalize=False), seed=3)
    assert json.loads(capsys.readouterr().out) == expected.as_dict()


def test_per_utterance(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "utterances.jsonl"
    main(flags(files, "--json", "--per-utterance", str(out)))
    captured = capsys.readouterr()
    assert json.loads(captured.out)["num_utterances"] == 3
    assert captured.err == f"wrote {out}\n"
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["line"] for row in rows] == [1, 2, 3]
    assert [row["wer"] for row in rows] == pytest.approx([0, 1 / 3, 1])
    assert [row["cer"] for row in rows] == pytest.approx([0, 1 / 12, 1])
    assert rows[1]["reference"] == "mepa wo kyɛw"
    assert rows[1]["hypothesis"] == "mepa wo kyew"
    assert [row["deletions"] for row in rows] == [0, 0, 2]


def test_byte_order_mark_and_crlf_are_tolerated(files: tuple[Path, Path], tmp_path: Path) -> None:
    windows = tmp_path / "windows.txt"
    windows.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(REFERENCES).encode())
    assert read_lines(windows) == read_lines(files[0]) == REFERENCES


def test_only_line_feeds_end_a_line(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("Ama\u2028ba\x0cfie\n\nKofi\n\n", encoding="utf-8")
    assert read_lines(path) == ["Ama\u2028ba\x0cfie", "", "Kofi", ""]


def test_file_of_blank_lines_is_a_model_that_never_answered(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    files[1].write_text("\n\n\n", encoding="utf-8")
    main(flags(files, "--json"))
    rates = json.loads(capsys.readouterr().out)
    assert (rates["wer"], rates["num_empty_hypotheses"]) == (1.0, 3)


@pytest.mark.parametrize(
    ("hypotheses", "message"),
    [
        pytest.param(None, r"hypotheses.txt: No such file or directory", id="missing"),
        pytest.param(b"", r"hypotheses.txt: empty; expected one utterance a line", id="empty"),
        pytest.param(b"\xef\xbb\xbf", r"hypotheses.txt: empty", id="only-byte-order-mark"),
        pytest.param(
            b"a\nb\n", r"references.txt has 3 lines but .*hypotheses.txt has 2 lines: ", id="fewer"
        ),
        pytest.param(b"a\nb\nc\n\n\n", r"5 lines \(2 blank at the end\)", id="blank-at-the-end"),
        pytest.param(
            b"a\nk\xe9\nc\n",
            r"line 2 is not UTF-8 \(byte 0xe9\); save the file as UTF-8",
            id="latin-1",
        ),
        pytest.param(
            "a\nb\nc\n".encode("utf-16"), r"not UTF-8 \(UTF-16 or binary\); save it as", id="utf-16"
        ),
    ],
)
def test_error_lines(files: tuple[Path, Path], hypotheses: bytes | None, message: str) -> None:
    if hypotheses is None:
        files[1].unlink()
    else:
        files[1].write_bytes(hypotheses)
    with pytest.raises(InputError, match=message) as error:
        main(flags(files))
    assert "\n" not in str(error.value)


def test_references_without_a_word_are_refused(files: tuple[Path, Path]) -> None:
    files[0].write_text("...\n\n!\n", encoding="utf-8")
    with pytest.raises(InputError, match="no reference has a word in it after normalisation"):
        main(flags(files))


def test_folder_in_place_of_a_file_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Is a directory"):
        main(flags((files[0], tmp_path)))


def test_nothing_is_overwritten(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists already"):
        main(flags(files, "--per-utterance", str(files[0])))
    assert read_lines(files[0]) == REFERENCES
    with pytest.raises(InputError, match="cannot be written"):
        main(flags(files, "--per-utterance", str(files[0] / "below" / "u.jsonl")))


@pytest.mark.parametrize(
    ("argv", "message"),
    [([], "references"), (["--reference", "x", "--hypotheses", "y"], "--references")],
)
def test_wrong_flags_are_one_line(argv: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        main(argv)


def test_command_exits_2_with_one_line(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files[1].unlink()
    monkeypatch.setattr(sys, "argv", ["score", *flags(files)])
    monkeypatch.delitem(sys.modules, "data_manifests.score")
    with pytest.raises(SystemExit) as exit_:
        runpy.run_module("data_manifests.score", run_name="__main__")
    assert exit_.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"error: {files[1]}: No such file or directory\n"
