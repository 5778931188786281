"""Voice chat in the browser: speak or type; read the answer and hear it while it is being written.

    python -m voice_chat.web --head runs/head --finetune runs/finetune
    make web                                    with the small trained models of the demo

Prints the page's address. The microphone button starts and ends a recording; starting one, or
asking the next question, interrupts an answer that is being played. Every visitor has their own
conversation, which nobody else can read or hear, and which is forgotten when they leave or start a
new one; its spoken answers are also kept as WAVs, in a folder of `--out` per conversation. Answers
are computed one after another: a visitor who waits sees how many are before them. The limits are
those of `visits.py` and stage3_finetune/prompt_limits.py.

Needs Gradio: `pip install -c constraints.txt -e '.[web]'`. Browsers allow a microphone on localhost
and over https only: for a machine elsewhere, `ssh -L 7860:localhost:7860 that-machine`.
"""

import contextlib
import importlib
import os
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.new_paths import refuse_unwritable
from commands.setting_types import Port
from speech_head.settings import TalkerConfig
from voice_chat.visits import VoiceChat


@dataclass(frozen=True, kw_only=True)
class WebConfig(TalkerConfig):
    """Talk with Gemma in Twi, in the browser."""

    out: Path = Path("runs/web")
    """folder for the answers' WAV files; each conversation adds a folder"""
    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 allows connections from other machines"""
    port: Port = 7860
    """TCP port to listen on"""


def main(argv: list[str] | None = None) -> None:
    """Serve the page until interrupted."""
    config = parse_config(WebConfig, argv)
    refuse_unwritable(config.out, flag="--out", is_folder=True, may_exist=True)
    gradio_page = import_page()
    talker = config.load()
    with visitors_files() as files:
        page = gradio_page.build_page(VoiceChat(talker, config, config.out, files))
        try:
            address = gradio_page.launch(page, host=config.host, port=config.port)
        except OSError as error:
            raise InputError(f"--host {config.host} --port {config.port}: {error}") from None
        print(address, flush=True)
        try:
            threading.Event().wait()
        finally:
            page.close(verbose=False)


@contextlib.contextmanager
def visitors_files() -> Iterator[Path]:
    """A folder for visitors' uploads and answers that only this user can read; deleted at the end.

    An environment variable, which is restored, makes Gradio use it.
    """
    name = "GRADIO_TEMP_DIR"
    before = os.environ.get(name)
    with tempfile.TemporaryDirectory(prefix="spoken-twi-", ignore_cleanup_errors=True) as folder:
        # Gradio compares paths with links resolved, and macOS's temporary folder is a link.
        os.environ[name] = str(Path(folder).resolve())
        try:
            yield Path(os.environ[name])
        finally:
            del os.environ[name]
            if before is not None:
                os.environ[name] = before


def import_page() -> ModuleType:
    """Import `voice_chat.page`; raises InputError if Gradio is not installed."""
    try:
        importlib.import_module("gradio")
        return importlib.import_module("voice_chat.page")
    except ModuleNotFoundError:
        raise InputError("needs Gradio: pip install -c constraints.txt -e '.[web]'") from None


if __name__ == "__main__":
    run_command(main)
