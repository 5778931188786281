"""What every step of the plan asks: the recipe, where it will run, and the models in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import Gemma4AudioConfig

from commands.device import pick_dtype
from commands.errors import InputError
from gemma4.gemma import FRAME_RATE_HZ
from gemma4.kinds import WITHOUT_TOWER, has_tower
from gemma4.memory_plan import FLOAT32_BYTES, LIBRARIES, plan_memory
from pipeline import flops, plan_models, probes
from pipeline.plan_models import META, count_parameters
from pipeline.plan_sizes import NUMBERS_BYTES, ROW_BYTES, muon_matrices, tower_activations
from pipeline.recipe import Recipe, Speech
from pipeline.work import Part, Timed
from stage1_rvq.config import RVQConfig
from stage1_rvq.corpus_encoder import WINDOW_BATCHES
from stage1_rvq.recognizer import CTCRecognizer
from stage2_speechless.model import Speechless
from stage3_finetune.training_settings import TrainConfig as FinetuneConfig

Settings = Mapping[str, Any]

# The longest of a batch, and of a corpus, against the mean (guesses).
LONGEST_OF_BATCH, LONGEST_OF_CORPUS = 1.3, 2.0
LAUNCHES_OF_TOWER_LAYER = 4  # it has four times the parts of a transformer's layer
MEL_FLOPS = 9e6  # a second: 100 times an FFT of 512 and a filter bank of 257 x 128
MEL_X = 200.0  # seconds of speech a second, on a core, where it is not measured
RECOGNIZER, RVQ = "stage1_rvq.train_recognizer", "stage1_rvq.train"


@dataclass(frozen=True)
class Case:
    """A recipe, and the kind of device that it will run on."""

    recipe: Recipe
    device: torch.device

    def dtype(self, name: Any) -> torch.dtype:
        """Precision that a command takes."""
        return pick_dtype(name, self.device)

    def tower_config(self, settings: Settings) -> Gemma4AudioConfig:
        """The audio tower of a command's Gemma; raises InputError if it has none."""
        name = self.gemma_of(settings)
        config = plan_models.find_gemma_config(name)
        if not has_tower(config):
            raise InputError(f"--gemma {name}: {WITHOUT_TOWER[config.model_type]}")
        assert isinstance(config.audio_config, Gemma4AudioConfig)
        return config.audio_config

    def hears_patches(self, settings: Settings) -> bool:
        """Whether a command's Gemma hears without a tower, which costs next to nothing."""
        return not has_tower(plan_models.find_gemma_config(self.gemma_of(settings)))

    def gemma_of(self, settings: Settings) -> str:
        """A command's Gemma; those that name none work on what embed wrote."""
        return str(settings.get("gemma") or self.recipe.settings("stage1_rvq.embed")["gemma"])

    def dim(self) -> int:
        """Width of the embeddings."""
        return int(self.tower_config(self.recipe.settings("stage1_rvq.embed")).hidden_size)

    def rvq(self) -> RVQConfig:
        """The quantiser."""
        return plan_models.rvq_config(self.recipe.settings(RVQ), self.dim())

    def recognizer(self) -> CTCRecognizer:
        """The recogniser, on the meta device."""
        with META:
            return plan_models.build_recognizer(self.recipe.settings(RECOGNIZER), self.dim())

    def speechless(self) -> Speechless:
        """Speechless, on the meta device."""
        settings = self.recipe.settings("stage2_speechless.train")
        with META:
            return plan_models.build_speechless(settings, self.rvq())

    def tower_part(self, settings: Settings, speech: Speech, seconds: float) -> Part:
        """The audio tower on so many seconds of speech."""
        config, dtype = self.tower_config(settings), self.dtype(settings["dtype"])
        rows = settings.get("batch_size", 1)
        fast = bool(settings.get("fast_cpu", False))
        frames = round(speech.seconds_an_utterance * FRAME_RATE_HZ)
        name = f"audio tower, {_short(dtype)}{', fast' if fast else ''}"

        def probe(device: torch.device, budget: float) -> Timed:
            return probes.time_tower(
                config, rows, frames, dtype, fast_cpu=fast, device=device, budget=budget
            )

        batches = seconds / speech.seconds_an_utterance / rows
        return Part(
            name, flops.tower(config, seconds * FRAME_RATE_HZ), probe,
            LAUNCHES_OF_TOWER_LAYER * batches * config.num_hidden_layers, dtype,
        )  # fmt: skip

    def hearing_parts(self, settings: Settings, speech: Speech, seconds: float) -> tuple[Part, ...]:
        """What Gemma hears with, on so many seconds of speech."""
        if self.hears_patches(settings):
            return ()
        return self.tower_part(settings, speech, seconds), self.mel_part(seconds)

    def mel_part(self, seconds: float) -> Part:
        """Log-mel spectrograms, which the CPU computes for the tower."""

        def probe(device: torch.device, budget: float) -> Timed:
            return probes.time_mel(MEL_FLOPS)

        return Part("log-mel, CPU", MEL_FLOPS * seconds, probe, assumed=MEL_FLOPS * MEL_X)

    def tower_memory(self, settings: Settings, speech: Speech) -> tuple[int, int, int]:
        """Bytes of the tower's weights and of what it holds of a batch, 0 if there is none; and
        of the host: libraries, rows, and the recordings that are decoded ahead."""
        size = self.dtype(settings["dtype"]).itemsize
        rows, seconds = settings["batch_size"], speech.seconds_an_utterance
        ahead = 2 * WINDOW_BATCHES * rows * seconds * 16_000 * FLOAT32_BYTES
        host = round(self.host(speech, row_bytes=ROW_BYTES) + ahead)
        if self.hears_patches(settings):
            return 0, 0, host
        with META:
            tower = plan_models.build_tower(self.tower_config(settings))
        held = tower_activations(rows, LONGEST_OF_CORPUS * seconds, size)
        return count_parameters(tower) * size, held, host

    def host(self, speech: Speech, *, row_bytes: int = NUMBERS_BYTES) -> int:
        """Libraries, and what is kept of each utterance."""
        return LIBRARIES + row_bytes * speech.count_utterances(speech.all_hours)

    def recognizer_part(self, frames: float, *, passes: float = flops.TRAINING) -> Part:
        """The recogniser on so many frames, in passes of the size of a forward pass."""
        settings, dim = self.recipe.settings(RECOGNIZER), self.dim()
        rows = settings["batch_size"]
        length = round(self.recipe.corpus.seconds_an_utterance * FRAME_RATE_HZ)

        def probe(device: torch.device, budget: float) -> Timed:
            model = probes.materialize(lambda: plan_models.build_recognizer(settings, dim), device)
            per_row = flops.TRAINING * 2.0 * flops.matrices_of(model) * length
            few = probes.fitting(rows, per_row, budget)
            lengths_B = torch.full((few,), length)  # of one length, almost: batches are bucketed
            frames_BTD = torch.randn(few, length, dim, device=device)
            return probes.time_training(
                model, lambda _: model(frames_BTD, lengths_B).mean(), few * per_row, device
            )

        counted = passes * 2.0 * flops.matrices_of(self.recognizer()) * frames
        return Part("recogniser", counted, probe)

    def encoding_part(self, counted: float) -> Part:
        """The search for codes."""
        config = self.rvq()
        length = round(self.recipe.corpus.seconds_an_utterance * FRAME_RATE_HZ)

        def probe(device: torch.device, budget: float) -> Timed:
            return probes.time_encoding(config, length, device=device, budget=budget)

        shape = f"{config.num_codebooks} x {config.codebook_size}"
        return Part(f"search for codes, {shape}", counted, probe)

    def encode_part(self, frames: float) -> Part:
        """The codes of so many frames."""
        config = self.rvq()
        shape = (config.dim, config.num_codebooks, config.codebook_size)
        return self.encoding_part(flops.rvq_encoding(*shape, frames))

    def speaking_part(self, batches: float, rows: int, prefix: float, frames: float) -> Part:
        """Speechless speaks so many batches of utterances of so many frames on average; what has
        ended leaves its batch, which goes on until its longest has.

        Args:
            rows: of a batch, from `spoken_rows`.
        """
        rvq, settings = self.rvq(), self.recipe.settings("stage2_speechless.train")
        model = self.speechless()
        one = flops.speechless(model, rows, 0, 1)

        def probe(device: torch.device, budget: float) -> Timed:
            real = probes.materialize(lambda: plan_models.build_speechless(settings, rvq), device)
            few = probes.fitting(rows, one * probes.NUM_GENERATED / rows, 2 * budget)
            return probes.time_frames(
                real.temporal, real.frame_decoder, few, one * few / rows, device
            )

        config = model.config
        layers = config.num_layers + (config.num_codebooks - 1) * config.depth_layers
        counted = flops.speechless(model, rows * batches, prefix, frames)
        launches = layers * batches * LONGEST_OF_BATCH * frames
        return Part("Speechless, speaking", counted, probe, launches)

    def adamw_part(self, num_weights: float, steps: float) -> Part:
        """AdamW's steps."""

        def probe(device: torch.device, budget: float) -> Timed:
            return probes.time_adamw(device=device, budget=budget)

        return Part("AdamW", probes.ADAMW_FLOPS * num_weights * steps, probe)

    def muon_parts(self, model: nn.Module, steps: float, dtype: torch.dtype) -> tuple[Part, Part]:
        """Muon's steps on the matrices of layers, and AdamW's on all else."""
        matrices = muon_matrices(model)
        largest = max(matrices)

        def probe(device: torch.device, budget: float) -> Timed:
            return probes.time_muon(*largest, device=device, budget=budget)

        num_others = count_parameters(model) - sum(a * b for a, b in matrices)
        orthogonal = Part("Muon", steps * flops.muon(matrices), probe, dtype=dtype)
        return orthogonal, self.adamw_part(num_others, steps)

    def decoder_part(
        self, settings: Settings, counted: float, rows: int, positions: float, *,
        trains: bool = False, launches: float = 0.0,
    ) -> Part:  # fmt: skip
        """Gemma's decoder on rows of so many positions."""
        config = plan_models.find_gemma_config(self.gemma_of(settings)).text_config
        dtype = self.dtype(settings["dtype"])
        probe = partial(_time_decoder, config, rows, max(1, round(positions)), dtype, trains)
        what = "training" if trains else "a token" if positions == 1 else "reading"
        name = f"Gemma, {what}, {_short(dtype)}"
        return Part(name, counted, probe, launches, dtype)

    def gemma_matrices(self, settings: Settings) -> int:
        """Weights of the decoder that every position passes."""
        return plan_models.count_gemma(self.gemma_of(settings)).matrices

    def gemma_bytes(self, settings: Settings) -> int:
        """Gemma's weights, all parts, in a command's precision."""
        name, quantize = self.gemma_of(settings), settings.get("quantize", "none")
        dtype = self.dtype(settings["dtype"])
        if quantize == "none":
            return plan_models.count_gemma(name).parameters * dtype.itemsize
        return plan_memory(
            plan_models.find_gemma_config(name), adapter=FinetuneConfig.lora.adapter(),
            device=self.device, dtype=dtype, batch_size=1, num_tokens=16,
            gradient_checkpointing=True, quantize=quantize,
        ).weights  # fmt: skip


def spoken_rows(utterances: int, settings: Settings) -> int:
    """Rows of utterances that Speechless or the head speaks together: with guidance, which is their
    default, each is read with its text and without."""
    return utterances if settings.get("guidance") == 1 else 2 * utterances


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _time_decoder(
    config: Any, rows: int, positions: int, dtype: torch.dtype, trains: bool,
    device: torch.device, budget: float,
) -> Timed:  # fmt: skip
    return probes.time_decoder(
        config, rows, positions, dtype, trains=trains, device=device, budget=budget
    )
