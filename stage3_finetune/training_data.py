"""All that a fine-tuning learns from: dialogues made of codes, recorded ones, or both.

data = load_training_data(config, device=device, dtype=dtype)
rows = SpokenDialogues(data.dialogues, tokenizer, data.hear, ...)
"""

# T frames (25 per second), D width of a frame

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from commands.errors import InputError
from commands.finished_folder import open_input
from commands.origins import Origin
from commands.sources import ADAPTER, Sources, used_for
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from data_manifests.held_out_rows import refuse_held_out
from data_manifests.manifest import read_utterance_audio
from gemma4.function_calls import FunctionCall
from gemma4.kinds import has_tower
from gemma4.memory_plan import load_gemma_config
from gemma4.speech_encoder import SpeechEncoder, load_encoder
from stage1_rvq.codes import code_format, read_codes_origins
from stage1_rvq.model import SpeechRVQ, load_rvq
from stage3_finetune.dialogue import Dialogue, Turn
from stage3_finetune.dialogue_files import (
    read_dialogues_origins,
    read_dialogues_sources,
    read_spoken_dialogues,
)
from stage3_finetune.recorded_dialogues import (
    TRANSCRIBED,
    is_manifest,
    read_transcribed_codes,
    read_transcribed_recordings,
    record_dialogues,
)

if TYPE_CHECKING:
    from stage3_finetune.training_settings import TrainConfig


@dataclass(frozen=True)
class TrainingData:
    """What is learnt from.

    Attributes:
        dialogues: with codes or a recording on every spoken turn.
        recordings: a spoken turn each, to write down.
        hear: a spoken turn -> its frames `[T, D]`, as Gemma takes them.
        origins: of codes, quantiser and encoder, by flag and value, for `refuse_mixture`.
        sources: what they were made from, by flag and value, for `refuse_licenses`.
    """

    dialogues: list[Dialogue]
    recordings: list[Dialogue]
    hear: Callable[[Turn], Tensor]
    origins: dict[str, Origin]
    sources: dict[str, Sources]

    def count_spoken(self) -> dict[str, int]:
        """How many turns are spoken, by what speaks them."""
        turns = [turn for dialogue in self.dialogues for turn in dialogue.turns if turn.spoken]
        num_recorded = sum(turn.recording is not None for turn in turns)
        return {"generated_codes": len(turns) - num_recorded, "recordings": num_recorded}

    def calls(self) -> list[FunctionCall]:
        """Every call of a function in the dialogues."""
        turns = (turn for dialogue in self.dialogues for turn in dialogue.turns)
        return [call for turn in turns for call in turn.calls]


def load_training_data(
    config: "TrainConfig", *, device: torch.device, dtype: torch.dtype, is_first: bool = True
) -> TrainingData:
    """Read the dialogues, and load what makes frames of their speech.

    Args:
        device, dtype: where and in which precision Gemma hears recordings.
        is_first: whether this process tells what was left out.

    Raises:
        InputError: a flag is missing, or names something that cannot be read.
    """
    transcribed = config.mixture.transcribed
    manifests = [path for path in transcribed if is_manifest(path)]
    to_write = [path for path in transcribed if not is_manifest(path)]
    paths = (config.dialogues, *config.spoken.more_dialogues)
    for path in paths:
        refuse_held_out(path, flag="--dialogues")
    files = [path for path in paths if path.is_file()]
    folders = [path for path in paths if not path.is_file()]
    _refuse_incomplete(config, files, [*folders, *to_write])
    dialogues: list[Dialogue] = []
    recordings: list[Dialogue] = []
    origins: dict[str, Origin] = {}
    sources: dict[str, Sources] = {}
    rvq: SpeechRVQ | None = None
    encoder: SpeechEncoder | None = None
    if config.rvq is not None:
        rvq = load_rvq(config.rvq, device=torch.device("cpu"))
        fmt = code_format(rvq.config)
        origins[f"--rvq {config.rvq}"] = rvq.origin()
        for folder in folders:
            dialogues += read_spoken_dialogues(folder, fmt)
            origins |= read_dialogues_origins(folder)
            of_codes = read_dialogues_sources(folder)
            sources[f"--dialogues {folder}"] = used_for(of_codes, ADAPTER)
        for folder in to_write:
            rows, of_codes = read_transcribed_codes(folder, fmt)
            recordings += rows
            origins |= read_codes_origins(folder, flag=TRANSCRIBED)
            sources[f"{TRANSCRIBED} {folder}"] = used_for(of_codes, ADAPTER)
        sources[f"--rvq {config.rvq}"] = rvq.made_from()
    if config.spoken.recordings is not None:
        for file in files:
            found = record_dialogues(file, config.spoken.recordings)
            dialogues += found.dialogues
            sources[f"--dialogues {file}"] = used_for(found.sources, ADAPTER)
            if is_first:
                print(f"{file}: {found.describe()}", file=sys.stderr)
    for manifest in manifests:
        rows, of_manifest = read_transcribed_recordings(manifest)
        recordings += rows
        sources[f"{TRANSCRIBED} {manifest}"] = used_for(of_manifest, ADAPTER)
    if config.spoken.recordings is not None or manifests:
        encoder = load_encoder(config.gemma, device=device, dtype=dtype)
    return TrainingData(
        dialogues, recordings, lambda turn: _frames(turn, rvq, encoder), origins, sources
    )


def _refuse_incomplete(
    config: "TrainConfig", files: Sequence[Path], holds_codes: Sequence[Path]
) -> None:
    """Raise InputError if something is missing that dialogues and recordings need."""
    recordings = config.spoken.recordings
    if files and recordings is None:
        raise InputError(
            f"--dialogues {files[0]} is a file: name the recordings of its spoken turns with "
            "--recordings, or a folder of stage3_finetune.speak_dialogues"
        )
    if recordings is not None and not files:
        raise InputError("--recordings needs a `messages` file among --dialogues, not folders only")
    if holds_codes and not has_tower(load_gemma_config(config.gemma)):
        raise InputError(
            f"--gemma {config.gemma} is the kind without an audio tower (12B), for which there are "
            "no codes: name a `messages` file, and with --recordings the recordings of its turns"
        )
    if holds_codes and config.rvq is None:
        if holds_codes[0] not in config.mixture.transcribed:
            made_by = "stage3_finetune.speak_dialogues"
            open_input(holds_codes[0], made_by=made_by, flag="--dialogues")
        raise InputError(f"{holds_codes[0]} holds codes: name their quantiser with --rvq")


def _frames(turn: Turn, rvq: SpeechRVQ | None, encoder: SpeechEncoder | None) -> Tensor:
    if turn.recording is not None:
        assert encoder is not None
        waveform_N = read_utterance_audio(turn.recording, GEMMA_SAMPLE_RATE_HZ)
        [frames_TD] = encoder.encode([waveform_N])
        return frames_TD
    assert rvq is not None and turn.codes_TK is not None
    return rvq.decode(turn.codes_TK)
