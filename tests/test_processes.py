"""Several processes are one run: the losses, the weights and the checkpoints of a single one.

Each training runs in one process with batches of 2 B, in two with batches of B, and is resumed the
other way round. Fine-tuning also runs with Gemma's weights sharded (FSDP2).
"""

import json
import shutil
import socket

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from conftest import ROOT, run
from finetune_run import write_dialogues
from safetensors.torch import load_file

from commands.atomic_write import write_json
from commands.checkpoint import list_checkpoints
from commands.errors import InputError
from commands.json_files import read_json, read_json_lines
from commands.launchers import join_processes
from commands.processes import Processes
from commands.resumed_settings import refuse_other_settings
from speech_head import train as head_train
from stage1_rvq import tokenize_corpus
from stage1_rvq import train as rvq_train
from stage3_finetune import train as finetune_train

CPU = ("--device", "cpu")
SHORT = ("--steps", 4, "--save-every", 2, "--warmup-steps", 1, "--seed", 1, *CPU)
SMALL = (
    "--width", 32, "--num-layers", 2, "--num-heads", 2, "--depth-width", 32, "--depth-layers", 1,
    "--depth-heads", 2, "--learning-rate", 0.01,
)  # fmt: skip
# Training, and the flags that count per process.
BATCHES = {
    "rvq": ("--batch-frames", 64),
    "task": ("--batch-frames", 64, "--task-utterances", 2),
    "recognizer": ("--batch-size", 4),
    "speechless": ("--batch-size", 4),
    "head": ("--batch-size", 4),
    "parallel": ("--batch-size", 4),
    "finetune": ("--batch-size", 4, "--accumulate", 1),
}
TRAININGS = tuple(BATCHES)
TWO_PASSES = ("--batch-size", 2, "--accumulate", 2)  # of fine-tuning: as many rows
# Numbers that are differences of nearly equal ones, or that rounding changes most.
LOOSE = {"grad_norm": 2e-3, "cosine_distance": 1e-3}
# On dev, means over batches of another size.
NOT_COMPARED = {("dev", "end"), ("dev", "gate")}


@pytest.fixture(scope="module")
def lines(head_world, tiny_models, tmp_path_factory):
    """Each training's command and words, but for the batch and --out."""
    folder = tmp_path_factory.mktemp("processes")
    embedded = ("--embeddings", head_world / "embedded")
    codebooks = ("--codebook-size", 15, "--num-codebooks", 3)
    run(rvq_train.main, *embedded, *codebooks, "--out", folder / "rvq", "--steps", 1, *CPU)
    run(tokenize_corpus.main, *embedded, "--rvq", folder / "rvq", "--out", folder / "codes", *CPU)
    # Codes die at once, so that they are replaced at every step.
    rvq = ("stage1_rvq.train", *embedded, "--dev-embeddings", head_world / "embedded", *codebooks,
           "--min-code-usage", 19.7)  # fmt: skip
    states = ("--states", head_world / "states")
    # Nine rows: an epoch's third batch of four holds one, and a process has none.
    (folder / "dialogues").mkdir()
    flags = [str(word) for word in write_dialogues(folder / "dialogues", tiny_models)]
    dialogues = tuple(flags[: flags.index("--lora-rank")])
    return {
        "rvq": rvq,
        "task": (*rvq, "--recognizer", head_world / "recognizer", "--learning-rate", 0.01),
        "recognizer": ("stage1_rvq.train_recognizer", *embedded, "--num-units", 64, "--width", 16,
                       "--learning-rate", 0.01),
        "speechless": ("stage2_speechless.train", "--codes", folder / "codes", "--dev-codes",
                       folder / "codes", "--dropout", 0, *SMALL),
        "head": ("speech_head.train", *states, "--dev-states", head_world / "states",
                 "--text-dropout", 0.3, "--voice-width", 8, *SMALL),
        "parallel": ("speech_head.train", "--architecture", "parallel", *states, *SMALL[:6],
                     "--learning-rate", 0.01),
        "finetune": ("stage3_finetune.train", *dialogues, "--gemma", head_world / "gemma",
                     "--lora-rank", 2, "--lora-dropout", 0, "--transcribe-share", 0,
                     "--typed-share", 0.1, "--learning-rate", 0.001),
    }  # fmt: skip


