"""What the commands that speak texts as codes share: settings, models, and counts.

`stage2_speechless.generate` speaks sentences, `stage3_finetune.speak_dialogues` the spoken turns of
dialogues.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from commands.device import DeviceName, describe_machine, pick_device
from commands.errors import InputError
from commands.json_files import read_json_lines
from commands.licenses import LicenseName
from commands.origins import UNKNOWN, Origin, combine
from commands.run_folder import OutputFolder
from commands.setting_types import ModelName, PositiveInt, Seed, StorePath
from commands.shards import join_rows, join_sources
from commands.sources import Sources, as_facts, merge
from commands.workers import WorkerSettings
from data_manifests.code_switching import EnglishShare
from data_manifests.language import DialectName
from stage2_speechless.model import Speechless, load_speechless
from stage2_speechless.round_trip import RoundTrip
from stage2_speechless.sampling import SamplingSettings
from stage2_speechless.speak import Sentence
from stage2_speechless.takes import Take, TakeSettings, count_takes, generate_takes


@dataclass(frozen=True, kw_only=True)
class SpeakingConfig:
    """Settings of a command that speaks texts as semantic codes."""

    speechless: ModelName
    """model that generates the codes: folder of stage2_speechless.train, or hub name"""
    out: StorePath
    """new folder for what is spoken"""
    choice: TakeSettings = TakeSettings()
    dialect: DialectName = "unknown"
    """dialect of texts that name none, in Twi: asante, akuapem, fante or unknown"""
    sampling: SamplingSettings = SamplingSettings()
    batch_size: PositiveInt = 32
    """texts generated together"""
    seed: Seed = 0
    """seed for sampling; another seed speaks the same texts differently"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu"""
    allow_licenses: tuple[LicenseName, ...] = ()
    """leave out texts under another licence than these, by SPDX name (CC-BY-4.0 CC0-1.0); unknown
    is a name too; if none is given, nothing is left out"""
    allow_mixture: bool = False
    """go on although the inputs belong to different audio towers or quantisers"""
    resume: bool = False
    """continue an unfinished folder"""
    workers: WorkerSettings = WorkerSettings()


@dataclass(frozen=True)
class LoadedSpeech:
    """A model that speaks, and what judges its takes.

    Attributes:
        config: the command's settings.
        model: speaks.
        round_trip: judges; None without a recogniser.
        origin: what the codes belong to.
        sources: what these models were made from.
        facts: of the models and the machine, for `provenance.json`.
    """

    config: SpeakingConfig
    model: Speechless
    round_trip: RoundTrip | None
    origin: Origin
    sources: Sources
    facts: dict[str, Any]

    def take(self, sentences: Sequence[Sentence]) -> tuple[dict[str, Take], dict[str, str]]:
        """`generate_takes` with the command's settings: what is kept, and why the rest is not."""
        return generate_takes(
            self.model,
            sentences,
            self.round_trip,
            takes=self.config.choice.takes,
            max_cer=self.config.choice.max_cer,
            respell=self.config.choice.respell_english,
            seed=self.config.seed,
            sampling=self.config.sampling,
            batch_size=self.config.batch_size,
        )


def load_speech(config: SpeakingConfig) -> LoadedSpeech:
    """Load what speaks, and what judges it; InputError if they do not belong together."""
    device = pick_device(config.device)
    model = load_speechless(config.speechless, device=device)
    round_trip = config.choice.load_round_trip(
        model.config, expected_by=f"--speechless {config.speechless}", device=device,
        allow_mixture=config.allow_mixture,
    )  # fmt: skip
    origin = combine(model.config.origin, round_trip.rvq.origin() if round_trip else UNKNOWN)
    facts = {**describe_machine(device, "float32"), **origin.as_facts()}
    sources = merge(model.made_from(), round_trip.made_from() if round_trip else ())
    return LoadedSpeech(config, model, round_trip, origin, sources, facts)


def record_spoken(
    output: OutputFolder,
    num_shards: int,
    texts: Iterable[str],
    *,
    unit: str,
    counted_as: str,
    takes_of: Callable[[dict[str, Any]], Iterable[int]],
) -> None:
    """Gather what the shards wrote, and say how many texts were spoken.

    Args:
        output: folder with all shards.
        texts: all that was to be spoken, also what was dropped.
        unit: what a row of `kept.jsonl` is, in the plural.
        counted_as: name of their number in `provenance.json`.
        takes_of: the numbers of the takes that a row of `kept.jsonl` names.

    Raises:
        InputError: everything was dropped.
    """
    num_kept, num_dropped = (join_rows(output.path, name) for name in ("kept", "dropped"))
    if not num_kept:
        dropped = output.path / "dropped.jsonl"
        raise InputError(f"all {num_dropped} {unit} were dropped, see {dropped}")
    kept = read_json_lines(output.path / "kept.jsonl")
    english = EnglishShare()
    for text in texts:
        english.add(text)
    output.record(
        **{counted_as: num_kept},
        num_dropped=num_dropped,
        english=english.as_dict(),
        kept_takes=count_takes(number for row in kept for number in takes_of(row)),
        sources=as_facts(join_sources(output.path, num_shards)),
    )
    print(f"{num_kept} {unit} spoken, {num_dropped} dropped", file=sys.stderr)
    if english.num_words:
        print(english.format_line(), file=sys.stderr)
