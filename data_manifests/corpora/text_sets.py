"""Public Twi texts for stage 2: how each is laid out, licensed, and wrong.

"seen", "told" and "guessed" mean what they mean in `instruction_sets.py`. Licences change: read
that of your copy before you publish.

    for table, path in named_tables(("bible_asante=twi-twiasante.txt",), TEXT_SETS):
        for number, text in read_texts(table, open_public_table(table, path)):
            ...
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from data_manifests.corpora.public_tables import Layout, OpenedTable, PublicTable
from data_manifests.corpora.text_tables import cell_text, holds_half_pair
from data_manifests.left_out_rows import LeftOut


@dataclass(frozen=True, kw_only=True)
class TextSet(PublicTable):
    """A public table of texts.

    A layout reads "text", and "source" where rows name theirs.

    Attributes:
        dialect: asante, akuapem, fante, or unknown if the texts are mixed.
        is_web: only sentences that end as sentences are used, because pages hold menus and titles.
        foreign_source: rows whose source matches are not the publisher's to license: their licence
            is "unknown".
    """

    dialect: str = "unknown"
    is_web: bool = False
    foreign_source: re.Pattern[str] | None = None


@dataclass(frozen=True)
class PublicText:
    """A text of a public table.

    Attributes:
        text: one or more sentences, as the table has them.
        license: of this row: SPDX name, or "unknown".
    """

    text: str
    license: str


# Twi-English parallel text of Ghana NLP Community: 124,445 rows. CC BY 4.0 on its card; an audit of
# a later revision reads CC BY-NC 4.0. Layout told. Mostly verses of the Bible and examples of
# dictionaries, some a single word. The verses were taken from YouVersion, whose translations belong
# to others: their licence is given as unknown.
PARALLEL_TWI = TextSet(
    name="parallel_twi",
    hub="ghananlpcommunity/twi-english-parallel-text",
    license="CC-BY-4.0",
    layouts=(Layout(columns={"text": "twi"}, also={"source": "source_files"}),),
    folders=("data",),
    foreign_source=re.compile("youversion", re.IGNORECASE),
)

# FineWeb-2, Twi: web pages of Common Crawl. ODC-By 1.0, and the terms of Common Crawl. Layout told.
# Pages mix dialects, and English with Twi; many are religious. Number of rows not known here.
FINEWEB2_TWI = TextSet(
    name="fineweb2_twi",
    hub="HuggingFaceFW/fineweb-2",
    config="twi_Latn",
    license="ODC-By-1.0",
    layouts=(Layout(columns={"text": "text"}),),
    folders=("data/twi_Latn/train", "twi_Latn/train", "twi_Latn"),
    is_web=True,
)


def _bible(dialect: str, file: str) -> TextSet:
    """Nkwa Asem of Biblica. CC BY-SA 4.0. About 31,000 verses. BibleTTS reads the same text. Layout
    told: eBible's corpus, a verse a line, empty lines for verses that are missing, <range> for
    those that stand with the one before; guessed: eBible's own lines, GEN 1:1 and the verse."""
    return TextSet(
        name=f"bible_{dialect}",
        license="CC-BY-SA-4.0",
        dialect=dialect,
        layouts=(Layout(columns={"text": "text"}),),
        how_to_get=f"it is corpus/{file} of github.com/BibleNLP/ebible",
    )


# Any other text.
OWN_TEXT = TextSet(
    name="text",
    license="unknown",
    layouts=tuple(Layout(columns={"text": name}) for name in ("text", "twi", "sentence")),
    how_to_get="a .txt file, or a table with a column text",
)

TEXT_SETS: Mapping[str, TextSet] = {
    table.name: table
    for table in (
        OWN_TEXT, _bible("asante", "twi-twiasante.txt"), _bible("akuapem", "twi-twi.txt"),
        PARALLEL_TWI, FINEWEB2_TWI,
    )
}  # fmt: skip
"""In the order in which they are read: of equal sentences the first is kept."""

_VERSE = re.compile(r"[1-4]?[A-Z]{2,3} \d+:\d+(?:-\d+)? |<range>")


def read_texts(table: TextSet, opened: OpenedTable) -> Iterator[tuple[int, PublicText | LeftOut]]:
    """The texts of a set, each with the number of its row; or why the row has none.

    Raises:
        InputError: a cell cannot be decoded.
    """
    for row in opened.read():
        text = cell_text(row.cells["text"])
        if text is None or holds_half_pair(text):
            yield row.number, LeftOut("no text")
            continue
        text = _VERSE.sub("", text, count=1) if _VERSE.match(text) else text
        if not text:
            yield row.number, LeftOut("empty")
            continue
        source = str(row.cells.get("source") or "")
        is_foreign = table.foreign_source is not None and table.foreign_source.search(source)
        yield row.number, PublicText(text, "unknown" if is_foreign else table.license)
