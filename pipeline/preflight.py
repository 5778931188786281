"""Check on your own checkpoints what this project could only test on models of the same classes.

    python -m pipeline.preflight --gemma google/gemma-4-E4B-it --mimi kyutai/mimi \
        --rvq runs/rvq --finetune runs/finetune --head runs/head --recording question.wav
    python -m pipeline.preflight --gemma Sunbird/Sunflower-Gemma4-E2B \
        --base-gemma google/gemma-4-E2B-it --rvq runs/rvq --recording question.wav
    python -m pipeline.preflight --gemma google/gemma-4-12B-it --finetune runs/finetune

The second asks whether a Gemma that others have fine-tuned still hears as its base does, so that
what was made with the base belongs to it. The third has no audio tower, and no codes to check.
Prints one line per check, with the measured figure; if a check fails, the line says what to do, and
the exit code is 1. The checks themselves are in `preflight_gemma.py`, `preflight_tower.py`,
`preflight_base.py` and `preflight_checks.py`.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from commands.command_line import parse_config, run_command
from commands.device import DeviceName, DtypeName, pick_device, pick_dtype
from commands.errors import InputError
from commands.setting_types import ModelName, NumCodebooks
from gemma4.gemma import AudioEncoder
from gemma4.patches import PatchEncoder
from gemma4.speech_encoder import require_tower
from pipeline.preflight_base import base_checks
from pipeline.preflight_checks import (
    Check,
    Sounds,
    float32_encoder,
    load_sounds,
    mimi_checks,
    stage_checks,
)
from pipeline.preflight_gemma import gemma_checks
from pipeline.preflight_memory import memory_check
from speech_head.mimi import load_mimi
from stage3_finetune.conversation import load_conversation


@dataclass(frozen=True, kw_only=True)
class PreflightConfig:
    """Check Gemma, Mimi and your trained stages against each other before you rely on them."""

    gemma: ModelName = "google/gemma-4-E4B-it"
    """hub name or folder of Gemma 4"""
    base_gemma: ModelName | None = None
    """hub name or folder of the Gemma 4 that --gemma was made from: does it still hear the same?"""
    mimi: ModelName = "kyutai/mimi"
    """hub name or folder of Mimi"""
    num_codebooks: NumCodebooks = 8
    """Mimi codebooks to use"""
    rvq: ModelName | None = None
    """quantiser of stage 1"""
    finetune: Path | None = None
    """adapter of stage 3"""
    head: ModelName | None = None
    """speech head of stage 4"""
    recording: Path | None = None
    """recording of speech whose first 10 s are used for the checks; default: a synthetic sound"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu"""
    dtype: DtypeName = "auto"
    """precision of Gemma"""


def main(argv: list[str] | None = None) -> None:
    """Run all checks; exit code 1 if any fails."""
    config = parse_config(PreflightConfig, argv)
    device = pick_device(config.device)
    dtype = pick_dtype(config.dtype, device)
    sounds = load_sounds(config.recording)
    checks: list[Check] = []
    try:
        checks = load_checks(config, sounds, device, dtype)
    except InputError as error:
        message = str(error)

        def cannot_load() -> str:
            raise InputError(message)

        checks = [Check("everything can be loaded", cannot_load, "download it again, or name it")]
    num_failed = sum(not _passes(check) for check in checks)
    print(f"{len(checks) - num_failed} of {len(checks)} checks passed")
    sys.exit(1 if num_failed else 0)


def load_checks(
    config: PreflightConfig, sounds: Sounds, device: torch.device, dtype: torch.dtype
) -> list[Check]:
    """Load the models, and list the checks for them.

    Raises:
        InputError: one cannot be loaded.
    """
    conversation = load_conversation(config.gemma, config.finetune, device=device, dtype=dtype)
    mimi = load_mimi(config.mimi, num_codebooks=config.num_codebooks, device=device)
    assert isinstance(conversation.encoder, AudioEncoder | PatchEncoder)
    encoder = float32_encoder(conversation.encoder)
    of_base = []
    if config.base_gemma:
        tower = require_tower(encoder, instead="no tower to compare; leave --base-gemma out")
        of_base = base_checks(
            config.base_gemma, tower, sounds, config.rvq, device=device, dtype=dtype
        )
    return [
        *of_base,
        *gemma_checks(conversation, encoder, sounds),
        *mimi_checks(mimi, sounds),
        *stage_checks(
            conversation, encoder, mimi, sounds, config.rvq, config.finetune, config.head, device
        ),
        memory_check(config.gemma, device, dtype),
    ]


def _passes(check: Check) -> bool:
    """Run a check and print its line."""
    try:
        print(f"ok    {check.name:<46}{check.measure()}", flush=True)
    except InputError as error:
        print(f"FAIL  {check.name:<46}{error}\n      -> {check.remedy}", flush=True)
        return False
    return True


if __name__ == "__main__":
    run_command(main)
