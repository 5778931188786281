"""The rehearsal: its commands exist and are all that a user runs, and faults are said."""

import json
from pathlib import Path

import pytest
import torch
from every_command import find_commands

from commands.command_line import parse_config
from commands.errors import InputError
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from data_manifests.manifest import read_manifest, read_utterance_audio
from gemma4.memory_plan import GIB, LIBRARIES
from pipeline import rehearse
from pipeline.rehearsal import RehearsalFolders, planned_memory, rehearsal_steps
from pipeline.rehearsal_corpus import write_corpus
from pipeline.steps import Step, read_steps
from tests.attacks.settings import config_class_of

CPU = torch.device("cpu")
# Commands of a user that are not rehearsed.
NOT_REHEARSED = {
    "data_manifests.build": "reads corpora that the user has",
    "data_manifests.phonemes": "reads a text",
    "data_manifests.score": "reads two texts",
    "data_manifests.degrade": "writes recordings, and loads no model",
    "data_manifests.spell_numbers": "reads a text",
    "data_manifests.subset": "copies rows of a manifest",
    "stage2_speechless.build_text": "reads texts that the user has, and loads no model",
    "speech_head.synthesize": "speaks as speech_head.evaluate does, which is rehearsed",
    "stage3_finetune.evaluate_noise": "asks as stage3_finetune.evaluate does, which is rehearsed",
    "stage3_finetune.transcribe": "hears as stage3_finetune.chat does, which is rehearsed",
    "pipeline.rehearse": "is the rehearsal",
    "pipeline.plan": "runs none of a user's models; it counts",
    "pipeline.run": "runs other commands",
    "pipeline.hours_curve": "runs other commands",
    "pipeline.join_parts": "loads nothing; it moves what other commands wrote",
    "pipeline.compare_precision": "holds several copies; run it once something is trained",
    "pipeline.publish": "copies what was trained, and tries the copies itself",
    "voice_chat.serve": "does not end; voice_chat.chat loads and answers the same way",
    "voice_chat.talk": "needs the extra `live`; voice_chat.chat loads and answers the same way",
}


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    out = tmp_path_factory.mktemp("rehearsal")
    folders = RehearsalFolders(out, str(out / "gemma"), str(out / "mimi"), out / "corpus")
    return rehearsal_steps(
        folders, size="E2B", codebook_size=64, question="Wo din de sɛn?", recording="a b.wav",
        device="cpu", dtype="bfloat16",
    )  # fmt: skip


def test_every_command_line_is_understood(steps):
    for step in steps:
        parse_config(config_class_of(step.command), list(step.words))


def test_every_command_of_a_user_is_rehearsed(steps):
    commands = {c for c in find_commands() if not c.startswith(("demo.", "benchmarks."))}
    assert commands - {step.command for step in steps} == NOT_REHEARSED.keys()


def test_values_may_hold_spaces(steps):
    [step] = read_steps("a b.c --x {x}\n   --out {o}", {"x": "one two", "o": "runs/a"})
    assert step == Step("a", "b.c", ("--x", "one two", "--out", "runs/a"))
    assert step.line == "python -m b.c --x 'one two' --out runs/a"
    assert str(step.out) == "runs/a" and step.value_of("--y") == ""
    [step] = read_steps("a b.c --x 1 < {o}/d.txt", {"o": "runs/a"})
    assert step.words == ("--x", "1") and step.line == "python -m b.c --x 1 < runs/a/d.txt"


def test_the_corpus_is_whole(tmp_path):
    write_corpus(tmp_path, minutes=0.5)
    texts = set()
    for split in ("train", "dev"):
        for utterance in read_manifest(tmp_path / f"{split}.jsonl"):
            waveform = read_utterance_audio(utterance, GEMMA_SAMPLE_RATE_HZ)
            assert abs(len(waveform) / GEMMA_SAMPLE_RATE_HZ - utterance.duration_s) < 0.01
            assert 0.01 < abs(waveform).max() < 1 and utterance.text not in texts
            texts.add(utterance.text)
    assert len(texts) == 19


def test_a_corpus_in_a_relative_folder_is_found(tmp_path, monkeypatch):
    """As `make rehearse` names it; a manifest's paths are relative to the manifest."""
    monkeypatch.chdir(tmp_path)
    write_corpus(Path("runs/made"), minutes=0.5)
    write_corpus(Path("runs/given"), minutes=0.3, manifest=Path("runs/made/train.jsonl"))
    for name in ("made", "given"):
        for utterance in read_manifest(Path("runs", name, "dev.jsonl")):
            assert len(read_utterance_audio(utterance, GEMMA_SAMPLE_RATE_HZ))
        heard = Path("runs", name, "typed.txt").read_text().splitlines()[1]
        assert Path(heard).is_file()


