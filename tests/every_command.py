"""All commands of the project, found in its files."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Rooms, in the order in which they may import each other: each from those before it.
ROOMS = (
    "commands",
    "data_manifests",
    "gemma4",
    "stage1_rvq",
    "stage2_speechless",
    "stage3_finetune",
    "speech_head",
    "voice_chat",
    "pipeline",
    "demo",
)


def find_commands() -> list[str]:
    """Dotted names of all commands."""
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for package in (*ROOMS, "benchmarks")
        for path in sorted((ROOT / package).glob("**/*.py"))
        if "\n    run_command(main)\n" in path.read_text(encoding="utf-8")
    ]
