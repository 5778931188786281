"""Models, codes and caches, damaged file by file, given to every command that reads them.

Half of the damaged run folders are sealed again, with a `done` that lists the files as they are
now: otherwise its hashes would answer for every reader.
"""

import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from safetensors import safe_open

from commands.run_folder import OutputFolder
from tests.attacks.damage import Damage, damages_of, swap_with
from tests.attacks.harness import Case

KIND = "checkpoints"
CPU = ("--device", "cpu")
SHORT = ("--steps", "4", "--save-every", "2", "--warmup-steps", "1", *CPU)
SMALL = ("--width", "32", "--num-layers", "1", "--num-heads", "2")
DEPTH = ("--depth-width", "32", "--depth-layers", "1", "--depth-heads", "2")
RVQ = ("--rvq", "{world}/rvq")
READER = ("--reader", "{world}/reader")
GEMMA, MIMI = ("--gemma", "{world}/gemma"), ("--mimi", "{world}/mimi")
HEAD = ("--head", "{world}/head")
EMBEDDINGS = ("--embeddings", "{world}/embeddings")
CODES, SPEECHLESS = ("--codes", "{world}/codes"), ("--speechless", "{world}/speechless")
MANIFEST = ("--manifest", "{world}/train.jsonl")
OUT = ("--out", "out")
SAY = ("--text", "Me din de Ama.", "--out", "answer.wav", *CPU)
ASK = ("--prompt", "Wo ho te sɛn?", "--max-new-tokens", "4", *CPU)
JUDGE_HEAD = (*HEAD, *GEMMA, *MIMI, *MANIFEST, "--num-utterances", "2", *OUT, *CPU)


@dataclass(frozen=True)
class Reader:
    """A command that reads an input, and which of its files it does."""

    command: str
    words: tuple[str, ...]
    files: tuple[str, ...]


@dataclass(frozen=True)
class Input:
    """A folder of the world; `{input}` in its readers' words is the damaged copy."""

    folder: str
    readers: tuple[Reader, ...]
    # Its `done` would notice any change.
    is_sealed: bool = True


TRAIN_RVQ = ("--codebook-size", "16", "--num-codebooks", "4", "--batch-frames", "128", *SHORT)
TRAIN_READER = ("--num-units", "40", "--width", "16", "--num-layers", "1", *SHORT)
TRAIN_SPEECHLESS = (*SMALL, *DEPTH, "--batch-size", "4", *SHORT)
TRAIN_HEAD = (*SMALL, *DEPTH, "--batch-size", "4", *SHORT)
MODEL = ("model/config.json", "model/model.safetensors")
RUN = ("config.json", "provenance.json")
SHARDS = ("shard_*", "encoder.safetensors")
OF_GEMMA = (
    "config.json", "generation_config.json", "model.safetensors", "preprocessor_config.json",
    "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
)  # fmt: skip
CHECKPOINT = ("checkpoints/*", "config.json", "provenance.json", "metrics.jsonl")

