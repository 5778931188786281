"""Show the patterns of world.toml as readable tables, as in demo/README.md.

python -m demo.world.describe            prints them
python -m demo.world.describe --write    copies them into demo/README.md
"""

from dataclasses import dataclass
from pathlib import Path

from commands.command_line import parse_config, run_command
from demo.world.facts import read_world
from demo.world.grammar import Question, all_questions

README_PATH = Path(__file__).parents[1] / "README.md"
START = "<!-- from here on written by: python -m demo.world.describe --write -->"


@dataclass(frozen=True, kw_only=True)
class DescribeConfig:
    """Show the patterns of demo/world.toml as readable tables."""

    write: bool = False
    """copy them into demo/README.md instead of printing them"""


def main(argv: list[str] | None = None) -> None:
    """Print the tables, or write them."""
    config = parse_config(DescribeConfig, argv)
    if not config.write:
        print(pattern_tables(), end="")
        return
    introduction, found, _ = README_PATH.read_text(encoding="utf-8").partition(START)
    assert found, f"{README_PATH} has lost the line {START}"
    README_PATH.write_text(f"{introduction}{START}\n\n{pattern_tables()}", encoding="utf-8")


def pattern_tables() -> str:
    """The carriers, one table per relation, and the word lists, as Markdown."""
    return "\n".join([*_carriers(), *_relations(), *_word_lists()])


def _carriers() -> list[str]:
    world = read_world()
    lines = ["### Carriers", "", "| kind | Twi | English | asks for |", "|---|---|---|---|"]
    for kind, carriers in world["carriers"].items():
        for twi, english, form in carriers:
            asks_for = "the full answer" if form == "full" else "the short answer"
            lines.append(f"| {kind.replace('_', ' ')} | {twi} | {english} | {asks_for} |")
    twi, english = world["polite"]
    lines += ["", f'Before about one combination in ten, also: "{twi}" ({english}).', ""]
    lines += ["### What interrupts", "", "| Twi | English | answer |", "|---|---|---|"]
    lines += [
        f"| {twi} | {english} | {answer} |" for twi, english, answer in world["interruptions"]
    ]
    return [*lines, ""]


def _relations() -> list[str]:
    examples: dict[str, Question] = {}
    num_combinations: dict[str, int] = {}
    for question in all_questions():
        if not question.polite:
            examples.setdefault(question.relation, question)
            num_combinations[question.relation] = num_combinations.get(question.relation, 0) + 1
    lines = []
    for name, relation in read_world()["relations"].items():
        lines += [
            f"### {name}: {relation['english']} ({num_combinations[name]} combinations)",
            "",
            "| Twi | English | answer |",
            "|---|---|---|",
        ]
        lines += [f"| {twi} | {english} | {ans} |" for twi, english, ans in relation["phrasings"]]
        answers = [relation[form] for form in ("answer", "short") if form in relation]
        for twi, english in relation.get("noun_phrases", []):
            kinds = ", ".join(kind.replace("_", " ") for kind in relation["carriers"])
            lines.append(f"| *{twi}* (carriers: {kinds}) | {english} | {' or: '.join(answers)} |")
        example = examples[name]
        lines += ["", f"Example: {example.text} → {example.answer}", ""]
    return lines


def _word_lists() -> list[str]:
    lines = ["### Words", ""]
    for name, table in read_world()["tables"].items():
        english = table["columns"].index("english")
        columns = ["English", *(c.replace("_", " ") for c in table["columns"] if c != "english")]
        lines += [f"**{name}**", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        for row in table["rows"]:
            twi = [value for i, value in enumerate(row) if i != english]
            lines.append(f"| {row[english]} | {' | '.join(twi)} |")
        lines.append("")
    return lines


if __name__ == "__main__":
    run_command(main)
