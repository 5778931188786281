"""Train Speechless on codes with transcripts.

    python -m stage2_speechless.train --codes data/codes/train --dev-codes data/codes/dev \
        --rvq runs/rvq --reader runs/reader --out runs/speechless

`runs/speechless/model` (`Speechless.from_pretrained`) is the checkpoint whose speech the reader
understands best (lowest CER on generated dev sentences); without a reader it is the one with the
lowest dev loss, and without dev the last. With `--init-from`, training starts from the layers of a
small language model. Runs unchanged under `accelerate launch`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from torch.nn.utils import clip_grad_norm_
from transformers import get_cosine_schedule_with_warmup

from commands.checkpoint import model_written_aside, resume_from_latest, save_checkpoint
from commands.command_line import parse_config, run_command
from commands.device import (
    DeviceName,
    DtypeName,
    describe_machine,
    pick_device,
    pick_dtype,
    seed_step,
)
from commands.errors import InputError
from commands.fingerprints import fingerprint
from commands.run_folder import run_folder
from commands.setting_types import (
    LayerWidth,
    ModelName,
    NumLayers,
    PositiveFloats,
    PositiveInt,
    Probability,
    Seed,
)
from commands.training_log import TrainingLog, refuse_non_finite, training_steps
from commands.training_settings import CheckpointSettings, ScheduleSettings
from stage1_rvq.codes import read_code_format
from stage2_speechless.config import SpeechlessConfig, default_num_heads
from stage2_speechless.data import (
    BucketedBatches,
    TrainingUtterance,
    collate,
    move_batch,
    print_left_out,
    quantizer_of_codes,
    rate_quantiles,
    read_utterances,
)
from stage2_speechless.dev_set import Dev, load_dev
from stage2_speechless.generation import MAX_FRAMES
from stage2_speechless.metrics import measure_loss, pool_sentences, speak_and_read
from stage2_speechless.model import Speechless
from stage2_speechless.muon import OptimizerName, make_optimizer
from stage2_speechless.vocabulary import Vocabulary
from stage2_speechless.warm_start import copy_layers, load_base_model, temporal_shape

# Positions count characters, at most 500 per text. Llama's 10,000 is meant for thousands of tokens;
# over so few positions most dimensions would hardly rotate.
ROPE_THETA = 100.0


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
    """quantiser that made the codes: with --reader, generated dev sentences are read back"""
    reader: Path | None = None
    """folder of stage1_rvq.train_reader; needs --dev-codes and --rvq"""
    init_from: ModelName | None = None
    """small Llama language model (local folder or hub name) whose layers the temporal transformer
    starts from; it sets width, layers and heads"""
    shape: ShapeSettings = ShapeSettings()
    loss: LossSettings = LossSettings()
    steps: PositiveInt = 50_000
    """optimizer steps"""
    batch_size: PositiveInt = 32
    """utterances per step and process"""
    schedule: ScheduleSettings = ScheduleSettings(learning_rate=5e-4, warmup_steps=1000)
    """learning rate of Muon, and of AdamW for what is no matrix of a layer: linear warm-up, then a
    cosine down to 0 at the last step"""
    checkpoints: CheckpointSettings = CheckpointSettings()
    seed: Seed = 0
    """seed for weights, batches, dropout and the sampling of dev sentences"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    dtype: DtypeName = "auto"
    """precision: bfloat16 trains in mixed precision; the weights are float32 either way"""
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


def main(argv: list[str] | None = None) -> None:
    """Train the model; prints the run's folder."""
    config = parse_config(TrainConfig, argv)
    if config.reader and not (config.dev_codes and config.rvq):
        raise InputError("--reader needs --dev-codes and --rvq: it reads generated dev sentences")
    fmt = read_code_format(config.codes)
    quantizer = quantizer_of_codes(config.codes)
    if config.rvq and not quantizer:
        quantizer = fingerprint(config.rvq).get("sha256", "")
    listed = read_utterances(config.codes, Vocabulary())
    base = load_base_model(config.init_from) if config.init_from else None
    shape = SpeechlessConfig(
        num_codebooks=fmt.num_codebooks,
        codebook_size=fmt.codebook_size,
        frame_rate_hz=fmt.frame_rate_hz,
        **(temporal_shape(base) if base else _own_shape(config.shape)),
        depth_width=config.shape.depth_width,
        depth_layers=config.shape.depth_layers,
        depth_heads=config.shape.depth_heads or default_num_heads(config.shape.depth_width),
        dropout=config.shape.dropout,
        rates_cps=rate_quantiles(listed.utterances),
        quantizer=quantizer,
    )
    device = pick_device(config.device)
    dtype = pick_dtype(config.dtype, device)
    accelerator = Accelerator(
        cpu=device.type == "cpu", mixed_precision="bf16" if dtype == torch.bfloat16 else "no"
    )
    dev = None
    if config.dev_codes:
        dev = load_dev(
            config.dev_codes, config.rvq, config.reader, shape,
            expected_by=f"--codes {config.codes}", device=accelerator.device,
        )  # fmt: skip
    seed_step(config.seed, -1)
    speechless = Speechless(shape)
    if base:
        copy_layers(base, speechless)
    speechless.to(accelerator.device)
    inputs = ("codes", "dev_codes", "rvq", "reader", "init_from")
    with run_folder(config.out, config, "stage2_speechless.train", inputs=inputs) as output:
        if output.is_done:
            return
        print_left_out(listed, "--codes")
        output.record(
            **describe_machine(device, dtype),
            quantizer=quantizer,
            num_utterances=len(listed.utterances),
            num_left_out=dict(listed.left_out),
            num_parameters=sum(p.numel() for p in speechless.parameters()),
        )
        if base:
            output.record(init_from_revision=base.revision)
            del base
        _train(config, speechless, listed.utterances, dev, accelerator)