def per_process(name, num_processes):
    """The flags of the batch, for so many processes; fine-tuning also accumulates."""
    flags = dict(zip(BATCHES[name][::2], BATCHES[name][1::2], strict=True))
    shared = {flag: size // num_processes for flag, size in flags.items() if size > 1}
    return [word for pair in (flags | shared).items() for word in pair]


def plan(folder, lines, **more):
    """Write what `tests.run_trainings` is to do."""
    path = folder / "plan.json"
    words = [[str(word) for word in line] for line in lines]
    path.write_text(json.dumps({"lines": words, **more}), encoding="utf-8")
    return path


def train_alone(forks, folder, lines):
    ended = forks.run("tests.run_trainings", plan(folder, lines), folder=folder)
    assert ended.returncode == 0, ended.stderr
    return ended


def train_together(forks, folder, lines, codes=(0, 0), variables=None, **more):
    """As torchrun starts them: the same command, with numbers in the environment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    together = {
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", **(variables or {}),
    }  # fmt: skip
    ended = forks.run_together(
        "tests.run_trainings", plan(folder, lines, **more), folder=folder,
        environments=[{**together, "RANK": str(n), "LOCAL_RANK": str(n)} for n in (0, 1)],
    )  # fmt: skip
    assert tuple(each.returncode for each in ended) == codes, ended[0].stderr + ended[1].stderr
    return ended


def cut(finished, to):
    """What a run left that was killed before its last step."""
    shutil.copytree(finished, to)
    shutil.rmtree(list_checkpoints(to)[-1])
    shutil.rmtree(to / "adapter", ignore_errors=True)
    (to / "done").unlink()
    return to


def fsdp_variables():
    """What accelerate's launcher sets for the configuration that is shipped."""
    words = ["--config_file", str(ROOT / "stage3_finetune" / "fsdp.yaml"), "-m", "a_module"]
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(words))
    variables = prepare_multi_gpu_env(arguments)
    names = ("ACCELERATE_USE_FSDP", "ACCELERATE_MIXED_PRECISION")
    return {k: v for k, v in variables.items() if k in names or k.startswith("FSDP_")}


@pytest.fixture(scope="module")
def runs(forks, lines, tmp_path_factory):
    """Every training: alone, together, and each of the two resumed as the other. Fine-tuning also
    with sharded weights, and resumed as that and from that."""
    folder = tmp_path_factory.mktemp("runs")

    def words(name, num_processes, out, *more):
        batch = per_process(name, num_processes)
        return [*lines[name], *batch, *SHORT, "--out", folder / f"{out}-{name}", *more]

    train_alone(forks, folder, [words(name, 1, "alone") for name in TRAININGS])
    for name in TRAININGS:
        cut(folder / f"alone-{name}", folder / f"then_together-{name}")
    together = [words(name, 2, "together") for name in TRAININGS]
    resumed = [words(name, 2, "then_together", "--resume") for name in TRAININGS]
    *resumed, finetune = resumed
    train_together(forks, folder, [*together, *resumed])
    sharded = [words("finetune", 2, "sharded"), finetune]
    train_together(forks, folder, sharded, variables=fsdp_variables())
    for name in TRAININGS[:-1]:
        cut(folder / f"together-{name}", folder / f"then_alone-{name}")
    cut(folder / "sharded-finetune", folder / "then_alone-finetune")
    passes = {"finetune": TWO_PASSES}
    train_alone(
        forks, folder,
        [words(name, 1, "then_alone", "--resume", *passes.get(name, ())) for name in TRAININGS],
    )  # fmt: skip
    return folder


def assert_same(found, expected):
    """Logs and weights are the same but for rounding."""
    rows, wanted = (list(read_json_lines(run / "metrics.jsonl")) for run in (found, expected))
    assert [(r["step"], r["split"]) for r in rows] == [(r["step"], r["split"]) for r in wanted]
    for row, true in zip(rows, wanted, strict=True):
        assert row.keys() == true.keys()
        for name in row.keys() - {"step", "split"}:
            if (row["split"], name) not in NOT_COMPARED:
                limit = LOOSE.get(name, 5e-5)
                assert row[name] == pytest.approx(true[name], rel=limit, abs=1e-9), (name, true)
    is_adapter = (expected / "adapter").is_dir()
    path = "adapter/adapter_model.safetensors" if is_adapter else "model/model.safetensors"
    weights, true_weights = load_file(found / path), load_file(expected / path)
    assert weights.keys() == true_weights.keys()
    for name, weight in weights.items():
        if weight.is_floating_point():
            error = torch.linalg.vector_norm(weight - true_weights[name])
            # A gradient of nothing but rounding moves a weight by a learning rate.
            assert error <= 0.02 * torch.linalg.vector_norm(true_weights[name]) + 0.05, name


@pytest.mark.parametrize("name", TRAININGS)
def test_two_processes_train_as_one(runs, name):
    assert_same(runs / f"together-{name}", runs / f"alone-{name}")


@pytest.mark.parametrize("name", TRAININGS)
def test_a_run_is_resumed_by_another_number_of_processes(runs, name):
    for how in ("then_together", "then_alone"):
        assert_same(runs / f"{how}-{name}", runs / f"alone-{name}")
    provenance = read_json(runs / f"then_together-{name}" / "provenance.json")
    assert provenance["num_processes"] == 1
    assert provenance["resumed_on"][0]["num_processes"] == 2


