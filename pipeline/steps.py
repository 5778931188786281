"""A list of commands to run one after another, written as text: the demo's, the rehearsal's.

steps = read_steps("stage1 stage1_rvq.embed --manifest {data}/train.jsonl --out {out}/train",
                   {"data": "data/cv", "out": "runs/all"})
steps[0].line  # "python -m stage1_rvq.embed --manifest data/cv/train.jsonl --out runs/all/train"
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from commands.finished_folder import flag_to_use_again, is_output_folder


@dataclass(frozen=True)
class Step:
    """One command of a list.

    Attributes:
        stage: what its time counts for.
        command: its dotted module name.
        words: its flags and their values.
        typed: file with what is typed; None for nothing.
    """

    stage: str
    command: str
    words: tuple[str, ...]
    typed: Path | None = None

    @property
    def line(self) -> str:
        """The command line, as it would be typed."""
        typed = f" < {shlex.quote(str(self.typed))}" if self.typed else ""
        return f"python -m {self.command} {shlex.join(self.words)}{typed}"

    @property
    def out(self) -> Path | None:
        """The folder or file that it writes, as `--out` says."""
        return Path(self.value_of("--out")) if "--out" in self.words else None

    @property
    def description(self) -> Path | None:
        """Where what is printed of a file that it writes is kept; None without --json."""
        is_described = self.out is not None and self.out.suffix and "--json" in self.words
        return self.out.with_suffix(".json") if self.out and is_described else None

    @property
    def has_all_files(self) -> bool:
        """Whether what it writes is there, and whole."""
        if self.out is None:
            return True
        if self.out.suffix:
            return (self.description or self.out).exists()
        # A folder without provenance (of an export) appears only when it is whole.
        return self.out.exists() and (
            not is_output_folder(self.out) or (self.out / "done").exists()
        )

    def value_of(self, flag: str) -> str:
        """The value of a flag, "" where it is not given."""
        return self.words[self.words.index(flag) + 1] if flag in self.words else ""

    def words_to_go_on(self) -> list[str]:
        """Its words, with `--resume` or `--overwrite` where an earlier run has begun its folder."""
        if self.out and (self.out / "config.json").exists():
            return [*self.words, flag_to_use_again(self.out)]
        return list(self.words)


def read_steps(text: str, values: Mapping[str, object]) -> list[Step]:
    """Read a list of steps: a paragraph for each, of its stage, its command, and its words; the
    last may be `< FILE`.

    Args:
        text: the paragraphs.
        values: what takes the place of names in braces. It may hold spaces; a tuple takes the place
            of a word of its own, by as many words as it has.
    """
    steps = []
    for paragraph in text.strip().split("\n\n"):
        stage, command, *words = (
            # The words are split first, so that a value may hold spaces.
            filled
            for word in paragraph.split()
            for filled in _fill(word, values)
        )
        typed = None
        if "<" in words:
            words, typed = words[:-2], Path(words[-1])
        steps.append(Step(stage, command, tuple(words), typed))
    return steps


def _fill(word: str, values: Mapping[str, object]) -> list[str]:
    value = values.get(word[1:-1]) if word[:1] == "{" else None
    if isinstance(value, tuple):
        return [one.format(**values) for one in value]
    return [word.format(**values)]
