"""The section of a model card that says which data, under which licences, made the weights."""

from collections.abc import Iterable

from huggingface_hub import ModelCard

from commands.licenses import UNKNOWN_LICENSE, is_non_commercial
from commands.sources import Source, base_models_of, data_of

HEADING = "## Data and licences"


def data_section(sources: Iterable[Source]) -> str:
    """The section in Markdown: a table, the base models, and what the licences do not allow."""
    sources = tuple(sources)
    lines = [HEADING, "", "| used for | corpus | licence | rows | hours |", "|---|---|---|---|---|"]
    for source in data_of(sources):
        hours = f"{source.duration_s / 3600:.2f}" if source.duration_s else "text"
        rows = f"{source.rows:,}" if source.rows else "not recorded"
        cells = (source.used_for or "data", source.corpus, source.license, rows,
                 hours if source.rows else "not recorded")  # fmt: skip
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    lines.append("")
    if models := base_models_of(sources):
        names = ", ".join(f"`{_cell(model.corpus)}`" for model in models)
        lines += [f"Made with {names}, under licences of their own.", ""]
    if forbidding := licenses_without_commerce(sources):
        lines += [
            f"**For non-commercial use only**: {', '.join(map(_cell, forbidding))} of data in this "
            "table forbids commercial use.",
            "",
        ]
    if any(source.license.casefold() == UNKNOWN_LICENSE for source in data_of(sources)):
        lines += [
            "Where the licence is unknown, nothing was recorded: find it out before you use or "
            "share these weights.",
            "",
        ]
    return "\n".join(lines)


def describe_data(sources: Iterable[Source]) -> str:
    """The data in one line: each corpus with its licence, whatever it was used for."""
    named = sorted({(source.corpus, source.license) for source in data_of(sources)})
    return ", ".join(f"{corpus} ({license})" for corpus, license in named)


def licenses_without_commerce(sources: Iterable[Source]) -> list[str]:
    """The licences among the data's that forbid commercial use."""
    return sorted({s.license for s in data_of(sources) if is_non_commercial(s.license)})


def license_facts(sources: Iterable[Source]) -> dict[str, str]:
    """What the front matter of a card says of the licence, if a source forbids commercial use."""
    if not licenses_without_commerce(sources):
        return {}
    return {"license": "other", "license_name": "non-commercial-data"}


def add_data_section(card: ModelCard, sources: Iterable[Source], *, tag: str) -> ModelCard:
    """Put the section at the end of a card, and a further tag behind its first; returns the
    card."""
    sources = tuple(sources)
    for name, value in license_facts(sources).items():
        setattr(card.data, name, value)
    first, *others = card.data.get("tags")
    card.data["tags"] = [first, tag, *others]
    card.text = f"{card.text.rstrip()}\n\n{data_section(sources)}"
    return card


def _cell(text: str) -> str:
    """Text that breaks no table: a corpus may be named by anybody."""
    return " ".join(text.split()).replace("|", "\\|").replace("`", "'")
