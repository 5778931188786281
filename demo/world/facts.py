"""Read a world, as world.toml: each relation's phrasings, and the facts that fill their slots."""

import itertools
import string
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from commands.errors import InputError

WORLD_PATH = Path(__file__).with_name("world.toml")
LARGEST_NUMBER = 20


@dataclass(frozen=True)
class Phrasing:
    """A question and its answer, with slots in braces; sentences begin in lower case."""

    question: str
    english: str
    answer: str


@lru_cache
def read_world(path: Path = WORLD_PATH) -> dict[str, Any]:
    """The tables, carriers and relations of a world, unprocessed."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--world {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise InputError(f"--world {path}: not valid TOML: {error}") from None


def relation_phrasings(relation: str, path: Path = WORLD_PATH) -> list[Phrasing]:
    """A relation's own phrasings, then each of its noun phrases in each carrier it takes."""
    world = read_world(path)
    entry = world["relations"][relation]
    phrasings = [Phrasing(*row) for row in entry["phrasings"]]
    carriers = [row for kind in entry.get("carriers", []) for row in world["carriers"][kind]]
    for noun_phrase, english in entry.get("noun_phrases", []):
        for carrier, carrier_english, form in carriers:
            phrasings.append(
                Phrasing(
                    carrier.replace("{np}", noun_phrase),
                    carrier_english.replace("{np}", english),
                    entry["answer"] if form == "full" else entry["short"],
                )
            )
    return phrasings


def relation_facts(relation: str, path: Path = WORLD_PATH) -> dict[str, dict[str, str]]:
    """A relation's facts: the filler of each slot, by the fact's name.

    Only facts that fill every slot of the relation are included: the last number, for example, has
    no number after it.

    Raises:
        ValueError: no fact fills a slot.
    """
    world = read_world(path)
    source = world["relations"][relation]["facts"]
    match source:
        case "sums" | "differences" | "prices" | "changes":
            facts = _calculate(source, world)
        case "colour_guesses":
            facts = _guess_colours(world)
        case _:
            tables = [table_rows(world["tables"][name]) for name in _as_list(source)]
            facts = [
                {slot: value for row in rows for slot, value in row.items()}
                | {"key": "-".join(next(iter(row.values())) for row in rows)}
                for rows in itertools.product(*tables)
            ]
    phrasings = relation_phrasings(relation, path)
    needed = {slot for p in phrasings for slot in slots_of(p.question) | slots_of(p.answer)}
    for slot in sorted(needed):
        if not any(slot in fact for fact in facts):
            raise ValueError(f"{path}: relation {relation}: nothing fills the slot {{{slot}}}")
    return {fact["key"].replace(" ", "_"): fact for fact in facts if needed <= fact.keys()}


def slots_of(pattern: str) -> set[str]:
    return {slot for _, slot, _, _ in string.Formatter().parse(pattern) if slot}


def table_rows(table: dict[str, Any]) -> list[dict[str, str]]:
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    for row in rows:
        del row["english"]
    if table.get("both_ways"):
        rows += [dict(zip(row, reversed(row.values()), strict=True)) for row in rows]
    if order := table.get("order"):
        names = [next(iter(row.values())) for row in rows]
        for i, row in enumerate(rows):
            if order == "cycle" or i + 1 < len(rows):
                row["after"] = names[(i + 1) % len(rows)]
            if order == "cycle" or i > 0:
                row["before"] = names[i - 1]
    return rows


def _calculate(source: str, world: dict[str, Any]) -> list[dict[str, str]]:
    """Facts about the numbers to twenty: {a}, {a_counted} and so on, in words."""
    numbers = range(1, LARGEST_NUMBER + 1)
    pairs = list(itertools.product(numbers, numbers))
    match source:
        case "sums":
            results = [{"a": a, "b": b, "total": a + b} for a, b in pairs if max(a, b) <= 10]
        case "differences":
            results = [{"a": a, "b": b, "rest": a - b} for a, b in pairs if max(a - b, b) <= 10]
        case "changes":
            results = [{"paid": a, "cost": b, "rest": a - b} for a, b in pairs if a % 5 == 0]
        case _:
            results = [
                {"each": a, "count": b, "total": a * b} for a, b in pairs if a <= 10 and 2 <= b <= 5
            ]
    rows = table_rows(world["tables"]["number"])
    facts = []
    for result in results:
        if not all(value in numbers for value in result.values()):
            continue
        fact = {f"{slot}_counted": rows[value - 1]["counted"] for slot, value in result.items()}
        fact |= {slot: rows[value - 1]["number"] for slot, value in result.items()}
        fact["key"] = "-".join(rows[value - 1]["number"] for value in list(result.values())[:2])
        facts.append(fact)
    if source != "prices":
        return facts
    fruits = [row["fruit"] for row in table_rows(world["tables"]["fruit"])]
    return [
        fact | {"fruit": fruit, "key": f"{fruit}-{fact['key']}"}
        for fact in facts
        for fruit in fruits
    ]


def _guess_colours(world: dict[str, Any]) -> list[dict[str, str]]:
    """For each thing, its own colour and two others."""
    colours = [row["colour"] for row in table_rows(world["tables"]["colour"])]
    facts = []
    for thing in table_rows(world["tables"]["thing"]):
        for step in (0, 1, 3):
            asked = colours[(colours.index(thing["colour"]) + step) % len(colours)]
            answer = world["yes" if step == 0 else "no"][0]
            key = f"{thing['thing']}-{asked}"
            facts.append(thing | {"asked": asked, "yes": answer, "key": key})
    return facts


def _as_list(names: str | list[str]) -> list[str]:
    return [names] if isinstance(names, str) else names
