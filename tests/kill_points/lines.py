"""A command line for every command that writes a folder, on tiny models, in an order in which each
finds what those before it have made."""

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from commands.provenance import git_state

RUN = "run"  # the folder a line writes, in its case
CPU = ("--device", "cpu")
TRAIN = ("--warmup-steps", "1", "--batch-size", "4", "--steps", "4", "--save-every", "2", *CPU)
SHARD = 2
OVERWRITE = "--overwrite"
# Modules and their constants: so many rows a shard, so that a tiny corpus has several.
SHARD_SIZES = (
    ("stage1_rvq.corpus_encoder", "UTTERANCES_PER_SHARD"),
    ("stage2_speechless.generate", "SENTENCES_PER_SHARD"),
    ("stage3_finetune.speak_dialogues", "DIALOGUES_PER_SHARD"),
    ("speech_head.synthesize", "TEXTS_PER_SHARD"),
)


@dataclass(frozen=True)
class Line:
    """A command line.

    Attributes:
        name: how other lines name it.
        command: dotted name of the command.
        words: its flags; "{corpus}/train.jsonl" is a file in what the line "corpus" wrote.
        out: what it writes, in its case.
        again: the flag with which it may write to a folder it has begun; "" where it has none, and
            the same line is given again.
        is_tested: off for a line that only makes what others read.
        why_not_by_default: why it is tried only where `--commands` names it; "" where it always is.
    """

    name: str
    command: str
    words: tuple[str, ...]
    out: str = RUN
    again: str = "--resume"
    is_tested: bool = True
    why_not_by_default: str = ""

    @property
    def needs(self) -> list[str]:
        """Lines whose output it reads."""
        return sorted({name for word in self.words for name in re.findall(r"{(\w+)}", word)})

    def begin(self, inputs: dict[str, Path]) -> list[str]:
        """Its words, for a run from nothing."""
        return [*(word.format(**inputs) for word in self.words), "--out", self.out]

    def go_on(self, inputs: dict[str, Path]) -> list[str]:
        """Its words, for going on where a run has ended."""
        return [*self.begin(inputs), *([self.again] if self.again else [])]


def _line(name: str, command: str, *words: str, out: str = RUN, again: str = "--resume") -> Line:
    return Line(name, command, words, out, again)


def _input(name: str, command: str, *words: str) -> Line:
    return Line(name, command, words, is_tested=False)


EMBEDDED = ("--embeddings", "{embed}", "--dev-embeddings", "{embed_dev}")
JUDGED = ("--rvq", "{rvq}", "--recognizer", "{recognizer}")
GEMMA = ("--gemma", "{models}/gemma")
HEAD = (*GEMMA, "--mimi", "{models}/mimi", *CPU)
TINY_HEAD = (
    "--states", "{states}", "--dev-states", "{states}", "--width", "32", "--num-layers", "1",
    "--num-heads", "2", *TRAIN,
)  # fmt: skip

