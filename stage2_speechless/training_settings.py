"""Settings for training Speechless."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from commands.device import DeviceName, DtypeName
from commands.errors import InputError
from commands.setting_types import (
    LayerWidth,
    ModelName,
    NumLayers,
    PositiveFloats,
    PositiveInt,
    Probability,
    Seed,
)
from commands.training_settings import (
    CheckpointSettings,
    InputSettings,
    ScheduleSettings,
)
from stage2_speechless.muon import OptimizerName


@dataclass(frozen=True, kw_only=True)
class ShapeSettings:
    """Shape of the model."""

    width: LayerWidth | None = None
    """width of the temporal transformer; 768 if not given"""
    num_layers: NumLayers | None = None
    """layers of the temporal transformer; 10 if not given"""
    num_heads: NumLayers | None = None
    """attention heads of the temporal transformer; if not given, width / 64, but at least 4"""
    depth_width: LayerWidth = 512
    """width of the code-frame decoder (codebooks 1 to 7)"""
    depth_layers: NumLayers = 2
    """layers of the code-frame decoder"""
    depth_heads: NumLayers | None = None
    """attention heads of the code-frame decoder; default as for --num-heads"""
    dropout: Probability = 0.1
    """dropout on inputs and states"""


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """What the loss asks of the model."""

    history_dropout: Probability = 0.4
    """how often a frame is hidden from those after it, so that the model learns to use the text"""
    codebook_weights: PositiveFloats = (4.0, 2.0, 1.0)
    """loss weight of each codebook, coarsest first; the last number applies to all the rest"""
    # Share of each batch's frames on which the code-frame decoder is trained: more takes more time.
    depth_fraction: ClassVar[float] = 0.5
    # How often the dialect is replaced by "unknown", so that none need be given in use.
    dialect_dropout: ClassVar[float] = 0.2
    # How often an utterance is trained without its text, so that speech can be guided towards one.
    text_dropout: ClassVar[float] = 0.1


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train the model that speaks Twi text as semantic codes."""

    codes: Path
    """folder written by stage1_rvq.tokenize_corpus, with transcripts"""
    out: Path
    """new folder for this run"""
    dev_codes: Path | None = None
    """codes of the dev split, to measure on while training"""
    rvq: ModelName | None = None
    """quantiser that made the codes: with --recognizer, generated dev sentences are read back"""
    recognizer: Path | None = None
    """folder of stage1_rvq.train_recognizer; needs --dev-codes and --rvq"""
    init_from: ModelName | None = None
    """small Llama language model (local folder or hub name) whose layers the temporal transformer
    starts from; it sets width, layers and heads"""
    shape: ShapeSettings = ShapeSettings()
    loss: LossSettings = LossSettings()
    steps: PositiveInt = 50_000
    """optimizer steps"""
    batch_size: PositiveInt = 32
    """utterances per step and process"""
    batch_tokens: PositiveInt | None = None
    """positions (characters and frames, padding included) per step and process: many short or few
    long utterances; then --batch-size only says how many are measured together on dev"""
    schedule: ScheduleSettings = ScheduleSettings(learning_rate=5e-4, warmup_steps=1000)
    """learning rate of Muon, and of AdamW for what is no matrix of a layer: linear warm-up, then a
    cosine down to 0 at the last step"""
    checkpoints: CheckpointSettings = CheckpointSettings()
    seed: Seed = 0
    """seed for weights, batches, dropout and the sampling of dev sentences"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu"""
    dtype: DtypeName = "auto"
    """precision: bfloat16 trains in mixed precision; the weights are float32 either way"""
    inputs: InputSettings = InputSettings()
    resume: bool = False
    """continue from the newest checkpoint"""
    optimizer: ClassVar[OptimizerName] = "muon"

    def __post_init__(self) -> None:
        names = ("width", "num_layers", "num_heads")
        given = [
            f"--{name.replace('_', '-')}" for name in names if getattr(self.shape, name) is not None
        ]
        if self.init_from and given:
            raise InputError(
                f"--init-from brings its own width, layers and heads: leave out {', '.join(given)}"
            )