def test_sharded_weights_learn_the_same(runs):
    assert_same(runs / "sharded-finetune", runs / "alone-finetune")
    assert read_json(runs / "sharded-finetune" / "provenance.json")["is_sharded"]
    files = [
        {path.name for path in list_checkpoints(runs / f"{how}-finetune")[-1].iterdir()}
        for how in ("sharded", "together", "alone")
    ]
    assert files[0] == files[1]
    assert files[0] - {"rng_state_0.pth", "rng_state_1.pth"} == files[2] - {"rng_state.pth"}


def head_line(lines, out, *more):
    return [*lines["head"], *per_process("head", 2), *SHORT, "--out", out, *more]


def test_a_number_that_is_not_finite_in_one_process_ends_all(forks, lines, tmp_path):
    line = head_line(lines, tmp_path / "run")
    ended = train_together(forks, tmp_path, [line], codes=(2, 2), spoil="nan")
    for each in ended:
        assert "error: step 3: loss is nan (batch: " in each.stderr
        assert "Traceback" not in each.stderr
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["step_000002"]


@pytest.mark.parametrize(("how", "codes"), [("error", (1, 2)), ("interrupt", (130, 130))])
def test_a_process_that_ends_ends_the_others(forks, lines, tmp_path, how, codes):
    line = head_line(lines, tmp_path / "run")
    ended = train_together(forks, tmp_path, [line], codes=codes, spoil=how)
    assert not any("Traceback" in each.stderr for each in ended), ended
    if how == "error":
        assert "process 0: another process of this run has ended" in ended[0].stderr


def test_a_refused_folder_ends_all(forks, lines, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").write_text("not a run")
    ended = train_together(forks, tmp_path, [head_line(lines, tmp_path / "run")], codes=(2, 1))
    assert "was not made by this command" in ended[0].stderr
    assert "process 1: another process of this run has ended" in ended[1].stderr


def test_batches_of_another_size_are_refused(tmp_path, monkeypatch):
    write_json(tmp_path / "config.json", {"batch_size": 8, "accumulate": 2, "seed": 0})

    def resume(num_processes, batch_size, accumulate, **more):
        monkeypatch.setenv("WORLD_SIZE", str(num_processes))
        settings = {"batch_size": batch_size, "accumulate": accumulate, "seed": 0, **more}
        refuse_other_settings(tmp_path, settings, [("batch_size", "accumulate")], begun_with=1)

    for fitting in ((1, 8, 2), (2, 4, 2), (2, 8, 1), (4, 1, 4), (16, 1, 1)):
        resume(*fitting)
    with pytest.raises(InputError, match="made with seed = 0, now 1"):
        resume(2, 4, 2, seed=1)
    with pytest.raises(InputError, match="made with batch_size = 8, now 16"):
        resume(1, 16, 2)
    took = r"took 16 with --batch-size 8 and 1 process\(es\) when the run began; now there are "
    with pytest.raises(InputError, match=took + "2: --batch-size 4 makes it that again") as caught:
        resume(2, 8, 2)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=took + "3: that cannot be shared by 3 processes, start"):
        resume(3, 8, 2)


def test_idle_processes_are_refused():
    with pytest.raises(InputError, match="--states holds 3 usable utterances, fewer than the 4"):
        Processes(0, 4).refuse_idle(3, "--states")


@pytest.mark.parametrize(
    ("variables", "words", "message"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, (), "reentrant checkpointing, whose gradients are"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, (), "Megatron-LM: not supported"),
        ({"FSDP_VERSION": "1"}, (), "set fsdp_version: 2"),
        ({}, ("--quantize", "4bit"), "--quantize 4bit and FSDP do not go together"),
        ({}, ("--train-embed-audio",), "--train-embed-audio and FSDP do not go together"),
        ({"FSDP_ACTIVATION_CHECKPOINTING": "true"}, (), "fsdp_activation_checkpointing .* false"),
        ({"FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}, (), "fsdp_cpu_ram_efficient_loading .* false"),
        ({"FSDP_OFFLOAD_PARAMS": "true"}, (), "fsdp_offload_params .* false"),
    ],
)
def test_what_fine_tuning_cannot_do_is_refused(
    lines, tmp_path, monkeypatch, variables, words, message
):
    for name, value in {**fsdp_variables(), **variables}.items():
        monkeypatch.setenv(name, value)
    out = tmp_path / "run"
    with pytest.raises(InputError, match=message) as caught:
        run(finetune_train.main, *lines["finetune"][1:], *words, *CPU, "--out", out)
    assert "\n" not in str(caught.value) and not out.exists()


def test_other_trainings_are_not_sharded(lines, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InputError, match="FSDP shards the model of stage3_finetune"):
        run(head_train.main, *head_line(lines, tmp_path / "run")[1:])
    with pytest.raises(InputError, match="FSDP shards"):
        join_processes(torch.device("cpu"))
