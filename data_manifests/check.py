"""Check that a manifest's audio matches its rows, report what it contains, and clean it.

    python -m data_manifests.check --manifest data/common_voice/train.jsonl
    python -m data_manifests.check --manifest data/common_voice/train.jsonl --fix --out runs/check

Every recording is decoded, once. Prints a table by corpus and dialect, then problems and
observations by kind with a few examples. A problem makes a row unusable, or wrong for training
(`defects.py`, `manifest_totals.py`); a row counts once, under its first problem. An observation
(digits, clipping, ...) is only reported.

    python -m data_manifests.check --manifest data/mine/train.jsonl --against data/theirs/test.jsonl

With `--against`, what a row shares with other manifests (`shared_rows.py`: recording, speaker,
sentence) is a problem too.

A corpus of thousands of hours is decoded in parts, `--part 1/N --out runs/examined` to `N/N`, by as
many processes; `--examined runs/examined` then checks what they found.

With `--out` it also writes `report.json`, `durations.png` and `speaking_rates.png`; with `--fix`
also the rows without a problem, under the manifest's own name, and `removed.jsonl`, which says what
was removed and why. Rows are streamed: each adds only a few 64-bit hashes to memory.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from tqdm import tqdm

from commands.atomic_write import ASIDE_SUFFIX, write_json
from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.json_files import read_lines
from commands.run_folder import run_folder
from commands.setting_types import MAX_NAME_BYTES, NumWorkers, StorePath
from commands.stores import url_of
from commands.workers import PartName, read_part
from data_manifests.cleaned_manifest import REMOVED_NAME, cleaned_manifest
from data_manifests.code_switching import format_english
from data_manifests.corpus_plots import plot_durations, plot_speaking_rates
from data_manifests.corpus_statistics import format_table
from data_manifests.examinations import examine_all, read_examined, write_examinations
from data_manifests.language import language
from data_manifests.manifest import read_manifest
from data_manifests.manifest_totals import ManifestTotals
from data_manifests.shared_rows import SHARED, Shared, find_shared, format_shared, other_manifests

NUM_CHARACTERS_SHOWN = 8
# Files that a check writes beside the cleaned manifest.
OWN_FILES = (
    *("config.json", "provenance.json", "done", "report.json", REMOVED_NAME),
    *("durations.png", "speaking_rates.png"),
)
INPUTS = ("manifest", "examined", "against")


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Decode every utterance of a manifest, compare it with its row, and print what the corpus
    contains. Exits with code 2 if a row has a problem, unless --fix removed it."""

    manifest: StorePath
    """manifest to check"""
    out: Path | None = None
    """new folder for report.json and plots; without it the report is only printed"""
    fix: bool = False
    """also write, into --out, the manifest without its problem rows, and removed.jsonl"""
    decode: bool = True
    """decode the audio; off, only the rows are checked, in seconds instead of minutes"""
    num_workers: NumWorkers = 0
    """processes that decode audio; 0 decodes in the main process; the result is the same"""
    part: PartName = ""
    """I/N: only decode the I-th of N parts of the rows, and note in --out what was found"""
    against: tuple[StorePath, ...] = ()
    """other manifests, with which no recording, speaker or sentence may be shared"""
    against_by: Annotated[tuple[Shared, ...], Field(min_length=1)] = SHARED
    """what may not be shared: recording, speaker, sentence, whatever its name and format"""
    examined: Path | None = None
    """take what was found from there, in place of decoding: the --out of all N parts"""
    overwrite: bool = False
    """write again what an earlier run wrote into --out, which is kept until that is done"""

    def __post_init__(self) -> None:
        if self.part and (self.out is None or self.fix or self.examined or self.against):
            raise ValueError(
                "--part needs --out, and no --fix, --against or --examined: all parts together are "
                "checked afterwards, with --examined"
            )
        if self.fix and self.out is None:
            raise ValueError("--fix needs --out: the folder for the cleaned manifest")
        name = self.manifest.name
        if self.fix and (name in OWN_FILES or name.endswith(ASIDE_SUFFIX)):
            raise ValueError(f"--fix writes a {name} itself: rename --manifest first")
        if self.fix and len(name.encode(errors="replace")) > MAX_NAME_BYTES - len(ASIDE_SUFFIX):
            raise ValueError("--fix writes a file of the name of --manifest, which is too long")


def main(argv: list[str] | None = None) -> None:
    """Check a manifest: report on stdout, problems counted in one `InputError`."""
    config = parse_config(CheckConfig, argv)
    # Before a folder is created, and before what is in it is deleted.
    next(read_lines(config.manifest, flag="--manifest"), None)
    for path in (config.manifest, *config.against):
        next(read_manifest(path), None)
    if config.part and config.out is not None:
        with run_folder(config.out, config, "data_manifests.check", inputs=("manifest",)) as output:
            write_examinations(
                output.path, config.manifest, read_part(config.part),
                decode=config.decode, num_workers=config.num_workers,
            )  # fmt: skip
    elif config.out is None:
        totals = check_manifest(config)
        print(format_report(totals.report()))
        conclude(config, totals.report())
    else:
        check_into_folder(config, config.out)


