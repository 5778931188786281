"""Languages other than Twi, for tests: in this process, and in files of their own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from data_manifests.language import VARIABLE, Language, language, speaking


@contextmanager
def in_language(name: str) -> Iterator[Language]:
    """Use a language in this process, whatever the environment says; then the one of before."""
    before = os.environ.pop(VARIABLE, None)
    try:
        with speaking(name) as used:
            yield used
    finally:
        if before is not None:
            os.environ[VARIABLE] = before
        language.cache_clear()
