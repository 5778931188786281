"""Corpora -> train, dev and test manifests whose splits can be trusted.

    python -m data_manifests.build --common-voice cv-corpus/tw --out data/common_voice

Writes `train.jsonl`, `dev.jsonl`, `test.jsonl` and `dropped.jsonl` (what was left out, and why).
Splits are made here, the same for the same seed: see `data_manifests/splits.py`.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from data_manifests.artifact import create_output, write_text
from data_manifests.config import InputError, parse_config, run_command
from data_manifests.corpora import COMMON_VOICE_TABLES, common_voice
from data_manifests.manifest import SPLITS, Utterance, write_manifest
from data_manifests.splits import SplitCorpus, assign_splits, count_splits


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """Prepare Twi corpora: manifests for training, development and test, disjoint by sentence (and
    by speaker where there are enough)."""

    out: Path
    """new folder for the manifests"""
    common_voice: Path
    """Common Voice folder of Twi: the one that holds clips/"""
    common_voice_tables: tuple[str, ...] = ("validated",)
    """which of its tables to use: validated, other (no votes yet), invalidated (voted down)"""
    dev_fraction: float = 0.1
    """share of speakers or sentences held out for choosing checkpoints"""
    test_fraction: float = 0.1
    """share held out for the numbers that are reported"""
    seed: int = 0
    """another seed gives another split"""
    resume: bool = False
    """accept an existing unfinished folder and write it again"""

    def __post_init__(self) -> None:
        for name in ("dev_fraction", "test_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"--{name.replace('_', '-')} must be in [0, 1), got {getattr(self, name)}"
                )
        if self.dev_fraction + self.test_fraction >= 1:
            raise ValueError("--dev-fraction and --test-fraction leave nothing to train on")
        for table in self.common_voice_tables:
            if table not in COMMON_VOICE_TABLES:
                raise ValueError(
                    f"--common-voice-tables: {table!r} is none of {', '.join(COMMON_VOICE_TABLES)}"
                )


def main(argv: list[str] | None = None) -> None:
    """Build manifests; prints a summary to stderr and the folder to stdout."""
    config = parse_config(BuildConfig, argv)
    dropped: list[dict[str, str]] = []
    rows = common_voice(
        config.common_voice,
        lambda row_id, reason: dropped.append({"id": row_id, "reason": reason}),
        tables=config.common_voice_tables,
    )
    utterances = list(tqdm(rows, desc="common_voice", unit=" utterances"))
    if not utterances:
        raise InputError(f"{config.common_voice}: no usable utterance ({len(dropped)} left out)")
    output = create_output(
        config.out,
        config,
        command="data_manifests.build",
        # The tables, not the folder: hashing a corpus of audio would take longer than preparing it.
        inputs={t: config.common_voice / f"{t}.tsv" for t in config.common_voice_tables},
        resume=config.resume,
    )
    if output.is_done:
        print(config.out)
        return
    corpus = assign_splits(
        utterances,
        seed=config.seed,
        dev_fraction=config.dev_fraction,
        test_fraction=config.test_fraction,
    )
    dropped += [
        {"id": u.id, "reason": f"its sentence is in another split than its speaker ({u.split})"}
        for u in corpus.leaked
    ]
    for split in SPLITS:
        write_manifest(
            config.out / f"{split}.jsonl", (u for u in corpus.utterances if u.split == split)
        )
    write_text(
        config.out / "dropped.jsonl",
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in dropped),
    )
    output.finish()
    print(_summary(utterances, corpus, num_dropped=len(dropped)), file=sys.stderr)
    print(config.out)


def _summary(utterances: list[Utterance], corpus: SplitCorpus, num_dropped: int) -> str:
    counts = count_splits(corpus.utterances)
    num_speakers = len({u.speaker for u in utterances})
    basis = (
        f"disjoint by speaker ({num_speakers}) and by normalised sentence"
        if corpus.by_speaker
        else f"disjoint by normalised sentence, but not by speaker: there are only {num_speakers}"
    )
    hours = sum(u.duration_s for u in corpus.utterances) / 3600
    lines = [
        f"{len(corpus.utterances)} utterances, {hours:.2f} h: "
        + ", ".join(f"{counts[split]} {split}" for split in SPLITS),
        f"splits made here (official ones are not used), {basis}",
        f"{num_dropped} left out" + (", listed in dropped.jsonl" if num_dropped else ""),
    ]
    lines += [
        f"warning: {split}.jsonl is empty, too few sentences"
        for split in SPLITS
        if not counts[split]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(main)