def _train(
    config: TrainConfig,
    speechless: Speechless,
    utterances: list[TrainingUtterance],
    dev: Dev | None,
    accelerator: Accelerator,
) -> None:
    optimizer = make_optimizer(
        speechless, config.optimizer, learning_rate=config.schedule.learning_rate
    )
    schedule = get_cosine_schedule_with_warmup(
        optimizer, config.schedule.warmup_steps, config.steps
    )
    first_step = resume_from_latest(config.out, speechless, optimizer, schedule)
    # The schedule is not prepared: accelerate would step it once per process.
    model, optimizer = accelerator.prepare(speechless, optimizer)
    lengths = [len(u.codes_TK) for u in utterances]
    batches = BucketedBatches(lengths, config.batch_size * accelerator.num_processes, config.seed)
    is_writer = accelerator.is_main_process
    with TrainingLog(config.out, first_step=first_step, is_writer=is_writer) as log:
        progress = training_steps(first_step, config.steps, "train", is_writer=is_writer)
        for step in progress:
            seed_step(config.seed, step, accelerator.process_index)
            model.train()
            picks = batches.at_step(step)[accelerator.process_index :: accelerator.num_processes]
            chosen = [utterances[i] for i in picks.tolist()]
            batch = collate(
                chosen,
                speechless,
                dialect_dropout=config.loss.dialect_dropout,
                history_dropout=config.loss.history_dropout,
            )
            loss = model(
                **vars(move_batch(batch, accelerator.device)),
                depth_fraction=config.loss.depth_fraction,
                codebook_weights=config.loss.codebook_weights,
            )
            accelerator.backward(loss.total)
            norm = clip_grad_norm_(model.parameters(), 1.0)
            numbers = loss.as_numbers()
            refuse_non_finite(
                step + 1, [u.id for u in chosen], **numbers, gradient_norm=norm.item()
            )
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            progress.set_postfix(loss=f"{numbers['loss']:.3f}")
            log.log(step + 1, "train", **numbers)
            if is_writer and (
                step + 1 == config.steps or (step + 1) % config.checkpoints.save_every == 0
            ):
                _measure_and_save(config, step + 1, speechless, dev, log)
                save_checkpoint(config.out, step + 1, speechless, optimizer, schedule)


def _own_shape(shape: ShapeSettings) -> dict[str, Any]:
    """Shape of a temporal transformer that starts from random weights."""
    width = SpeechlessConfig.width if shape.width is None else shape.width
    layers = SpeechlessConfig.num_layers if shape.num_layers is None else shape.num_layers
    heads = shape.num_heads or default_num_heads(width)
    rope = {"rope_type": "default", "rope_theta": ROPE_THETA}
    llama = {"rope_parameters": rope}
    return {"width": width, "num_layers": layers, "num_heads": heads, "llama": llama}


def _measure_and_save(
    config: TrainConfig, step: int, model: Speechless, dev: Dev | None, log: TrainingLog
) -> None:
    """Save the model to `model/` if its dev CER (else dev loss) is the lowest so far; without dev,
    always."""
    model.eval()
    if dev:
        metrics = measure_loss(
            model, dev.utterances, config.batch_size, config.loss.codebook_weights
        )
        judged_by = "loss"
        if dev.round_trip:
            chosen = dev.utterances[: config.checkpoints.num_dev_sentences]
            # Models early in training do not end; twice the longest recording is enough to see
            # that.
            longest = max(len(u.codes_TK) for u in chosen)
            sentences = speak_and_read(
                model, chosen, dev.round_trip, seed=config.seed, batch_size=config.batch_size,
                max_frames=min(MAX_FRAMES, 2 * longest),
            )  # fmt: skip
            speech = pool_sentences(sentences)
            rates = speech.errors.generated
            metrics |= {
                "cer": rates.cer, "wer": rates.wer,
                "length_ratio": speech.length_ratio, "never_ended": speech.never_ended,
            }  # fmt: skip
            judged_by = "cer"
        best_before = log.lowest("dev", judged_by)
        log.log(step, "dev", **metrics)
        if metrics[judged_by] >= best_before:
            return
    with model_written_aside(config.out / "model") as aside:
        model.save_pretrained(aside)


if __name__ == "__main__":
    run_command(main)