def check_into_folder(config: CheckConfig, out: Path) -> None:
    """Check a manifest, print the report, and write it with its plots (and the cleaned manifest).

    Raises:
        InputError: as `conclude`; or the manifest cannot be read to its end, and then the folder is
            removed. If no row could be kept, report, plots and `removed.jsonl` are written, but no
            manifest and no `done`, so that readers refuse the folder.
    """
    with run_folder(out, config, "data_manifests.check", inputs=INPUTS):
        totals = check_manifest(config)
        report = {"manifest": str(config.manifest), "decoded": config.decode, **totals.report()}
        write_json(out / "report.json", report)
        plot_durations(totals.statistics, out / "durations.png")
        plot_speaking_rates(totals.statistics, out / "speaking_rates.png")
        print(format_report(report))
        if config.fix and totals.num_problems == totals.num_rows:
            raise InputError(
                f"every one of {totals.num_rows} rows has a problem, nothing is left to write; see "
                f"{out / REMOVED_NAME}"
            )
    conclude(config, report)


def check_manifest(config: CheckConfig) -> ManifestTotals:
    """Examine every row; with `--fix`, write the sound ones and list the others along the way."""
    totals = ManifestTotals()
    with ExitStack() as stack:
        cleaned = None
        if config.fix and config.out is not None:
            cleaned = stack.enter_context(cleaned_manifest(config.out, config.manifest.name))
        if config.examined is None:
            utterances = read_manifest(config.manifest, unique_ids=False)
            examined = examine_all(utterances, decode=config.decode, num_workers=config.num_workers)
        else:
            examined = read_examined(config.examined, config.manifest, decode=config.decode)
        others = stack.enter_context(
            other_manifests(
                config.against,
                config.manifest,
                by=config.against_by,
                decode=config.decode,
                num_workers=config.num_workers,
            )
        )
        total = _count_lines(config.manifest)
        for utterance, examination in tqdm(examined, "check", total, unit=" utterances"):
            shared = find_shared(others, utterance, examination)
            problem = totals.add(utterance, examination, shared)
            if cleaned is not None:
                cleaned.add(utterance, problem)
        totals.shared = {url_of(other.path): other.report() for other in others}
    return totals


def format_report(report: dict[str, Any]) -> str:
    """The table, then problems and observations by kind, each with its first examples."""
    lines = [format_table(report["corpora"]), ""]
    for name in ("problems", "observations"):
        lines.append(f"{name}:" if report[name] else f"{name}: none")
        for kind, count in report[name].items():
            lines.append(f"  {count} {kind}")
            lines += [f"      {example}" for example in report["examples"][kind]]
            if count > len(report["examples"][kind]):
                lines.append("      ...")
    if report["english"]["num_words"]:
        lines.append(format_english(report["english"]))
    lines += format_shared(report["shared"])
    key = language().key
    characters = report[f"characters_outside_{key}"]
    if characters:
        shown = list(characters.items())[:NUM_CHARACTERS_SHOWN]
        num_more = report[f"num_distinct_characters_outside_{key}"] - len(shown)
        lines.append(f"characters outside the {language().name} inventory:")
        lines += [f"  {count:>7} {name}" for name, count in shown]
        lines += [f"  and {num_more} others"] if num_more else []
    return "\n".join(lines)


def conclude(config: CheckConfig, report: dict[str, Any]) -> None:
    """Print what was written.

    Raises:
        InputError: there are problems, and no cleaned manifest was requested.
    """
    num_rows, num_problems = report["num_rows"], report["num_problems"]
    if config.fix and config.out is not None:
        removed = f"{num_problems} removed, listed in {REMOVED_NAME}"
        print(f"{num_rows - num_problems} of {num_rows} rows kept, {removed}")
        print(config.out / config.manifest.name)
        return
    if num_problems:
        kinds = ", ".join(f"{count} {kind}" for kind, count in report["problems"].items())
        problems = "1 problem" if num_problems == 1 else f"{num_problems} problems"
        raise InputError(
            f"{config.manifest}: {problems} in {num_rows} rows ({kinds}); --fix --out FOLDER "
            "writes a manifest without them"
        )


def _count_lines(path: Path) -> int | None:
    """Number of rows, for the progress bar; None if the file cannot be read twice (a pipe)."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(partial(file.read, 2**20), b""))


if __name__ == "__main__":
    run_command(main)
