"""The card of a published pipeline: a README.md made only from what was recorded and measured.

What was not measured reads "not yet measured". It contains no local paths.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import ModelCardData

from commands.data_card import data_section, license_facts
from commands.sources import Sources
from commands.trained_pipeline import PartName
from data_manifests.language import language
from pipeline.published_parts import MADE_BY
from pipeline.report import LINES, look_up
from pipeline.samples import SpokenSample
from stage1_rvq.model_card import NOT_MEASURED

DOES: Mapping[PartName, str] = {
    "gemma": "hears, and writes the answer",
    "finetune": "adapter, with which Gemma answers spoken {language}",
    "head": "speech head: what Gemma means to say -> codes of Mimi",
    "mimi": "codec: codes -> speech",
    "rvq": "quantiser: speech embeddings -> codes",
    "recognizer": "recogniser: speech embeddings -> text; it judges",
    "speechless": "text -> codes; it spoke the questions of the training",
}


@dataclass(frozen=True)
class CardFacts:
    """What a card is made from.

    Attributes:
        folders: parts in the repository, by their folders in it.
        names: parts on the hub, by their names.
        base: hub name or folder name of the Gemma that was trained on.
        base_models: hub names of it and of Mimi, if they have any.
        is_merged: whether `gemma` is that base with the adapter merged into it.
        stages: what was measured, as `pipeline.report.measured_stages`.
        judge: what transcribed the head's speech; None if nothing did.
        samples: of its speech; their WAVs are named by their paths in the repository.
        sources: the data and models of others that all parts were made from.
        voices: names of those that the head speaks in; empty if it has one voice.
    """

    folders: Mapping[PartName, str]
    names: Mapping[PartName, str]
    base: str
    base_models: Sequence[str]
    is_merged: bool
    stages: Mapping[str, Any]
    judge: str | None
    samples: Sequence[SpokenSample]
    sources: Sources
    voices: Sequence[str] = ()


def pipeline_card(facts: CardFacts) -> str:
    """Write the card."""
    front_matter: dict[str, Any] = {
        "base_model": list(facts.base_models) or None,
        "language": list(language().codes),
        "library_name": "speechless-twi",
        "pipeline_tag": "any-to-any",
        "tags": ["speech", *language().tags, "gemma4", "text-to-speech"],
        **license_facts(facts.sources),
    }
    return CARD.format(
        front_matter=ModelCardData(**front_matter).to_yaml(),
        base=facts.base,
        language=language().name,
        parts="\n".join(_part_rows(facts)),
        measured="\n".join(_measured_rows(facts.stages)),
        judged=_judged(facts),
        samples="\n".join(_sample_rows(facts.samples)),
        voices=_voices(facts.voices),
        data=data_section(facts.sources),
    )


def _part_rows(facts: CardFacts) -> list[str]:
    places = {part: f"`{name}` on the hub" for part, name in facts.names.items()}
    places |= {part: f"[{folder}]({folder})" for part, folder in facts.folders.items()}
    rows = []
    for part, does in DOES.items():
        if part in places:
            made_by = f"`{MADE_BY[part]}`" if part in MADE_BY else "others"
            if part == "gemma" and facts.is_merged:
                made_by, does = "`stage3_finetune.train`", f"{does}; the adapter is merged into it"
            does = does.format(language=language().name)
            rows.append(f"| {places[part]} | {does} | {made_by} |")
    return rows


def _measured_rows(stages: Mapping[str, Any]) -> list[str]:
    rows = []
    for line in LINES:
        if line.stage in stages:
            value = look_up(stages, line)
            shown = NOT_MEASURED if value is None else f"{value:.3f}"
            rows.append(f"| {line.stage} | {line.label} | {shown} | {line.meaning} |")
    return rows


def _judged(facts: CardFacts) -> str:
    held_out = {name: facts.stages[name]["num_held_out"] for name in ("stage3", "speech_head")}
    asked, spoken = held_out["stage3"], held_out["speech_head"]
    lines = ["Rates are fractions: 0.05 is 5 %. A ceiling is what the best input would reach."]
    if asked:
        lines.append(f"Stage 3 was asked {asked:,} held-out questions.")
    if spoken:
        by = f", transcribed by {facts.judge}" if facts.judge else ", which nothing transcribed"
        lines.append(f"The speech head spoke {spoken:,} held-out texts{by}.")
    if facts.is_merged:
        lines.append("They were measured before the adapter was merged into Gemma.")
    lines.append("No figure here is a person's judgement.")
    return " ".join(lines)


def _sample_rows(samples: Sequence[SpokenSample]) -> list[str]:
    if not samples:
        return ["None: no speech of this head was kept when it was judged."]
    rows = ["| question | answer | the judge heard | speech |", "|---|---|---|---|"]
    for sample in samples:
        cells = (sample.question, sample.answer, sample.heard)
        texts = (" ".join(text.split()).replace("|", "\\|") for text in cells)
        link = f"[listen]({quote(sample.wav.as_posix())})"
        rows.append(f"| {' | '.join(texts)} | {link} |")
    return rows


def _voices(names: Sequence[str]) -> str:
    if not names:
        return "It has one voice."
    listed = ", ".join(f"`{name}`" for name in names)
    return (
        f"Its voices, for `--voice`: {listed}. With `--voice-recording` it speaks in the voice of "
        "a recording; use only one of a person who has agreed to it."
    )


def shown_name(name: str) -> str:
    """A model as a card names it: a hub name, or the last name of a folder."""
    path = Path(name)
    return path.resolve().name if path.exists() or path.is_absolute() else name


CARD = """---
{front_matter}
---

# Spoken {language}: `{base}` hears {language} and answers aloud

A trained pipeline: everything that is needed to talk with it, to measure it, and to train on.
`pipeline.json` says which part is where.

| part | what it does | made by |
|---|---|---|
{parts}

## Talk with it

With a clone of the project Spoken Twi, whose commands made this; `NAME` is the name of this
repository, or a folder with a copy of it:

```bash
HF_HUB_OFFLINE=0 make serve PIPELINE=NAME
python -m voice_chat.chat --pipeline NAME
python -m speech_head.speak --pipeline NAME --text "Maakye." --out maakye.wav
```

The first talks in the browser, hands free, the second in the terminal, the third reads a text
aloud. Every part is a folder that the project's other commands take as well: `--head
FOLDER/head`, `--rvq FOLDER/rvq`.

## Measured

| stage | measure | value | what it is |
|---|---|---|---|
{measured}

{judged}

## Samples

{samples}

## A synthetic voice

What it says is spoken by nobody: tell whoever hears it that the voice is synthetic. It resembles
the people of the corpora that the speech head was trained on (below). Never use it to pose as
them, or as anyone. Answers may be wrong, and no speaker of {language} has checked them unless
somebody says so here.

{voices}

{data}"""