LINES = (
    _line("models", "demo.tiny_models", again=OVERWRITE),
    _line("draw", "gemma4.draw_checkpoint", "--size", "tiny"),
    _line("corpus", "demo.world.make_corpus", "--num-questions", "3", "--num-held-out", "1",
          again=OVERWRITE),
    _line("own", "demo.world.make_own", again=OVERWRITE),
    _line("build", "data_manifests.build", "--corpus", "fisd_asante={made}/fisd.zip",
          "--dev-fraction", "0.3", "--test-fraction", "0.3"),
    _line("check", "data_manifests.check", "--manifest", "{corpus}/train.jsonl", "--fix",
          again=OVERWRITE),
    _line("subset", "data_manifests.subset", "--manifest", "{corpus}/train.jsonl", "--hours",
          "0.002", again=OVERWRITE),
    _line("degraded", "data_manifests.degrade", "--manifest", "{corpus}/test.jsonl",
          "--conditions", "clean", "street-5", again=OVERWRITE),
    _line("embed", "stage1_rvq.embed", "--manifest", "{corpus}/train.jsonl", *GEMMA, *CPU),
    _input("embed_dev", "stage1_rvq.embed", "--manifest", "{corpus}/dev.jsonl", *GEMMA, *CPU),
    _line("recognizer", "stage1_rvq.train_recognizer", *EMBEDDED, "--num-units", "64",
          "--width", "32", *TRAIN),
    _line("rvq", "stage1_rvq.train", *EMBEDDED, "--recognizer", "{recognizer}",
          "--task-utterances", "2",
          "--codebook-size", "8", "--num-codebooks", "2", "--batch-frames", "128",
          "--warmup-steps", "1", "--steps", "4", "--save-every", "2", *CPU),
    _line("rvq_test", "stage1_rvq.evaluate", *JUDGED, "--embeddings", "{embed_dev}", *CPU,
          again=OVERWRITE),
    _line("codes", "stage1_rvq.tokenize_corpus", "--embeddings", "{embed}", "--rvq", "{rvq}",
          "--jsonl", *CPU),
    _line("codes_of_audio", "stage1_rvq.tokenize_corpus", "--manifest", "{corpus}/dev.jsonl",
          "--rvq", "{rvq}", *GEMMA, *CPU),
    _line("transcripts", "stage1_rvq.transcribe", "--codes", "{codes}", *JUDGED, *CPU,
          out="heard.jsonl", again=""),
    _line("rvq_repository", "stage1_rvq.export", "--rvq", "{rvq}", "--metrics", "{rvq_test}",
          "--dev-embeddings", "{embed_dev}", again=""),
    _line("speechless", "stage2_speechless.train", "--codes", "{codes}", "--dev-codes",
          "{codes_of_audio}", *JUDGED, "--width", "32", "--num-layers", "1", "--num-heads", "4",
          "--depth-width", "16", "--depth-layers", "1", "--depth-heads", "2",
          "--num-dev-sentences", "2", *TRAIN),
    _line("text", "stage2_speechless.build_text", "--corpus", "text={made}/text.txt",
          "--min-words", "1", again=OVERWRITE),
    _line("spoken", "stage2_speechless.generate", "--speechless", "{speechless}", "--text",
          "{corpus}/sentences.txt", *JUDGED, "--takes", "2", "--max-cer", "100", *CPU),
    _line("speechless_test", "stage2_speechless.evaluate", "--speechless", "{speechless}",
          "--codes", "{codes_of_audio}", *JUDGED, *CPU, again=OVERWRITE),
    _line("dialogues", "stage3_finetune.build_dialogues", "--table", "{made}/table.csv",
          again=OVERWRITE),
    _line("dialogues_by_name", "stage3_finetune.build_dialogues", "--corpus",
          "alpaca_twi={made}/table.csv", again=OVERWRITE),
    _line("spoken_dialogues", "stage3_finetune.speak_dialogues", "--dialogues",
          "{corpus}/dialogues_train.jsonl", "--speechless", "{speechless}", *JUDGED, "--takes",
          "2", "--max-cer", "100", *CPU),
    _line("finetune", "stage3_finetune.train", "--dialogues", "{spoken_dialogues}", "--rvq",
          "{rvq}", *GEMMA, "--lora-rank", "4", "--accumulate", "1", "--no-gradient-checkpointing",
          *TRAIN),
    _line("finetune_test", "stage3_finetune.evaluate", *GEMMA, "--finetune", "{finetune}",
          "--recognizer", "{recognizer}", "--dialogues", "{corpus}/dialogues_test.jsonl",
          "--recordings", "{corpus}/test.jsonl", "--max-new-tokens", "6", *CPU, again=OVERWRITE),
    _line("noise_test", "stage3_finetune.evaluate_noise", *GEMMA, "--finetune", "{finetune}",
          "--dialogues", "{corpus}/dialogues_test.jsonl", "--degraded", "{degraded}",
          "--max-new-tokens", "6", *CPU, again=OVERWRITE),
    _line("subtitles", "stage3_finetune.transcribe", *GEMMA, "--finetune", "{finetune}", "--audio",
          "{corpus}/audio/train_question_0000.wav", "--max-new-tokens", "6", *CPU,
          out="heard.vtt", again=""),
    _line("gemma_repository", "stage3_finetune.export", "--finetune", "{finetune}", *GEMMA,
          again=""),
    _line("states", "speech_head.states", "--manifest", "{corpus}/answers_train.jsonl", *HEAD,
          "--recognizer", "{recognizer}"),
    _line("head", "speech_head.train", *TINY_HEAD, "--depth-width", "16", "--depth-layers", "1",
          "--depth-heads", "2", "--recognizer", "{recognizer}", "--num-dev-sentences", "1", *HEAD),
    _line("head_parallel", "speech_head.train", *TINY_HEAD, "--architecture", "parallel"),
    _line("head_test", "speech_head.evaluate", "--head", "{head}", "--parallel-head",
          "{head_parallel}", "--manifest", "{corpus}/answers_dev.jsonl",
          "--recognizer", "{recognizer}", *HEAD, again=OVERWRITE),
    _line("head_judged", "speech_head.judge", "--speech", "{head_test}", "--recognizer",
          "{recognizer}", *GEMMA, *CPU, again=OVERWRITE),
    _line("said", "speech_head.speak", "--head", "{head}", "--text", "Maakye.", *HEAD,
          out="said.wav", again=""),
    _line("read_aloud", "speech_head.synthesize", "--head", "{head}", "--text",
          "{corpus}/answers_dev.jsonl", "--recognizer", "{recognizer}", "--max-cer", "100",
          "--temperature", "9", "--top-k", "0", "--takes", "3", *HEAD),
    Line(
        "precisions", "pipeline.compare_precision",
        (*HEAD, "--finetune", "{finetune}", "--head", "{head}", "--recognizer", "{recognizer}",
         "--dialogues", "{corpus}/dialogues_test.jsonl", "--recordings", "{corpus}/test.jsonl",
         "--max-new-tokens", "6", "--precisions", "float32", "bfloat16"),
        again=OVERWRITE,
        why_not_by_default="each precision begins a process, which loads all libraries anew",
    ),
    _line("train_mimi", "demo.mimi.train", "--steps", "6", "--num-sentences", "6", "--batch-size",
          "2", "--num-dev", "1", "--kmeans-latents", "512", "--save-every", "2", "--eval-every",
          "3"),
    Line(
        "train_gemma", "demo.gemma.train",
        ("--steps", "26", "--num-clips", "10", "--num-dev", "1", "--processes", "1",
         "--save-every", "8"),
        why_not_by_default="one run takes about 15 s, and it has over 100 points",
    ),
    Line(
        "demo", "demo.run", ("--effort", "check"), again="",
        why_not_by_default="each of its commands is tried by itself, and one run takes 20 s",
    ),
    _line("gemma_test", "demo.gemma.evaluate", *GEMMA, "--mimi", "{models}/mimi",
          "--num-questions", "1", again=OVERWRITE),
    _line("shipped", "demo.ship", "--mimi", "{train_mimi}", again=""),
)  # fmt: skip