INPUTS = (
    Input("embeddings", (
        Reader("stage1_rvq.train", ("--embeddings", "{input}", *OUT, *TRAIN_RVQ), (*SHARDS, *RUN)),
        Reader("stage1_rvq.train_reader", ("--embeddings", "{input}", *OUT, *TRAIN_READER), SHARDS),
        Reader("stage1_rvq.tokenize_corpus",
               ("--embeddings", "{input}", *RVQ, *OUT, *CPU), SHARDS),
        Reader("stage1_rvq.evaluate", ("--embeddings", "{input}", *RVQ, *OUT, *CPU), SHARDS),
        Reader("stage1_rvq.transcribe",
               ("--embeddings", "{input}", *READER, "--out", "heard.jsonl", *CPU), ("shard_*",)),
    )),
    Input("reader", (
        Reader("stage1_rvq.transcribe",
               (*EMBEDDINGS, "--reader", "{input}", "--out", "heard.jsonl", *CPU),
               (*MODEL, "units.json")),
        Reader("stage1_rvq.train", (*EMBEDDINGS, "--reader", "{input}", *OUT, *TRAIN_RVQ), MODEL),
    )),
    Input("rvq", (
        Reader("stage1_rvq.tokenize_corpus", (*EMBEDDINGS, "--rvq", "{input}", *OUT, *CPU), MODEL),
        Reader("stage1_rvq.export", ("--rvq", "{input}", *OUT),
               (*MODEL, *RUN, "checkpoints/step_000004/model.safetensors")),
        Reader("stage1_rvq.evaluate", (*EMBEDDINGS, "--rvq", "{input}", *OUT, *CPU), MODEL),
        Reader("stage1_rvq.compare_codes",
               (*CODES, "--other-codes", "{world}/codes", "--rvq", "{input}", *READER, *CPU),
               MODEL),
    )),
    Input("published", (
        Reader("stage1_rvq.tokenize_corpus", (*EMBEDDINGS, "--rvq", "{input}", *OUT, *CPU),
               ("config.json", "model.safetensors")),
        Reader("stage1_rvq.tokenize_corpus",
               (*EMBEDDINGS, "--rvq", "{input}/rvq_best.pt", *OUT, *CPU),
               ("config_stage1.json", "rvq_best.pt")),
    ), is_sealed=False),
    Input("codes", (
        Reader("stage2_speechless.train", ("--codes", "{input}", *OUT, *TRAIN_SPEECHLESS),
               ("*.parquet", *RUN)),
        Reader("stage1_rvq.transcribe",
               ("--codes", "{input}", *RVQ, *READER, "--out", "heard.jsonl", *CPU),
               ("*.parquet",)),
        Reader("stage1_rvq.compare_codes",
               (*CODES, "--other-codes", "{input}", *RVQ, *READER, *CPU), ("*.parquet",)),
        Reader("stage2_speechless.evaluate",
               ("--codes", "{input}", *SPEECHLESS, *RVQ, *READER, *OUT, *CPU), ("*.parquet",)),
    )),
    Input("speechless", (
        Reader("stage2_speechless.generate",
               ("--speechless", "{input}", "--text", "{world}/sentences.txt", *OUT, *CPU), MODEL),
        Reader("stage2_speechless.evaluate",
               (*CODES, "--speechless", "{input}", *RVQ, *READER, *OUT, *CPU), MODEL),
    )),
    Input("spoken", (
        Reader("stage3_finetune.train",
               ("--dialogues", "{input}", *RVQ, *GEMMA, "--lora-rank", "2", "--batch-size", "2",
                "--accumulate", "1", *OUT, *SHORT), ("*.parquet", *RUN)),
    )),
    Input("states", (
        Reader("speech_head.train", ("--states", "{input}", *OUT, *TRAIN_HEAD),
               ("shard_*", "embeddings.safetensors", "format.json", *RUN)),
        Reader("speech_head.train",
               ("--states", "{input}", "--architecture", "parallel", *SMALL, *OUT, *SHORT),
               ("shard_*", "format.json")),
    )),
    Input("head", (
        Reader("speech_head.speak", ("--head", "{input}", *GEMMA, *MIMI, *SAY), MODEL),
        Reader("speech_head.train",
               ("--states", "{world}/states", "--init-from", "{input}", *OUT, *TRAIN_HEAD), MODEL),
    )),
    Input("parallel", (
        Reader("speech_head.evaluate", (*JUDGE_HEAD, *READER, "--parallel-head", "{input}"), MODEL),
    )),
    Input("gemma", (
        Reader("stage1_rvq.embed", (*MANIFEST, "--gemma", "{input}", *OUT, *CPU),
               ("config.json", "model.safetensors", "preprocessor_config.json")),
        Reader("stage3_finetune.chat", ("--gemma", "{input}", *ASK), OF_GEMMA),
        Reader("speech_head.speak", (*HEAD, *MIMI, "--gemma", "{input}", *SAY), OF_GEMMA),
    ), is_sealed=False),
    Input("mimi", (
        Reader("speech_head.speak", (*HEAD, *GEMMA, "--mimi", "{input}", *SAY), ("*",)),
    ), is_sealed=False),
    Input("llama", (
        Reader("stage2_speechless.train",
               (*CODES, "--init-from", "{input}", *DEPTH, "--batch-size", "4", *OUT, *SHORT),
               ("config.json", "model.safetensors")),
    ), is_sealed=False),
    Input("asr", (
        # Its added tokens stand in tokenizer_config.json too, which is what is read.
        Reader("speech_head.evaluate", (*JUDGE_HEAD, "--asr", "{input}"),
               ("[!a]*.json", "model.safetensors")),
    ), is_sealed=False),
    Input("voices", (
        Reader("speech_head.evaluate", (*JUDGE_HEAD, *READER, "--speaker-model", "{input}"),
               ("*",)),
    ), is_sealed=False),
    Input("unfinished-reader", (
        Reader("stage1_rvq.train_reader",
               (*EMBEDDINGS, *TRAIN_READER, "--out", "{input}", "--resume"), CHECKPOINT),
    ), is_sealed=False),
    Input("unfinished-rvq", (
        Reader("stage1_rvq.train", (*EMBEDDINGS, *TRAIN_RVQ, "--out", "{input}", "--resume"),
               CHECKPOINT),
    ), is_sealed=False),
    Input("unfinished-speechless", (
        Reader("stage2_speechless.train",
               (*CODES, "--dev-codes", "{world}/codes", *TRAIN_SPEECHLESS, "--out", "{input}",
                "--resume"), CHECKPOINT),
    ), is_sealed=False),
    Input("unfinished-head", (
        Reader("speech_head.train",
               ("--states", "{world}/states", "--dev-states", "{world}/states", *TRAIN_HEAD,
                "--out", "{input}", "--resume"), CHECKPOINT),
    ), is_sealed=False),
)  # fmt: skip


