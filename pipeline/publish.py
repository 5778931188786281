"""A trained pipeline -> a repository that others can talk with, checked by loading it from there.

    python -m pipeline.publish --run runs/twi --gemma google/gemma-4-E2B-it --out runs/twi-hub
    make chat PIPELINE=runs/twi-hub

Copies what is needed to use the adapter, the speech head, the quantiser, the recogniser and
Speechless of a recipe's run; Gemma and Mimi are named if they are on the hub, and copied if they
are folders. Writes `pipeline.json`, which says what is where, a card with what was measured, and
samples. Everything is then loaded from the copy, and must make of the same inputs what it made
before. The folder appears only when it is complete. Nothing is uploaded: `hf upload NAME FOLDER`.
"""

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError

from commands.atomic_write import write_text, written_aside
from commands.command_line import parse_config, run_command
from commands.device import DeviceName, DtypeName, pick_device, pick_dtype
from commands.errors import InputError
from commands.fingerprints import fingerprint
from commands.finished_folder import is_output_folder, read_provenance
from commands.json_files import read_json
from commands.new_paths import refuse_unwritable
from commands.setting_types import ModelName
from commands.sources import (
    ADAPTER,
    HEAD,
    QUANTIZER,
    RECOGNIZER,
    SPEECHLESS,
    Sources,
    base_model,
    merge,
)
from commands.trained_pipeline import PartName, find_pipeline, write_pipeline_file
from gemma4.base_model import gemma_sources
from pipeline.publish_card import CardFacts, pipeline_card, shown_name
from pipeline.publish_check import Trial, refuse_difference, try_parts
from pipeline.published_parts import MADE_BY, copy_checkpoint, copy_part, open_part
from pipeline.report import TESTS, measured_stages
from pipeline.samples import SpokenSample, read_spoken_samples
from stage3_finetune.merged_model import merge_adapter

NUM_SAMPLES = 5
SAMPLES = "samples"  # the folder for them
ROLES: Mapping[PartName, str] = {
    "finetune": ADAPTER, "head": HEAD, "rvq": QUANTIZER, "recognizer": RECOGNIZER,
    "speechless": SPEECHLESS,
}  # fmt: skip
# What each test of a run measured, in the order of `TESTS`.
MEASURED: tuple[PartName, ...] = ("rvq", "speechless", "finetune", "head")


@dataclass(frozen=True, kw_only=True)
class PublishConfig:
    """Write a trained pipeline as one repository, with a card of what was measured."""

    out: Path
    """new folder: the repository"""
    run: Path | None = None
    """folder of a recipe's run, which holds head, finetune, rvq, recognizer and speechless, and
    rvq-test, speechless-test, finetune-test and head-test with what was measured"""
    gemma: ModelName = "google/gemma-4-E4B-it"
    """Gemma 4 that was trained on: a hub name is only named; a folder is copied"""
    mimi: ModelName = "kyutai/mimi"
    """Mimi: a hub name is only named; a folder is copied"""
    head: Path | None = None
    """folder of speech_head.train, in place of the run's"""
    finetune: Path | None = None
    """folder of stage3_finetune.train, in place of the run's"""
    rvq: Path | None = None
    """folder of stage1_rvq.train, in place of the run's"""
    recognizer: Path | None = None
    """folder of stage1_rvq.train_recognizer, in place of the run's"""
    speechless: Path | None = None
    """folder of stage2_speechless.train, in place of the run's"""
    merge: bool = False
    """merge the adapter into Gemma, in bfloat16, in place of both: larger, and simpler to load"""
    device: DeviceName = "auto"
    """where it is tried: auto, cpu, cuda, cuda:1, mps, xpu"""
    dtype: DtypeName = "auto"
    """precision in which Gemma is tried: bfloat16 on CUDA, float32 elsewhere"""
    allow_mixture: bool = False
    """go on although the parts belong to different audio towers or quantisers"""


def main(argv: list[str] | None = None) -> None:
    """Write the repository; prints its folder."""
    config = parse_config(PublishConfig, argv)
    refuse_unwritable(config.out, flag="--out")
    trained = find_trained(config)
    if config.merge and "finetune" not in trained:
        raise InputError("--merge: there is no adapter to merge; name it with --finetune")
    device = pick_device(config.device)
    dtype = pick_dtype(config.dtype, device)

    def attempt(parts: Mapping[PartName, str]) -> Trial:
        return try_parts(parts, device=device, dtype=dtype, allow_mixture=config.allow_mixture)

    base: dict[PartName, str] = {"gemma": config.gemma, "mimi": config.mimi}
    given = {**base, **{part: str(folder) for part, folder in trained.items()}}
    before = attempt(given)
    with written_aside(config.out, raised_by_writer=(SafetensorError,)) as aside:
        aside.mkdir()
        folders = copy_parts(config, trained, aside)
        names = {part: name for part, name in base.items() if part not in folders}
        write_pipeline_file(aside, folders, names, before.origin)
        after = attempt(find_pipeline(str(aside)).parts)
        refuse_difference(before, after, rounded=("gemma", "head", "mimi") if config.merge else ())
        write_text(aside / "README.md", describe(config, trained, folders, names, aside))
    print(config.out)


