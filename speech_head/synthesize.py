"""Read a file of texts aloud: recordings with a manifest, for any command that takes one.

    python -m speech_head.synthesize --text sentences.txt --head runs/head \
        --finetune runs/finetune --out data/read-aloud
    python -m speech_head.synthesize --dialogues data/dialogues.jsonl --pipeline runs/twi-hub \
        --asr FarmerlineML/w2v-bert-2.0_twi_alpha_v1 --takes 3 --out data/questions

`--dialogues` reads the user turns marked "spoken", each text once: what `stage3_finetune.train
--recordings` needs for a Gemma that takes no codes (12B). With a recogniser, of several takes that
with the lowest CER is kept, unless that is over `--max-cer`. Numbers in Asante and Akuapem texts
are spoken as words; the manifest has the text as it is written.

Writes `audio/`, `train.jsonl`, `kept.jsonl` (take and CER of each recording) and `dropped.jsonl`
(every other text, with the reason). The manifest's speakers are called synthetic: say so to whoever
hears them. If killed, `--resume` continues it. With `--part` or `--ray`, many processes share the
work (`commands/shards.py`).
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from commands.command_line import parse_config, run_command
from commands.device import describe_machine, pick_device, pick_dtype
from commands.errors import InputError
from commands.json_files import read_rows
from commands.licenses import UNKNOWN_LICENSE, LicenseName, leave_out_others
from commands.origins import combine
from commands.run_folder import run_folder
from commands.seeds import derive_seed
from commands.setting_types import PositiveInt
from commands.shard import Shard
from commands.shards import join_rows, join_sources, split_into_shards, write_shards
from commands.sources import as_facts, base_model, count_sources, merge
from commands.workers import WorkerSettings
from data_manifests.audio import write_wav
from data_manifests.language import DialectName
from data_manifests.manifest import Utterance, write_manifest
from data_manifests.normalization import normalize_for_scoring
from speech_head.reading_aloud import read_aloud
from speech_head.settings import SpeakerConfig
from speech_head.spoken_answers import name_wav_files
from speech_head.stream import Sampling
from stage1_rvq.judge import JudgeSettings, load_judge_beside
from stage2_speechless.sentences import read_sentences
from stage2_speechless.speak import Sentence
from stage2_speechless.takes import ChoiceSettings
from stage3_finetune.dialogue_rows import read_dialogues
from stage3_finetune.model import finetuned_sources

TEXTS_PER_SHARD = 64
CORPUS, SPEAKER = "synthesized", "synthetic"  # where a text names no corpus; before a voice's name


@dataclass(frozen=True, kw_only=True)
class SynthesizeConfig(SpeakerConfig):
    """Read a file of texts aloud."""

    out: Path
    """new folder for the recordings and their manifest"""
    text: Path | None = None
    """text file with one sentence per line; or .jsonl with id and text, and dialect, corpus and
    license if known, such as a manifest"""
    dialogues: Path | None = None
    """in place of --text: `messages` JSONL with user turns marked "spoken": true"""
    dialect: DialectName = "unknown"
    """dialect of texts whose row names none, in Twi: asante, akuapem, fante or unknown"""
    choice: ChoiceSettings = ChoiceSettings()
    judge: JudgeSettings = JudgeSettings()
    batch_size: PositiveInt = 16
    """texts spoken together"""
    allow_licenses: tuple[LicenseName, ...] = ()
    """leave out texts under another licence than these, by SPDX name (CC-BY-4.0 CC0-1.0); unknown
    is a name too; if none is given, nothing is left out"""
    resume: bool = False
    """continue an unfinished folder"""
    workers: WorkerSettings = WorkerSettings()

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.text is None) == (self.dialogues is None):
            raise ValueError("give --text or --dialogues")


def main(argv: list[str] | None = None) -> None:
    """Read the texts aloud; prints the folder."""
    config = parse_config(SynthesizeConfig, argv)
    sentences = leave_out_others(_read(config), config.allow_licenses, unit="texts")
    if not sentences:
        raise InputError("no text is under an allowed licence")
    inputs = ("text", "dialogues", "gemma", "finetune", "mimi", "head", "recognizer", "asr")
    with run_folder(config.out, config, "speech_head.synthesize", inputs=inputs) as output:
        if output.is_done:
            return
        shards = split_into_shards(sentences, TEXTS_PER_SHARD)
        write_shards(
            output, shards, "rows_{:05d}.jsonl", partial(AudioWriter, config), config.workers,
            description="speak", unit="texts",
        )  # fmt: skip
        if config.workers.part:
            return
        num_kept, num_dropped = (join_rows(output.path, name) for name in ("kept", "dropped"))
        if not num_kept:
            raise InputError(f"all {num_dropped} texts were dropped: {config.out}/dropped.jsonl")
        rows = (
            row
            for number in shards
            for row in read_rows(output.path / f"rows_{number:05d}.jsonl", Utterance)
        )
        write_manifest(output.path / "train.jsonl", rows)
        output.record(
            num_utterances=num_kept, num_dropped=num_dropped,
            sources=as_facts(join_sources(output.path, len(shards))),
        )  # fmt: skip
        print(f"{num_kept} texts read aloud, {num_dropped} dropped", file=sys.stderr)


class AudioWriter:
    """Reads the texts of a shard aloud."""

    def __init__(self, config: SynthesizeConfig, folder: Path) -> None:
        """Load the models, and what hears them; InputError if they do not belong together."""
        self.config, self.folder = config, folder
        precision = config.precision
        device = pick_device(precision.device)
        models = config.models().parts
        self.talker = config.load()
        self.judge = load_judge_beside(
            config.judge, models["gemma"], self.talker.conversation.encoder,
            device=device, allow_mixture=config.allow_mixture,
        )  # fmt: skip
        adapter = models.get("finetune")
        self.sources = merge(
            finetuned_sources(models["gemma"], Path(adapter) if adapter else None),
            [base_model(models["mimi"])],
            self.talker.head.made_from(),
        )
        voice = self.talker.voice
        self.speaker = f"{SPEAKER}-{voice.name}" if voice and voice.name else SPEAKER
        origins = [self.talker.head.config.origin, *self.talker.conversation.origins.values()]
        self.facts = {
            **describe_machine(device, pick_dtype(precision.dtype, device)),
            "quantize": precision.quantize, **combine(*origins).as_facts(),
        }  # fmt: skip

    def write(self, shard: Shard[Sentence]) -> None:
        """Write the recordings of a shard, which texts were dropped, and last the manifest's
        rows."""
        config, rate_hz = self.config, self.talker.mimi.sample_rate_hz
        read, reasons = read_aloud(
            self.talker, shard.items, self.judge, config.choice, self._sampling,
            batch_size=config.batch_size, progress=shard.progress,
        )  # fmt: skip
        names = name_wav_files([s.id for s in shard.items])
        rows = []
        for sentence, name in zip(shard.items, names, strict=True):
            if (found := read.get(sentence.id)) is None:
                continue
            audio = f"audio/{shard.number:05d}/{name}"
            write_wav(self.folder / audio, found.samples_N, rate_hz)
            row = Utterance(
                id=sentence.id, audio=audio, text=sentence.text, speaker=self.speaker,
                duration_s=round(len(found.samples_N) / rate_hz, 3), dialect=sentence.dialect,
                corpus=sentence.corpus or CORPUS, split="train",
                license=sentence.license or UNKNOWN_LICENSE, sample_rate_hz=rate_hz,
            )  # fmt: skip
            rows.append(row)
        kept = [{"id": id_, "take": one.take, "cer": one.cer} for id_, one in read.items()]
        shard.write_rows("kept", kept)
        dropped = [
            {"id": s.id, "text": s.text, "reason": reasons[s.id]}
            for s in shard.items
            if s.id in reasons
        ]
        shard.write_rows("dropped", dropped)
        texts = count_sources((row.corpus, row.license, row.duration_s) for row in rows)
        shard.write_sources(merge(texts, self.sources))
        write_manifest(shard.path, rows)

    def _sampling(self, take: int) -> Sampling:
        seed = derive_seed(self.config.seed, take) if take else self.config.seed
        return self.config.sampling.with_seed(seed, pace=self.config.pace)


def _read(config: SynthesizeConfig) -> list[Sentence]:
    """What is to be spoken; InputError as `read_sentences` and `read_dialogues`."""
    if config.text is not None:
        return read_sentences(config.text, dialect=config.dialect)
    assert config.dialogues is not None
    sentences = list(_spoken_turns(config.dialogues, config.dialect))
    if not sentences:
        raise InputError(f'--dialogues {config.dialogues}: no user turn is marked "spoken": true')
    return sentences


def _spoken_turns(dialogues: Path, dialect: str) -> Iterator[Sentence]:
    """The spoken turns, each text once."""
    seen = set()
    for dialogue in read_dialogues(dialogues, takes_tools=True):
        for number, turn in enumerate(t for t in dialogue.turns if t.spoken):
            words = normalize_for_scoring(turn.content)
            if words in seen:
                continue
            seen.add(words)
            id_ = f"{dialogue.id}#{number}" if number else dialogue.id
            yield Sentence(
                id_, turn.content, dialect, corpus=dialogue.corpus, license=dialogue.license
            )


if __name__ == "__main__":
    run_command(main)