def cases(world: Path, seed: int, count: int) -> list[Case]:
    """Cases drawn over all inputs, readers, files and damages.

    Args:
        world: made by `world.py`.
        seed: of what is drawn.
        count: how many.
    """
    rng = random.Random(f"{seed} {KIND}")
    # In turn from each input, so that all come early.
    queues = []
    for input_ in (input_ for input_ in INPUTS if (world / input_.folder).exists()):
        queue = list(_all_cases(world, input_))
        rng.shuffle(queue)
        queues.append(queue)
    drawn: list[Case] = []
    while len(drawn) < count and any(queues):
        drawn += [queue.pop() for queue in queues if queue]
    return drawn[:count]


def _all_cases(world: Path, input_: Input) -> Iterator[Case]:
    source = world / input_.folder
    paths = sorted(path for path in source.rglob("*") if path.is_file())
    for reader in input_.readers:
        if not are_there(world, reader.words):
            continue
        for path in paths:
            name = str(path.relative_to(source))
            is_read = any(fnmatchcase(name, pattern) for pattern in reader.files)
            others = sorted(world.glob(f"*/{name}")) if is_read else []
            swaps = [swap_with(other) for other in others if other != path]
            for damage in [*damages_of(path), *swaps] if is_read or name == "done" else ():
                for seals in (True, False) if input_.is_sealed and name != "done" else (False,):
                    yield _case(world, input_, reader, name, damage, seals=seals)
        for damage in FOLDER_DAMAGES:
            # An empty folder is no unfinished run: --resume begins there.
            if input_.is_sealed or damage.name == "a file":
                yield _case(world, input_, reader, ".", damage, seals=False)


def are_there(world: Path, words: Iterable[str]) -> bool:
    """Whether a world, which may be smaller, has all that a command's words name."""
    named = [word.removeprefix("{world}/") for word in words if word.startswith("{world}/")]
    return all((world / name).exists() for name in named)