def find_trained(config: PublishConfig) -> dict[PartName, Path]:
    """The folders of the parts that were trained: those that are named, and the run's others.

    Raises:
        InputError: there is no head, or a folder is unfinished or another command's.
    """
    if config.run is not None and not config.run.is_dir():
        raise InputError(f"--run {config.run}: no such folder")
    found: dict[PartName, Path] = {}
    for part in MADE_BY:
        named: Path | None = getattr(config, part)
        if named is None and config.run is not None:
            if (config.run / part).is_dir():
                named = config.run / part
            else:
                print(f"no {part} in {config.run}: left out", file=sys.stderr)
        if named is not None:
            open_part(part, named)
            found[part] = named
    if "head" not in found:
        raise InputError("no speech head to publish: name it with --head, or a --run that has one")
    return found


def copy_parts(
    config: PublishConfig, trained: Mapping[PartName, Path], repository: Path
) -> dict[PartName, str]:
    """Copy the parts that are here into the repository; returns their folders in it."""
    folders: dict[PartName, str] = {}
    for part, folder in trained.items():
        if part != "finetune" or not config.merge:
            copy_part(folder, repository / part)
            folders[part] = part
    if config.merge:
        merged = merge_adapter(
            config.gemma, trained["finetune"], dtype="bfloat16", allow_mixture=config.allow_mixture
        )
        merged.save(repository / "gemma")
        folders["gemma"] = "gemma"
    models: dict[PartName, str] = {"gemma": config.gemma, "mimi": config.mimi}
    for part, name in models.items():
        if part not in folders and Path(name).is_dir():
            copy_checkpoint(Path(name), repository / part)
            folders[part] = part
    return folders


def describe(
    config: PublishConfig,
    trained: Mapping[PartName, Path],
    folders: Mapping[PartName, str],
    names: Mapping[PartName, str],
    repository: Path,
) -> str:
    """The card; copies the samples that it shows into the repository."""
    run = config.run or Path()
    others = [
        test for test, part in zip(TESTS, MEASURED, strict=True)
        if config.run is None or not is_test_of(run / test, part, trained.get(part))
    ]  # fmt: skip
    samples: list[SpokenSample] = []
    judge = None
    if "head-test" not in others:
        found = read_spoken_samples(run / "head-test", run / "finetune-test", NUM_SAMPLES)
        samples = [_copy_sample(one, i, repository) for i, one in enumerate(found, start=1)]
        judge = read_json(run / "head-test" / "metrics.json").get("judge")
    facts = CardFacts(
        folders, names, base=shown_name(config.gemma),
        base_models=[name for name in (config.gemma, config.mimi) if not Path(name).exists()],
        is_merged=config.merge,
        stages=measured_stages(run, leave_out=others),
        judge=f"`{shown_name(judge)}`" if judge else None,
        samples=samples, sources=sources_of(config, trained),
        voices=read_json(repository / folders["head"] / "model" / "config.json").get("voices", []),
    )  # fmt: skip
    return pipeline_card(facts)


def is_test_of(test: Path, part: PartName, folder: Path | None) -> bool:
    """Whether a folder of a run measured this very part; says on stderr if it measured another."""
    if folder is None or not (test / "done").exists() or not is_output_folder(test):
        return False
    measured = read_provenance(test).inputs.get(part)
    if measured is not None and measured.sha256 == fingerprint(folder).get("sha256"):
        return True
    print(f"{test} measured another {part} than {folder}: left out of the card", file=sys.stderr)
    return False


def sources_of(config: PublishConfig, trained: Mapping[PartName, Path]) -> Sources:
    """The data and models of others that the whole pipeline was made from."""
    recorded = [read_provenance(folder).made_from(ROLES[part]) for part, folder in trained.items()]
    return merge(gemma_sources(config.gemma), [base_model(config.mimi)], *recorded)


def _copy_sample(sample: SpokenSample, number: int, repository: Path) -> SpokenSample:
    (repository / SAMPLES).mkdir(exist_ok=True)
    wav = Path(SAMPLES) / f"{number}{sample.wav.suffix}"
    shutil.copyfile(sample.wav, repository / wav)
    return replace(sample, wav=wav)


if __name__ == "__main__":
    run_command(main)