def test_given_recordings_are_used(tmp_path):
    write_corpus(tmp_path / "a", minutes=0.5)
    manifest = tmp_path / "a" / "train.jsonl"
    write_corpus(tmp_path / "b", minutes=0.3, manifest=manifest)
    used = [u for s in ("dev", "train") for u in read_manifest(tmp_path / "b" / f"{s}.jsonl")]
    assert [u.id for u in used] == [u.id for u in read_manifest(manifest)][: len(used)]
    with pytest.raises(InputError, match="2 transcribed recordings, the rehearsal needs 12"):
        short = tmp_path / "short.jsonl"
        short.write_text("".join(manifest.read_text(encoding="utf-8").splitlines(True)[:2]))
        write_corpus(tmp_path / "c", minutes=1, manifest=short)


def test_the_plan_counts_the_models_that_a_command_loads(tiny_models):
    def step(command, *words):
        return Step("", command, words)

    gemma, mimi = ("--gemma", str(tiny_models / "gemma")), ("--mimi", str(tiny_models / "mimi"))
    nothing = planned_memory(step("stage1_rvq.train"), 2)
    assert nothing == LIBRARIES == planned_memory(step("a.b", "--gemma", "not/there"), 2)
    hears = planned_memory(step("stage1_rvq.embed", *gemma), 2)
    answers = planned_memory(step("stage3_finetune.chat", *gemma), 2)
    speaks = planned_memory(step("speech_head.speak", *gemma, *mimi), 2)
    checks = planned_memory(step("pipeline.preflight", *gemma), 2)
    assert nothing < hears < answers < speaks and checks == answers + hears - nothing
    assert planned_memory(step("stage3_finetune.chat", *gemma), 4) - nothing == 2 * (
        answers - nothing
    )


def run_rehearsal(tmp_path, run, capsys):
    with pytest.raises(SystemExit) as ended:
        rehearse.main(
            ["--size", "tiny", "--device", "cpu", "--out", str(tmp_path), "--minutes", "0.5"],
            run=run,
        )
    return ended.value.code, capsys.readouterr().out


def test_a_table_and_exit_code_0_where_all_is_well(tmp_path, capsys):
    tried = []

    def run(words, log, typed):
        tried.append(words[0])
        log.write_text("fine\n")
        return 0, GIB

    code, out = run_rehearsal(tmp_path, run, capsys)
    assert code == 0 and f"{len(tried)} of {len(tried)} commands passed" in out
    assert all(f"\n{command}" in out for command in tried)
    run_rehearsal(tmp_path, run, capsys)
    assert len(set(tried)) <= len(tried) and tried.count("gemma4.draw_checkpoint") == 1
    with pytest.raises(InputError, match="begun with other settings"):
        rehearse.main(["--out", str(tmp_path)], run=run)


def test_what_is_wrong_is_said_and_tried_again(tmp_path, capsys):
    broken = {
        "stage1_rvq.embed": "exit code 2: no such file",
        "stage1_rvq.train": "metrics.jsonl holds a number that is not finite",
        "stage2_speechless.train": "took more memory than planned",
    }
    tried = []

    def run(words, log, typed):
        command, out = words[0], words[-1]
        tried.append(command)
        log.write_text("loading\nno such file\n")
        if command == "stage1_rvq.train" and command in broken:
            folder = tmp_path / "rvq"
            folder.mkdir(exist_ok=True)
            (folder / "metrics.jsonl").write_text(json.dumps({"loss": float("nan")}) + "\n")
            assert out == str(folder)
        if command == "stage2_speechless.train" and command in broken:
            return 0, 100 * GIB
        return 2 if command == "stage1_rvq.embed" and command in broken else 0, GIB

    code, out = run_rehearsal(tmp_path, run, capsys)
    assert code == 1 and all(fault in out for fault in broken.values())
    (tmp_path / "rvq" / "metrics.jsonl").unlink()
    broken.clear()
    tried.clear()
    code, out = run_rehearsal(tmp_path, run, capsys)
    assert code == 0 and set(tried) == {
        "stage1_rvq.embed", "stage1_rvq.train", "stage2_speechless.train"
    }  # fmt: skip


def test_a_process_is_measured(tmp_path):
    code, peak = rehearse.run_process(["platform"], tmp_path / "log")
    # Its own memory, not that of the process which started it.
    assert code == 0 and 5e6 < peak < 1e8 and (tmp_path / "log").read_text().strip()
    (tmp_path / "typed").write_text("import sys; sys.exit(7)")
    code, _ = rehearse.run_process(["code", "-q"], tmp_path / "log", tmp_path / "typed")
    assert code == 7
    code, _ = rehearse.run_process(["data_manifests.check", "--nonsense"], tmp_path / "log")
    assert code == 2
