"""The adapters of a run: of its checkpoints, of which two are kept, and of its end."""

import shutil
from pathlib import Path

from commands.atomic_write import take_away, write_text, written_aside
from commands.checkpoint import NUM_KEPT, list_checkpoints
from stage3_finetune.model import ADAPTER_CONFIG, ADAPTER_TENSORS


def keep_newest(run: Path) -> None:
    """Delete all but the newest two checkpoints of a run."""
    for old in list_checkpoints(run)[:-NUM_KEPT]:
        take_away(old)


def copy_adapter(checkpoint: Path, adapter: Path, card: str) -> None:
    """Copy the adapter of a run's last checkpoint to a folder of its own, with a card, unless it is
    there already."""
    if adapter.exists():
        return
    with written_aside(adapter) as aside:
        aside.mkdir()
        for name in (ADAPTER_CONFIG, ADAPTER_TENSORS):
            shutil.copyfile(checkpoint / name, aside / name)
        write_text(aside / "README.md", card)