def _case(
    world: Path, input_: Input, reader: Reader, name: str, damage: Damage, *, seals: bool
) -> Case:
    source = world / input_.folder

    def make(folder: Path, rng: random.Random) -> None:
        shutil.copytree(source, folder / "input", symlinks=True)
        damage.do(folder / "input" / name, rng)
        if seals:
            (folder / "input" / "done").unlink()
            OutputFolder(folder / "input", is_done=True).finish()

    def check(folder: Path) -> str:
        damaged = folder / "input" / name
        if damage.must_refuse and (seals or name != "done"):
            return "was accepted"
        if input_.is_sealed and not seals and name not in ("done", "."):
            listed = (source / name).read_bytes()
            if not damaged.is_file() or damaged.read_bytes() != listed:
                return "was accepted, though 'done' lists another file"
        return find_spoilt(folder)

    words = [w.replace("{world}", str(world)).replace("{input}", "input") for w in reader.words]
    how = "sealed" if seals else "as it is"
    return Case(
        KIND, f"{input_.folder}/{name} {damage.name}, {how}, for {reader.command}"
        f" {' '.join(reader.words[:3])}",
        reader.command, tuple(words), make, check, mentions=MENTIONS,
    )  # fmt: skip


# A refusal names the folder, one of its files, or the flag that named it.
MENTIONS = r"input|--|checkpoint|resume"


def find_spoilt(folder: Path) -> str:
    """What is wrong with what a command wrote: a model or cache that holds NaN; "" where nothing
    is."""
    for path in sorted((folder / "out").rglob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in sorted(file.keys()):
                tensor = file.get_tensor(name)
                if tensor.is_floating_point() and not tensor.isfinite().all():
                    return f"{path.relative_to(folder)}: {name} is not finite"
    for path in sorted((folder / "out").rglob("*.json")):
        if "NaN" in path.read_text(encoding="utf-8"):
            return f"{path.relative_to(folder)} holds NaN"
    return ""


def _more_of(pattern: str, renamed: Callable[[str], str]) -> Callable[[Path, random.Random], None]:
    def do(path: Path, rng: random.Random) -> None:
        for shard in sorted(path.glob(pattern)):
            shutil.copyfile(shard, shard.with_name(renamed(shard.name)))

    return do


def _half_copied(path: Path, rng: random.Random) -> None:
    """As `cp -r` leaves it that was interrupted: `done` may be there already."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    for file in files[rng.randrange(1, len(files)) :]:
        if file.name != "done":
            file.unlink()


def _write_done(content: bytes) -> Callable[[Path, random.Random], None]:
    return lambda path, rng: (path / "done").write_bytes(content) and None


def _empty(path: Path, rng: random.Random) -> None:
    shutil.rmtree(path)
    path.mkdir()


def _become_file(path: Path, rng: random.Random) -> None:
    shutil.rmtree(path)
    path.write_bytes(b"no folder")


def _lies_outside(path: Path, rng: random.Random) -> None:
    name = rng.choice(("/etc/passwd", "../../../x", "a" * 5000, "a\\u0000b", "\\ud800", "."))
    files = f'{{"files": {{"{name}": {{"bytes": 1, "sha256": ""}}}}}}'
    (path / "done").write_text(files, encoding="utf-8")


FOLDER_DAMAGES = (
    Damage("a shard more", _more_of("*_00000.*", lambda name: name.replace("_00000", "_00001"))),
    Damage("half copied", _half_copied), Damage("empty", _empty, must_refuse=True),
    Damage("a file", _become_file, must_refuse=True),
    Damage("done is gone", lambda path, rng: (path / "done").unlink(), must_refuse=True),
    Damage("done lists nothing", _write_done(b'{"files": {}}')),
    Damage("done of another", _write_done(b"{}"), must_refuse=True),
    *(Damage(f"done lies about names, {n}", _lies_outside, must_refuse=True) for n in range(3)),
)  # fmt: skip
