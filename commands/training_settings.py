"""Groups of settings that several trainings share; each sets its own defaults."""

from dataclasses import dataclass

from commands.licenses import LicenseName
from commands.setting_types import NonNegativeFloat, NonNegativeInt, PositiveInt


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """Learning rate: linear warm-up, then a cosine down to 0 at the last step."""

    learning_rate: NonNegativeFloat
    """peak learning rate"""
    warmup_steps: NonNegativeInt
    """steps of linear warm-up"""


@dataclass(frozen=True, kw_only=True)
class CheckpointSettings:
    """When checkpoints are saved, and what is measured on dev before each."""

    save_every: PositiveInt = 1000
    """steps between checkpoints, and between measurements on dev"""
    num_dev_sentences: PositiveInt = 64
    """dev sentences that are spoken and read back at each measurement"""


@dataclass(frozen=True, kw_only=True)
class InputSettings:
    """What the inputs of a training may be."""

    allow_mixture: bool = False
    """go on although the inputs belong to different audio towers or quantisers"""
    allow_licenses: tuple[LicenseName, ...] = ()
    """licences of data, by SPDX name (CC-BY-4.0 CC0-1.0): stop if an input was made from data under
    another one; data whose licence is not known need the name unknown"""
