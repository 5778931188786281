"""Questions that one may ask: a small trained world knows few others, and nobody can guess them."""

import sys
from pathlib import Path

from commands.errors import InputError

MAX_EXAMPLES, MAX_EXAMPLE_CHARACTERS = 20, 200


def read_examples(path: Path | None) -> list[str]:
    """Questions that are suggested, one a line of the file; raises InputError if it cannot be
    read."""
    if path is None:
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--examples {path}: {error}") from None
    return [line.strip()[:MAX_EXAMPLE_CHARACTERS] for line in lines if line.strip()][:MAX_EXAMPLES]


def greet(examples: list[str]) -> None:
    """Say on stderr what may be asked, if that is known."""
    if examples:
        print("You may ask, for example:", *examples, sep="\n  ", file=sys.stderr)
