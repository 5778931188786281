"""Read the recordings of all requested corpora once, and write their audio as files."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from commands.atomic_write import ASIDE_SUFFIX, written_aside
from commands.errors import InputError
from data_manifests.corpora.recording import Recording
from data_manifests.manifest import Utterance
from data_manifests.twi_dialects import guess_dialect

_PLAIN_NAME = re.compile(r"(?![.-])[^/\\:*?\"<>|\x00-\x1f\x7f]+")
MAX_PLAIN_BYTES = 200  # file systems allow 255, and a file being written has a longer name


def collect_recordings(
    recipes: Sequence[tuple[str, Iterable[Recording]]], dropped: list[dict[str, str]]
) -> dict[str, Recording]:
    """Read every recipe to its end.

    Args:
        recipes: pairs of a corpus's name and its recordings.
        dropped: rows that are left out are appended to it, with the reason.

    Returns:
        Every recording by its utterance's id; the first of two with the same id. If the dialect is
        unknown, the utterance has a `dialect_guess` where its spelling allows one.

    Raises:
        InputError: a corpus without a usable utterance.
    """
    recordings: dict[str, Recording] = {}
    for name, rows in recipes:
        num_before = len(recordings)
        for recording in tqdm(rows, desc=name, unit=" utterances"):
            utterance = _with_dialect_guess(recording.utterance)
            if utterance.id in recordings:
                reason = f"its id is that of another recording of {name}"
                dropped.append({"corpus": name, "id": utterance.id, "reason": reason})
                continue
            recordings[utterance.id] = replace(recording, utterance=utterance)
        if len(recordings) == num_before:
            reasons = Counter(row["reason"] for row in dropped if row["corpus"] == name)
            most = "; ".join(f"{reason} ({n})" for reason, n in reasons.most_common(1))
            raise InputError(f"{name}: no usable utterance{': ' + most if most else ''}")
    return recordings


def _with_dialect_guess(utterance: Utterance) -> Utterance:
    if utterance.dialect != "unknown":
        return utterance
    guess = guess_dialect(utterance.text)
    return utterance if guess == "unknown" else replace(utterance, dialect_guess=guess)


def write_audio(
    out: Path, chosen: Sequence[Utterance], recordings: Mapping[str, Recording]
) -> Iterator[Utterance]:
    """Copy audio out of archives and tables into `out/audio/<corpus>/`; existing files are kept.

    Yields:
        The utterances, with `audio` relative to `out` if it lies below it, else absolute.
    """
    taken: set[tuple[str, str]] = set()
    for utterance in tqdm(chosen, desc="audio", unit=" recordings"):
        audio_bytes = recordings[utterance.id].audio_bytes
        if audio_bytes is None:
            yield replace(utterance, audio=_as_seen_from(out, utterance.audio))
            continue
        name = _safe_name(utterance)
        if (utterance.corpus, name.casefold()) in taken:
            name = _made_name(utterance)
        taken.add((utterance.corpus, name.casefold()))
        relative = Path("audio", utterance.corpus, name)
        path = out / relative
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_aside(path) as aside:
                aside.write_bytes(audio_bytes())
        yield replace(utterance, audio=str(relative))


def _safe_name(utterance: Utterance) -> str:
    """The file name that a corpus gives a recording, or one made from its id if that could lead
    elsewhere, be too long, or look like an unfinished file."""
    name = utterance.audio
    is_plain = (
        _PLAIN_NAME.fullmatch(name)
        and len(name.encode()) <= MAX_PLAIN_BYTES
        and not name.endswith(ASIDE_SUFFIX)
    )
    return name if is_plain else _made_name(utterance)


def _made_name(utterance: Utterance) -> str:
    suffix = PurePosixPath(utterance.audio).suffix
    made = hashlib.sha256(utterance.id.encode()).hexdigest()[:32]
    return made + (suffix if re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) else "")


def _as_seen_from(folder: Path, audio: str) -> str:
    """A relative path if it lies below the folder, which can then be moved; else an absolute
    one."""
    path = Path(audio).resolve()
    inside = folder.resolve()
    return str(path.relative_to(inside) if path.is_relative_to(inside) else path)
