"""Corpora larger than memory: read from a copy on disk, they are what the Parquet files hold."""

import json
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from conftest import ROOT, run
from fork_server import Forks
from hypothesis import HealthCheck, given, settings

from commands import table_copies
from commands.cache_folder import FOLDER_VARIABLE
from commands.errors import InputError
from commands.json_files import read_json
from commands.mapped_tables import MappedTable
from commands.run_folder import run_folder
from data_manifests.hash_set import hash_text
from stage1_rvq.codes import CodedUtterance, code_format, read_codes, write_codes
from stage1_rvq.config import RVQConfig
from stage2_speechless import train
from stage2_speechless.corpus import open_corpus
from stage2_speechless.data import TokenBatches, TrainingUtterance
from stage2_speechless.vocabulary import Vocabulary
from tests.test_readers import damages

RVQ = RVQConfig(dim=8, num_codebooks=3, codebook_size=12)
FORMAT = code_format(RVQ)
TEXTS = ["Me din de Ama.", "Kofi", "...", "Yɛfrɛ me Akosua, na mewɔ Kumasi", "Ж"]
TINY = (
    "--width", 32, "--num-layers", 1, "--depth-width", 32, "--depth-layers", 1, "--batch-size", 4,
    "--warmup-steps", 1, "--steps", 3, "--device", "cpu",
)  # fmt: skip