def lines_for(commands: Sequence[str]) -> list[Line]:
    """The lines of some commands (all, where none is named), and those that make their input, in
    order; of the latter `is_tested` says nothing."""
    wanted = {
        line.name
        for line in LINES
        if line.command in commands or (not commands and not line.why_not_by_default)
    }
    for line in reversed(LINES):
        if line.name in wanted:
            wanted |= set(line.needs)
    return [line for line in LINES if line.name in wanted]


def import_commands(lines: Sequence[Line]) -> None:
    """Import what lines run, and make shards small."""
    for command in dict.fromkeys(line.command for line in lines):
        importlib.import_module(command)
    git_state()  # it may change while hundreds of points are tried
    # A thousand regular expressions, which every command that loads a Gemma would compile again.
    get_checkpoint_conversion_mapping("gemma4")  # type: ignore[no-untyped-call]
    for module, constant in SHARD_SIZES:
        setattr(importlib.import_module(module), constant, SHARD)


def write_made(folder: Path) -> None:
    """What no command makes: a corpus as its publisher packs it, a table of questions, a text."""
    import io
    import zipfile

    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "fisd.zip", "w") as archive:
        rows = ["Audio Filepath\tTranscription\tTranslation"]
        for i in range(9):
            name = f"AsantiTwiFm23-{i}-Tmp{i:03d}-rnd{i:03d}.ogg"
            seconds = np.arange(16_000) / 16_000
            file = io.BytesIO()
            tone = np.sin(2 * np.pi * (300 + 50 * i) * seconds).astype(np.float32)
            soundfile.write(file, 0.3 * tone, 16_000, format="OGG", subtype="VORBIS")
            archive.writestr(f"fisd/audios/{name}", file.getvalue())
            rows.append(f"lacuna/audios/{name}\tMe din de Ama, {'a' * (i + 1)}.\tEnglish")
        archive.writestr("fisd/data.csv", "\n".join(rows) + "\n")
    table = "instruction,input,output\nWo din de sɛn?,,Me din de Ama.\nƐte sɛn?,,Ɛyɛ.\n"
    (folder / "table.csv").write_text(table, encoding="utf-8")
    (folder / "text.txt").write_text("Wo din de sɛn?\nMe din de Ama.\n", encoding="utf-8")
