"""What something was made from: corpora with their licences, and the models of others.

    embeddings.sources                   # what is in it: common_voice, CC0-1.0, 205 rows, 0.3 h
    sources = merge(used_for(embeddings.sources, QUANTIZER), recognizer.sources)
    refuse_licenses({embeddings.name: sources}, allowed=config.inputs.allow_licenses)

As fingerprints do (`origins.py`), a record passes from stage to stage: from manifests to
embeddings, to codes, to the models that are trained on them, to what these write, and so on.
Folders hold it in `provenance.json`, models in their `config.json`, Parquet files in their schema.
It counts by corpus and licence, so it is as short for ten thousand hours as for one.

What only measures (dev and test data, and a recogniser that chooses among checkpoints) is no
source; a recogniser that trains, chooses takes or aligns is one.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from commands.errors import InputError
from commands.licenses import UNKNOWN_LICENSE, is_allowed
from commands.setting_types import NonNegativeFloat, NonNegativeInt

# What data are used for. Rows that something holds itself are used for nothing yet: "".
HELD = ""
QUANTIZER, RECOGNIZER, SPEECHLESS = "quantiser", "recogniser", "Speechless"
QUESTIONS, ADAPTER, HEAD = "questions", "adapter", "speech head"
BASE_MODEL = "base model"
NOT_RECORDED = "not recorded"
MANY = "many"
MAX_SOURCES = 1000  # of a record: a corpus with a name of its own in every row is not listed so

ShortName = Annotated[str, Field(max_length=200)]


@dataclass(frozen=True)
class Source:
    """Rows of one corpus under one licence, or a model of others.

    Attributes:
        corpus: its name; of a model its hub name, or that of its folder; "not recorded" where
            nothing says it.
        license: its SPDX name, or "unknown"; of a model "", because its licence is not looked up.
        used_for: what was made from it: "quantiser", ...; "" for rows that are held themselves.
        rows: utterances, sentences or dialogues.
        duration_s: of the speech, in seconds; 0 for text.
    """

    corpus: ShortName
    license: ShortName
    used_for: ShortName = HELD
    rows: NonNegativeInt = 0
    duration_s: NonNegativeFloat = 0.0


Sources = tuple[Source, ...]
_Counts = dict[tuple[str, str, str], tuple[int, float]]  # by what it is used for, corpus, licence


@dataclass(frozen=True)
class SourceOfShard(Source):
    """What a shard of a folder was made from; `rows` and `duration_s` are those of the shard."""

    shard: NonNegativeInt = 0


def count_sources(rows: Iterable[tuple[str, str, float]]) -> Sources:
    """Count rows by corpus and licence.

    Args:
        rows: of each its corpus and licence, "" where they are not known, and its seconds of
            speech.
    """
    return merge(
        Source(corpus.strip() or NOT_RECORDED, license.strip() or UNKNOWN_LICENSE, HELD, 1, seconds)
        for corpus, license, seconds in rows
    )


def merge(*several: Iterable[Source]) -> Sources:
    """One record of several: of the parts of one thing, or of all that something was made with.

    Rows that are held are added up. What was used is the same for all parts, and is kept once; of
    two counts of it the larger. Of over 1,000 different ones only the licences are kept apart, and
    their corpora are "many".
    """
    found: _Counts = {}
    limit = MAX_SOURCES
    for sources in several:
        for source in sources:
            key = (source.used_for, source.corpus, source.license)
            rows, seconds = found.get(key, (0, 0.0))
            if source.used_for == HELD:
                found[key] = (rows + source.rows, seconds + source.duration_s)
            else:
                found[key] = (max(rows, source.rows), max(seconds, source.duration_s))
            if len(found) > limit:
                found = _without_corpora(found)
                limit = max(MAX_SOURCES, 2 * len(found))
    return tuple(
        Source(corpus, license, role, rows, round(seconds, 3))
        for (role, corpus, license), (rows, seconds) in sorted(found.items())
    )


def used_for(sources: Iterable[Source], role: str) -> Sources:
    """What is recorded of something that is made from data: the rows held there are its own
    data."""
    return merge(
        replace(source, used_for=role) if source.used_for == HELD else source for source in sources
    )


def known(recorded: Sources | None, role: str = HELD) -> Sources:
    """A record; where there is none, one that says so.

    Args:
        recorded: None in what older versions or others have made.
        role: what the unknown data were used for.
    """
    return (Source(NOT_RECORDED, UNKNOWN_LICENSE, role),) if recorded is None else recorded


def base_model(name: str) -> Source:
    """A model of others, named by a user: a hub name, or a folder."""
    path = Path(name)
    return Source(path.resolve().name if path.exists() else name, "", BASE_MODEL)


def as_facts(sources: Iterable[Source]) -> list[dict[str, Any]]:
    """A record as files hold it."""
    return [asdict(source) for source in sources]


def as_sources(recorded: Iterable[Source | Mapping[str, Any]] | None) -> Sources | None:
    """A record from a config that the hub's mixin has read: objects in place of mappings."""
    if recorded is None:
        return None
    return tuple(s if isinstance(s, Source) else Source(**s) for s in recorded)


def data_of(sources: Iterable[Source]) -> Sources:
    """The data among the sources."""
    return tuple(source for source in sources if source.used_for != BASE_MODEL)


def base_models_of(sources: Iterable[Source]) -> Sources:
    """The models of others among the sources."""
    return tuple(source for source in sources if source.used_for == BASE_MODEL)


def refuse_licenses(inputs: Mapping[str, Iterable[Source]], allowed: Collection[str]) -> None:
    """Raise InputError if something was made from data under a licence that is not allowed.

    Args:
        inputs: by flag and value: "--codes data/codes".
        allowed: SPDX names (`--allow-licenses`); all licences are allowed if it is empty.
    """
    for name, sources in inputs.items():
        for source in data_of(sources):
            if not is_allowed(source.license, allowed):
                how = f" (used for: {source.used_for})" if source.used_for else ""
                raise InputError(
                    f"{name} was made from {source.corpus}{how}, whose licence is {source.license}:"
                    f" --allow-licenses names only {', '.join(allowed)}; make it again without, as "
                    "with data_manifests.build --allow-licenses, or name this licence too"
                )


def _without_corpora(found: _Counts) -> _Counts:
    joined: _Counts = {}
    for (role, corpus, license), (rows, seconds) in found.items():
        key = (role, corpus if role == BASE_MODEL else MANY, license)
        rows_before, seconds_before = joined.get(key, (0, 0.0))
        joined[key] = (rows_before + rows, seconds_before + seconds)
    return joined