@pytest.fixture(autouse=True)
def copies_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the corpora are here."""
    monkeypatch.setattr(table_copies, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(table_copies, "ROWS_PER_BATCH", 16)


def write_corpus(folder: Path, num: int = 60, first: int = 0) -> Path:
    """A finished codes folder of four files; some rows cannot be used."""
    generator = torch.Generator().manual_seed(first)
    rows = []
    for i in range(num):
        length = (5 * i) % 97 if i != 7 else 751
        codes_TK = torch.randint(12, (length, 3), generator=generator)
        text = TEXTS[i % len(TEXTS)]
        rows.append(CodedUtterance(f"ɛ{first + i}", text, "s", "asante", codes_TK))
    with run_folder(folder, RVQ, "stage1_rvq.tokenize_corpus"):
        for shard in range(4):
            path = folder / f"codes_{shard:05d}.parquet"
            write_codes(path, rows[shard * num // 4 : (shard + 1) * num // 4], FORMAT)
    return folder


def read_in_memory(folder: Path) -> list[TrainingUtterance]:
    """What a loop over the rows of the Parquet files gives."""
    vocabulary, kept = Vocabulary(), []
    for row in read_codes(folder):
        num_frames = len(row.codes_TK)
        if not 0 < num_frames <= 750 or row.text in ("...", "Ж"):
            continue
        rate_cps = len(vocabulary.spoken_characters(row.text)) * 25.0 / num_frames
        codes_TK = row.codes_TK.short()
        kept.append(TrainingUtterance(row.id, row.text, row.dialect, rate_cps, codes_TK))
    return kept


def facts(utterance: TrainingUtterance) -> tuple[object, ...]:
    return (*list(vars(utterance).values())[:4], utterance.codes_TK.tolist())


def copies_of(folder: Path) -> list[Path]:
    return sorted(folder.parent.glob(f"{folder.name}.*"))


def test_a_copy_holds_what_the_files_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_corpus(tmp_path / "train")
    wanted = read_in_memory(folder)
    corpus = open_corpus(folder, Vocabulary())
    assert [facts(u) for u in corpus.utterances] == [facts(u) for u in wanted]
    assert facts(corpus.utterances[-1]) == facts(wanted[-1])
    assert [u.id for u in corpus.utterances[3:9:2]] == [u.id for u in wanted[3:9:2]]
    with pytest.raises(IndexError):
        corpus.utterances[len(wanted)]
    assert corpus.utterances[0].codes_TK.dtype == torch.int16
    assert dict(corpus.left_out) == {
        "no frames": 1, "over 750 frames": 1, "text that cannot be spoken": 23,
    }  # fmt: skip
    assert corpus.num_frames_N.tolist() == [len(u.codes_TK) for u in wanted]
    rates = torch.tensor([u.rate_cps for u in wanted])
    assert corpus.rate_quantiles() == tuple(rates.quantile(torch.linspace(0.05, 0.95, 19)).tolist())
    monkeypatch.setattr(table_copies, "IN_MEMORY_BYTES", 10**9)
    in_memory = open_corpus(folder, Vocabulary())
    assert [facts(u) for u in in_memory.utterances] == [facts(u) for u in wanted]
    assert in_memory.left_out == corpus.left_out and in_memory.origins == corpus.origins


def test_a_copy_is_made_once_and_anew_for_other_codes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_corpus(tmp_path / "train")
    open_corpus(folder, Vocabulary())
    assert "copied to" in capsys.readouterr().err
    (copy,) = copies_of(folder)
    written = copy.stat().st_mtime_ns

    def no_filling(*_: object, **__: object) -> None:
        raise AssertionError("the copy is there")

    with monkeypatch.context() as patch:
        patch.setattr(table_copies, "_fill", no_filling)
        open_corpus(folder, Vocabulary())
    assert copy.stat().st_mtime_ns == written

    # Another vocabulary leaves out other texts: another copy, in place of this one.
    fewer = open_corpus(folder, Vocabulary(characters=" abcdefghijklmnopqrstuvwxyz"))
    assert fewer.left_out["text that cannot be spoken"] > 23
    (other,) = copies_of(folder)
    assert other != copy

    for path in folder.iterdir():
        path.unlink()
    write_corpus(folder, first=100)
    assert open_corpus(folder, Vocabulary()).utterances[0].id.startswith("ɛ10")
    assert len(copies_of(folder)) == 1

    # A folder without `done`: its files' contents and times count.
    plain = tmp_path / "plain"
    plain.mkdir()
    rows = list(read_codes(folder))
    write_codes(plain / "x.parquet", rows, FORMAT)
    before = open_corpus(plain, Vocabulary())
    write_codes(plain / "x.parquet", rows[::-1], FORMAT)
    after = open_corpus(plain, Vocabulary())
    assert [u.id for u in after.utterances] == [u.id for u in before.utterances][::-1]
    assert len(copies_of(plain)) == 1


def test_an_interrupted_copy_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_corpus(tmp_path / "train")
    write = table_copies.TableWriter.write
    num_written = iter(range(9))

    def interrupt(self: table_copies.TableWriter, columns: list[pyarrow.Array]) -> None:
        write(self, columns)
        if next(num_written) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(table_copies.TableWriter, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            open_corpus(folder, Vocabulary())
    assert not copies_of(folder)
    # What a killed process leaves is written over.
    open_corpus(folder, Vocabulary())
    (copy,) = copies_of(folder)
    content = copy.read_bytes()
    copy.unlink()
    copy.with_name(copy.name + ".tmp").write_bytes(b"half" * 100_000)
    open_corpus(folder, Vocabulary())
    assert copies_of(folder) == [copy] and copy.read_bytes() == content


def test_of_several_processes_one_writes_the_copy(forks: Forks, tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "train")
    num_utterances = str(len(read_in_memory(folder)))
    process = forks.run("tests.shared_copy", folder, folder=ROOT)
    assert process.returncode == 0, process.stderr
    waited, later = map(json.loads, process.stdout.splitlines())
    assert waited["code"] == 0 and waited["stdout"].split()[-1] == num_utterances, waited
    assert "copied to" in waited["stderr"] and len(copies_of(folder)) == 1
    assert later["code"] == 0 and later["stdout"] == f"{num_utterances}\n", later


def test_the_folder_for_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_corpus(tmp_path / "train")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "scratch" / "copies"))
    open_corpus(folder, Vocabulary())
    assert len(list((tmp_path / "scratch" / "copies").iterdir())) == 1
    assert copies_of(folder) == []
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(InputError, match=f"cannot be written .*in {FOLDER_VARIABLE}") as caught:
        open_corpus(folder, Vocabulary())
    assert "\n" not in str(caught.value)


@settings(
    max_examples=60, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(damage=damages())
def test_a_damaged_copy_is_refused_or_within_its_codebooks(tmp_path: Path, damage) -> None:
    folder = tmp_path / "train"
    if not folder.exists():
        write_corpus(folder)
        open_corpus(folder, Vocabulary())
    (copy,) = copies_of(folder)
    content = copy.read_bytes()
    try:
        copy.write_bytes(damage(content))
        for utterance in list(open_corpus(folder, Vocabulary()).utterances):
            assert 0 <= utterance.codes_TK.min() <= utterance.codes_TK.max() < 12
    except InputError as error:
        assert "\n" not in str(error) and str(copy) in str(error), error
    finally:
        copy.write_bytes(content)


def test_refused_corpora_leave_no_copy(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "train")
    rows = list(read_codes(folder))
    for path in folder.iterdir():
        path.unlink()
    plain = {
        "twice": ([*rows, rows[3]], "id 'ɛ3' is used twice"),
        "large": ([*rows, CodedUtterance("x", "a", "s", "asante", torch.full((2, 3), 12))],
                  "codes from 0 to 12, codebooks have 0 to 11"),
    }  # fmt: skip
    for name, (damaged, message) in plain.items():
        (tmp_path / name).mkdir()
        write_codes(tmp_path / name / "x.parquet", damaged, FORMAT)
        with pytest.raises(InputError, match=message):
            open_corpus(tmp_path / name, Vocabulary())
        assert copies_of(tmp_path / name) == []


def test_files_are_compared_with_done_when_they_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("commands.finished_folder.MAX_BYTES_COMPARED", 0)
    folder = write_corpus(tmp_path / "train")
    write_codes(folder / "other.parquet", list(read_codes(folder / "codes_00001.parquet")), FORMAT)
    content = bytearray((folder / "codes_00001.parquet").read_bytes())
    content[40] ^= 1
    (folder / "codes_00001.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"codes_00001.parquet is not what was written"):
        open_corpus(folder, Vocabulary())


def test_training_from_a_copy_equals_training_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_corpus(tmp_path / "train")
    words = ("--codes", folder, *TINY)
    run(train.main, *words, "--out", tmp_path / "mapped")
    monkeypatch.setattr(table_copies, "IN_MEMORY_BYTES", 10**9)
    run(train.main, *words, "--out", tmp_path / "memory")
    names = ("metrics.jsonl", "model/model.safetensors", "model/config.json")
    for name in names:
        assert (tmp_path / "mapped" / name).read_bytes() == (
            tmp_path / "memory" / name
        ).read_bytes()
    left_out = [
        read_json(tmp_path / name / "provenance.json")["num_left_out"]
        for name in ("mapped", "memory")
    ]
    assert left_out[0] == left_out[1] and sum(left_out[0].values()) == 25


def test_training_by_tokens(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "train")
    words = ("--codes", folder, *TINY, "--save-every", 2)
    run(train.main, *words, "--batch-tokens", 300, "--out", tmp_path / "run")
    rows = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(row)["step"] for row in rows] == [1, 2, 3]
    with pytest.raises(InputError, match="--batch-tokens 50: the longest utterance takes"):
        run(train.main, *words, "--batch-tokens", 50, "--out", tmp_path / "short")


@pytest.mark.parametrize("num_processes", [1, 3])
def test_batches_are_limited_by_tokens(num_processes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(20, 750, (3000,), generator=generator).numpy().astype(np.int32)
    batches = TokenBatches(lengths, 4000, 0, num_processes=num_processes, flag="--batch-tokens")
    epoch = []
    while not epoch or len(batches._first_steps) == 2:
        epoch.append(batches.at_step(len(epoch)))
    last = epoch.pop()
    taken = torch.cat(epoch).tolist()
    assert len(set(taken)) == len(taken) and len(taken) >= 3000 - 3 * num_processes
    if num_processes == 1:
        assert sorted(taken) == list(range(3000))
    padded = 0
    for batch in epoch:
        parts = [batch[rank::num_processes] for rank in range(num_processes)]
        assert len({len(part) for part in parts}) == 1
        for part in parts:
            assert len(part) * lengths[part.numpy()].max() <= 4000
            padded += len(part) * int(lengths[part.numpy()].max())
    assert padded < 1.06 * lengths[taken].sum()
    assert 3000 / len(epoch) > 0.85 * num_processes * 4000 / lengths.mean()  # they are full
    # A pure function of seed and step, in whatever order it is asked.
    again = TokenBatches(lengths, 4000, 0, num_processes=num_processes, flag="--batch-tokens")
    assert torch.equal(again.at_step(len(epoch)), last)
    assert torch.equal(again.at_step(2), epoch[2])
    assert not torch.equal(epoch[0].sort().values, last.sort().values)


def test_columns_of_a_table() -> None:
    schema = pyarrow.schema([("id", pyarrow.string()), ("n", pyarrow.int32())])
    batches = [
        pyarrow.record_batch([["a", "", "ɛɔ"], [1, 2, 3]], schema=schema),
        pyarrow.record_batch([[], []], schema=schema),
        pyarrow.record_batch([["b"], [4]], schema=schema),
    ]
    table = MappedTable(batches, "{}", where="x")
    assert list(table.texts("id")) == ["a", "", "ɛɔ", "b"]
    assert table.numbers("n", low=1).tolist() == [1, 2, 3, 4]
    assert [table.row(i) for i in (2, 3)] == [{"id": "ɛɔ", "n": 3}, {"id": "b", "n": 4}]
    hashes = table_copies.hash_ids(table).tolist()
    assert hashes == [hash_text(id_) for id_ in ("a", "", "ɛɔ", "b")]
    assert len(MappedTable([], "{}", where="x")) == 0
