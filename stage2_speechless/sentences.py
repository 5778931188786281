"""Sentences to speak, read from a file.

sentences = read_sentences(Path("sentences.txt"), dialect="asante")
"""

from dataclasses import replace
from pathlib import Path

from commands.errors import InputError
from commands.schema import as_mapping, parse_json, shorten
from data_manifests.language import language
from data_manifests.text_lines import read_lines
from stage2_speechless.speak import Sentence

MAX_NAME_CHARACTERS = 200  # of a corpus or a licence, as in manifests


def read_sentences(path: Path, *, dialect: str, rate_cps: float | None = None) -> list[Sentence]:
    """Read sentences to speak: one per line, with line numbers as ids; or JSON Lines, such as a
    manifest.

    Raises:
        InputError: no such file, not UTF-8, or empty; in JSON Lines (the message names file and
            line), a row that is not JSON, lacks `id` or `text`, repeats an id, or has an unknown
            dialect.
    """
    lines = read_lines(path)
    if not any(line.strip() for line in lines):
        raise InputError(f"{path}: no sentence in it")
    if path.suffix != ".jsonl":
        return [
            Sentence(f"{path.stem}-{number:06d}", line.strip(), dialect, rate_cps)
            for number, line in enumerate(lines, start=1)
        ]
    sentences: dict[str, Sentence] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        sentence = _parse_row(line, f"{path}:{number}", dialect, rate_cps)
        if sentence.id in sentences:
            raise InputError(f"{path}:{number}: id {sentence.id!r} is used twice")
        sentences[sentence.id] = sentence
    return list(sentences.values())


def _parse_row(line: str, origin: str, dialect: str, rate_cps: float | None) -> Sentence:
    row = as_mapping(parse_json(line, where=origin), where=origin)
    for key in ("id", "text"):
        if not isinstance(row.get(key), str):
            raise InputError(f"{origin}: needs a string {key!r}")
    if not row["id"].strip():
        raise InputError(f"{origin}: 'id' is empty")
    named = {}
    for key in ("corpus", "license"):
        value = row.get(key, "")
        if not isinstance(value, str) or len(value) > MAX_NAME_CHARACTERS:
            raise InputError(
                f"{origin}: {key!r} must be a string of at most {MAX_NAME_CHARACTERS} characters, "
                f"got {shorten(value)}"
            )
        named[key] = value
    sentence = Sentence(row["id"], row["text"], dialect, rate_cps, **named)
    if "dialect" not in row:
        return sentence
    if row["dialect"] not in language().all_dialects:
        shown = shorten(row["dialect"])
        raise InputError(f"{origin}: dialect {shown}, known: {', '.join(language().all_dialects)}")
    return replace(sentence, dialect=row["dialect"])
