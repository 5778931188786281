"""Two run folders, compared byte by byte."""

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

# Files that are not compared: where a run was made, and when.
EXCLUDED_FILES = {
    # TensorBoard's: host, process and time are in their names, times in their content.
    "events.out.tfevents.*",
    # demo.run's, which say how long it took, and hold nothing that report.json does not.
    "report.txt",
    "report.html",
}
# Keys of JSON files, and of rows of JSON Lines, that are not compared.
EXCLUDED_KEYS = {
    "provenance.json": {
        "command_line",  # a run begun again was begun with --resume
        "memory_peak_gib",  # of a process, which did more or less of the work
    },
    "config.json": {"resume", "overwrite"},  # as "command_line"
    "answer.json": {"time_to_first_audio_ms", "real_time_factor"},  # times
    "precision.json": {"cost"},  # times, and memory of the process
    "finished.json": {"stage1", "stage2", "stage3", "speech_head", "chat", "corpus"},  # times
    "report.json": {"meta", "chat"},  # times, and memory of the process
    "metrics.jsonl": {"step_s"},  # how long demo.mimi.train's steps took
}
# Their hashes, in `done`, are not compared either.
HASHED_ELSEWHERE = {*EXCLUDED_FILES, *EXCLUDED_KEYS}


def first_difference(expected: Path, found: Path) -> str:
    """Which file differs, in a few words; "" where all are the same."""
    names = {side: _files(side) for side in (expected, found)}
    if missing := sorted(names[expected] - names[found]):
        return f"{missing[0]} is missing"
    if surplus := sorted(names[found] - names[expected]):
        return f"{surplus[0]} is left over"
    for name in sorted(names[expected], key=lambda name: (Path(name).name == "done", name)):
        if _content(expected / name) != _content(found / name):
            return f"{name} differs"
    return ""


def _files(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not any(fnmatch(path.name, name) for name in EXCLUDED_FILES)
    }


def _content(path: Path) -> Any:
    if path.name == "done":
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {
            name: facts
            for name, facts in files.items()
            if not any(fnmatch(Path(name).name, excluded) for excluded in HASHED_ELSEWHERE)
        }
    if keys := EXCLUDED_KEYS.get(path.name):
        text = path.read_text(encoding="utf-8")
        rows = text.split("\n")[:-1] if path.suffix == ".jsonl" else [text]
        values = [json.loads(row) for row in rows]
        return [[(key, value[key]) for key in value if key not in keys] for value in values]
    return path.read_bytes()
