"""Settings for training the speech head."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from commands.device import DeviceName, DtypeName
from commands.setting_types import (
    LayerWidth,
    ModelName,
    NumLayers,
    PositiveFloats,
    PositiveInt,
    Probability,
    Seed,
    VoiceWidth,
)
from commands.training_settings import (
    CheckpointSettings,
    InputSettings,
    ScheduleSettings,
)
from speech_head.config import Reads

Architecture = Literal["cursor", "parallel"]


@dataclass(frozen=True, kw_only=True)
class ShapeSettings:
    """Architecture and shape of the head."""

    architecture: Architecture = "cursor"
    """parallel: the published head, for comparison (see parallel.py); has no code-frame decoder"""
    reads: Reads = "gate"
    """input for each token: its states and its embedding, gated or summed, or only one of the two
    (the parallel head reads states)"""
    width: LayerWidth | None = None
    """width of the temporal transformer; default 1024 (parallel: 1536)"""
    num_layers: NumLayers | None = None
    """layers of the temporal transformer; default 8 (parallel: 4)"""
    num_heads: NumLayers | None = None
    """attention heads of the temporal transformer; default 16 (parallel: 8)"""
    depth_width: LayerWidth = 512
    """width of the code-frame decoder (codebooks 1 to 7)"""
    depth_layers: NumLayers = 2
    """layers of the code-frame decoder"""
    depth_heads: NumLayers = 8
    """attention heads of the code-frame decoder"""
    voice_width: VoiceWidth | None = None
    """numbers that describe a voice; 0 learns one voice from all that is spoken; default 64 if two
    speakers or more have several utterances in --states, else 0"""


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """What the loss asks of the head."""

    history_dropout: Probability = 0.2
    """probability that a frame is hidden from later frames, which delays overfitting"""
    text_dropout: Probability = 0.1
    """probability that an utterance is trained without its text; above 0, speech can be guided
    towards its text (speak --guidance)"""
    codebook_weights: PositiveFloats = (2.0, 1.5, 1.0, 1.0, 0.75, 0.75, 0.5, 0.5)
    """loss weight of each codebook (defaults: the published gemma4-audio experiment)"""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train the speech head: Gemma's states -> Mimi codes."""

    states: Path
    """folder written by speech_head.states"""
    out: Path
    """new folder for this run"""
    dev_states: Path | None = None
    """states of the dev split: the checkpoint with the lowest dev loss is kept"""
    recognizer: Path | None = None
    """folder of stage1_rvq.train_recognizer; needs --dev-states. Dev texts are then spoken and
    transcribed, with --mimi and --gemma, and the checkpoint with the lowest CER is kept"""
    gemma: ModelName = "google/gemma-4-E4B-it"
    """hub name or folder of the Gemma 4 whose audio tower feeds the recogniser"""
    mimi: ModelName = "kyutai/mimi"
    """hub name or folder of the Mimi that made the codes"""
    on_the_fly: bool = False
    """compute states when needed, from folders of speech_head.states --no-states: saves disk space,
    but costs Gemma's memory and time at every step"""
    init_from: ModelName | None = None
    """head of the same shape (folder or hub name) to initialise the weights from; it may be one
    that reads embeddings only"""
    shape: ShapeSettings = ShapeSettings()
    loss: LossSettings = LossSettings()
    steps: PositiveInt = 50_000
    """optimizer steps"""
    batch_size: PositiveInt = 32
    """utterances per step and process"""
    batch_frames: PositiveInt | None = None
    """Mimi frames (12.5 a second, padding included) per step and process: many short or few long
    utterances; then --batch-size only says how many are measured together on dev"""
    schedule: ScheduleSettings = ScheduleSettings(learning_rate=2e-4, warmup_steps=1000)
    checkpoints: CheckpointSettings = CheckpointSettings()
    seed: Seed = 0
    """seed for weight initialisation, batches and dropout"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu"""
    dtype: DtypeName = "auto"
    """bfloat16 trains in mixed precision; the weights are float32 either way"""
    inputs: InputSettings = InputSettings()
    resume: bool = False
    """continue from the newest checkpoint"""
