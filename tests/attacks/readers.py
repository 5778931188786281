"""The inputs of the world, and the commands that read each, with the files they read of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

CPU = ("--device", "cpu")
SHORT = ("--steps", "4", "--save-every", "2", "--warmup-steps", "1", *CPU)
SMALL = ("--width", "32", "--num-layers", "1", "--num-heads", "2")
DEPTH = ("--depth-width", "32", "--depth-layers", "1", "--depth-heads", "2")
RVQ = ("--rvq", "{world}/rvq")
RECOGNIZER = ("--recognizer", "{world}/recognizer")
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
TRAIN_RECOGNIZER = ("--num-units", "40", "--width", "16", "--num-layers", "1", *SHORT)
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
        Reader("stage1_rvq.train_recognizer",
               ("--embeddings", "{input}", *OUT, *TRAIN_RECOGNIZER), SHARDS),
        Reader("stage1_rvq.tokenize_corpus",
               ("--embeddings", "{input}", *RVQ, *OUT, *CPU), SHARDS),
        Reader("stage1_rvq.evaluate", ("--embeddings", "{input}", *RVQ, *OUT, *CPU), SHARDS),
        Reader("stage1_rvq.transcribe",
               ("--embeddings", "{input}", *RECOGNIZER, "--out", "heard.jsonl", *CPU),
               ("shard_*",)),
    )),
    Input("reader", (
        Reader("stage1_rvq.transcribe",
               (*EMBEDDINGS, "--recognizer", "{input}", "--out", "heard.jsonl", *CPU),
               (*MODEL, "units.json")),
        Reader("stage1_rvq.train", (*EMBEDDINGS, "--recognizer", "{input}", *OUT, *TRAIN_RVQ),
               MODEL),
    )),
    Input("rvq", (
        Reader("stage1_rvq.tokenize_corpus", (*EMBEDDINGS, "--rvq", "{input}", *OUT, *CPU), MODEL),
        Reader("stage1_rvq.export", ("--rvq", "{input}", *OUT),
               (*MODEL, *RUN, "checkpoints/step_000004/model.safetensors")),
        Reader("stage1_rvq.evaluate", (*EMBEDDINGS, "--rvq", "{input}", *OUT, *CPU), MODEL),
        Reader("stage1_rvq.compare_codes",
               (*CODES, "--other-codes", "{world}/codes", "--rvq", "{input}", *RECOGNIZER, *CPU),
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
               ("--codes", "{input}", *RVQ, *RECOGNIZER, "--out", "heard.jsonl", *CPU),
               ("*.parquet",)),
        Reader("stage1_rvq.compare_codes",
               (*CODES, "--other-codes", "{input}", *RVQ, *RECOGNIZER, *CPU), ("*.parquet",)),
        Reader("stage2_speechless.evaluate",
               ("--codes", "{input}", *SPEECHLESS, *RVQ, *RECOGNIZER, *OUT, *CPU), ("*.parquet",)),
    )),
    Input("speechless", (
        Reader("stage2_speechless.generate",
               ("--speechless", "{input}", "--text", "{world}/sentences.txt", *OUT, *CPU), MODEL),
        Reader("stage2_speechless.evaluate",
               (*CODES, "--speechless", "{input}", *RVQ, *RECOGNIZER, *OUT, *CPU), MODEL),
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
        Reader("speech_head.evaluate", (*JUDGE_HEAD, *RECOGNIZER, "--parallel-head", "{input}"),
               MODEL),
    )),
    Input("speech", (
        Reader("speech_head.judge", ("--speech", "{input}", "--asr", "{world}/asr", *OUT, *CPU),
               ("utterances.jsonl", "metrics.json", "wav*/*")),
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
        Reader("speech_head.evaluate", (*JUDGE_HEAD, *RECOGNIZER, "--speaker-model", "{input}"),
               ("*",)),
    ), is_sealed=False),
    Input("unfinished-reader", (
        Reader("stage1_rvq.train_recognizer",
               (*EMBEDDINGS, *TRAIN_RECOGNIZER, "--out", "{input}", "--resume"), CHECKPOINT),
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


def are_there(world: Path, words: Iterable[str]) -> bool:
    """Whether a world, which may be smaller, has all that a command's words name."""
    named = [word.removeprefix("{world}/") for word in words if word.startswith("{world}/")]
    return all((world / name).exists() for name in named)
