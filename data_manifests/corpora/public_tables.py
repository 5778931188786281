"""Public tables of Twi texts by name, from the hub or from a copy on disk: `--corpus NAME[=PATH]`.

for table, path in named_tables(("afriqa_twi=afriqa.jsonl", "alpaca_twi"), INSTRUCTION_SETS):
    opened = open_public_table(table, path)
    for row in opened.read():
        row.cells["question"]
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from commands.errors import InputError, nearest_name
from commands.regular_files import list_files_below
from commands.setting_types import refuse_impossible_path
from data_manifests.corpora.text_tables import (
    TEXT_FORMATS,
    TextTable,
    open_hub_tables,
    open_table_file,
)

# Official test splits are never read, so that what others publish about them can be compared.
_IS_TEST = re.compile(r"(?:^|[\W_])test(?:[\W_]|$)", re.IGNORECASE)
# Files of a repository that look like tables and are none.
_NO_TABLE = re.compile(r"dataset_infos?\.json|dataset_dict\.json|state\.json|README.*|LICENSE.*")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way in which a table's columns are called.

    Attributes:
        columns: what is read -> its column; all of them must be there.
        also: the same for columns that are read if they are there.
    """

    columns: Mapping[str, str]
    also: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PublicTable:
    """A public table: where it is, how it is licensed and how it is laid out.

    Attributes:
        name: what `--corpus` calls it.
        license: SPDX name, or "unknown".
        layouts: the first whose columns are there is used.
        hub: its name on the Hugging Face hub; "" if it must be downloaded by hand.
        config: which of its configurations.
        parquet_files: split -> pattern of Parquet files on the hub, where its own loading is code.
        folders: where its rows lie in a copy of its repository: the first that exists is used.
        excluded: column -> values whose rows are left out.
        how_to_get: where to download it, if it is not on the hub.
    """

    name: str
    license: str
    layouts: tuple[Layout, ...]
    hub: str = ""
    config: str | None = None
    parquet_files: Mapping[str, str] | None = None
    folders: tuple[str, ...] = ()
    excluded: Mapping[str, frozenset[str]] = field(default_factory=dict)
    how_to_get: str = ""


Named = TypeVar("Named", bound=PublicTable)


@dataclass(frozen=True)
class TableRow:
    """A row.

    Attributes:
        number: from 0, over all files or splits.
        cells: what the layout reads -> the cell as it is in the table.
        excluded: why it is left out, "" if it is not.
    """

    number: int
    cells: dict[str, Any]
    excluded: str = ""


@dataclass(frozen=True)
class OpenedTable:
    """A public table whose files were found and whose columns are known; may be read many times."""

    parts: list[tuple[TextTable, Layout]]
    excluded: Mapping[str, frozenset[str]]

    def __len__(self) -> int:
        return sum(len(part) for part, _ in self.parts)

    def read(self) -> Iterator[TableRow]:
        """Stream the rows of all parts; InputError if a cell cannot be decoded."""
        number = 0
        for part, layout in self.parts:
            names = {**layout.columns, **layout.also}
            names = {what: column for what, column in names.items() if column in part.columns}
            guards = [column for column in self.excluded if column in part.columns]
            for row in part.read(sorted({*names.values(), *guards})):
                reason = next(
                    (f"{c} is {row[c]}" for c in guards if row[c] in self.excluded[c]), ""
                )
                yield TableRow(number, {what: row[c] for what, c in names.items()}, reason)
                number += 1


def named_tables(settings: Sequence[str], known: Mapping[str, Named]) -> list[tuple[Named, str]]:
    """("alpaca_twi", "afriqa_twi=x.jsonl") -> tables and paths ("" if none), in the order of
    `known`, so that the order of the words changes nothing.

    Raises:
        InputError: an unknown name, one without a path that is not on the hub, an impossible path,
            or a name that is repeated.
    """
    found: dict[str, str] = {}
    for setting in settings:
        name, equals, path = setting.partition("=")
        if name not in known:
            hint = nearest_name(name, list(known))
            raise InputError(f"--corpus {setting!r}: unknown corpus {name!r}: {hint}")
        if name in found:
            raise InputError(
                f"--corpus {name!r} is repeated: name a folder that holds all its files"
            )
        if equals and not path:
            raise InputError(f"--corpus {setting!r} is not like {name}=PATH")
        if not path and not known[name].hub:
            raise InputError(
                f"--corpus {name}: needs its path: {name}=PATH; {known[name].how_to_get}"
            )
        try:
            refuse_impossible_path(Path(path))
        except ValueError as error:
            raise InputError(f"--corpus {name}=... {error}") from None
        found[name] = path
    return [(table, found[name]) for name, table in known.items() if name in found]


def open_public_table(table: PublicTable, path: str) -> OpenedTable:
    """Open a table, and find out which of its layouts it has.

    Args:
        table: which.
        path: a file, a folder with files (a copy of its repository, say), or "" for the hub.

    Raises:
        InputError: nothing there, not readable, or columns of no known layout; the message names
            those that were found.
    """
    where = f"--corpus {table.name}" + (f"={path}" if path else "")
    parts = _open_local(table, Path(path), where) if path else _open_hub(table, where)
    return OpenedTable([(part, _layout_of(part, table)) for part in parts], table.excluded)


def _open_hub(table: PublicTable, where: str) -> list[TextTable]:
    splits = open_hub_tables(
        table.hub, where=where, config=table.config, parquet_files=table.parquet_files
    )
    return [part for split, part in splits.items() if not _IS_TEST.search(split)]


def _open_local(table: PublicTable, path: Path, where: str) -> list[TextTable]:
    if path.is_file():
        return [open_table_file(path, where=where, formats=TEXT_FORMATS)]
    if not path.is_dir():
        raise InputError(f"{where}: no such file or folder")
    folder = next((path / name for name in table.folders if (path / name).is_dir()), path)
    files = [
        file
        for file in list_files_below(folder)
        if file.suffix in TEXT_FORMATS
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
        and not _NO_TABLE.fullmatch(file.name)
        and not _IS_TEST.search(str(file.relative_to(folder)))
    ]
    if not files:
        endings = ", ".join(TEXT_FORMATS)
        raise InputError(f"{where}: no table in it ({endings}; files named test are not read)")
    return [
        open_table_file(file, where=f"{where}, {file.name}", formats=TEXT_FORMATS) for file in files
    ]


def _layout_of(part: TextTable, table: PublicTable) -> Layout:
    for layout in table.layouts:
        if {*layout.columns.values()} <= {*part.columns}:
            return layout
    wanted = " or ".join(" + ".join(layout.columns.values()) for layout in table.layouts)
    raise InputError(
        f"{part.where}: its columns are {', '.join(part.columns)}; expected {wanted}; with other "
        "columns, rename them in a copy"
    )
