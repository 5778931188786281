"""Train the demo's Gemma 4 from scratch, to transcribe speech and to answer typed questions.

    python -m demo.gemma.train --out runs/train-gemma

`runs/train-gemma/model` is a checkpoint like any other Gemma 4's, in bfloat16. Four phases, each
with its own folder of checkpoints and metrics: `ear` (the tower, by CTC), `chat` (the decoder, on
typed dialogues), `align` (speech to token embeddings) and `joint` (transcription and chat). It
never sees a spoken question with its answer: that is what stage 3 teaches.

    python -m demo.gemma.train --init-from demo/weights/gemma --steps 1500 --out runs/train-gemma

After an edit of `demo/world/world.toml`, this goes on from a trained model, in far less time: its
tower and tokenizer, which know every Twi syllable, stay, and only the joint phase is run.

    python -m demo.gemma.train --kind patches --out runs/train-gemma-12b

A Gemma without a tower, shaped like 12B, has two phases of its own: in `ear`, beside chat, the
first half of its decoder learns to hear, from the tower of another (`--teacher`); `joint` is as
above.
"""

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import start_processes
from transformers import (
    Gemma4AudioFeatureExtractor,
    Gemma4UnifiedAudioFeatureExtractor,
    PreTrainedTokenizerBase,
)

from commands.checkpoint import model_written_aside
from commands.command_line import parse_config, run_command
from commands.device import describe_machine, use_threads
from commands.errors import InputError
from commands.run_folder import run_folder
from commands.seeds import derive_seed
from commands.setting_types import PositiveInt, Seed
from data_manifests.language import language
from demo.gemma.chat_rows import RowMaker, TypedDialogues
from demo.gemma.clips import record_clips
from demo.gemma.decoder import Measures, SpeechTask, exact_share, train_decoder
from demo.gemma.ear import train_ear
from demo.gemma.model import ATTENTION, build_gemma, build_unified_gemma
from demo.gemma.patch_speech import patch_rows, train_patch_ear
from demo.gemma.tokenizer import train_tokenizer
from demo.gemma.tower_speech import SpeechAlignment, TowerSpeech, align_speech, encode_clips
from demo.precision import CPU, describe_precision
from demo.shipped import WEIGHTS
from demo.world.grammar import (
    Question,
    all_questions,
    interruptions,
    listening_sentences,
    with_interruptions,
)
from gemma4.gemma import AudioEncoder, load_audio_encoder, load_gemma, load_tokenizer
from gemma4.kinds import AnyGemma, has_tower
from gemma4.plain_tokenizer import with_empty_thought
from gemma4.speech_embeddings import accept_embeddings

# Shares of all steps; the joint phase takes the rest.
PHASE_SHARES = {
    "tower": {"ear": 0.26, "chat": 0.31, "align": 0.03},
    "patches": {"ear": 0.5, "chat": 0.0, "align": 0.0},
}
FEWEST_STEPS = {"tower": 25, "patches": 2}
CHAT_LEARNING_RATE = 4e-3
PATCH_EAR_LEARNING_RATE = 3e-3
# About as much time as the speech of a step, which the other process spends.
TYPED_PER_STEP = {"tower": 64, "patches": 40}
JOINT_LEARNING_RATES = {"tower": 1e-3, "patches": 2e-3}
VOCABULARY_SIZE = 1024
SENTENCES_PER_INTERRUPTION = 60
SCALE_STEPS = 60  # to find the alignment's scale again, which no checkpoint holds


@dataclass(frozen=True, kw_only=True)
class TrainGemmaConfig:
    """Train the demo's tiny Gemma 4 on synthetic Twi."""

    out: Path
    """new folder for this run"""
    kind: Literal["tower", "patches"] = "tower"
    """tower: hears as E2B and E4B do; patches: without an encoder, as 12B does"""
    init_from: Path | None = None
    """model of an earlier run, to go on from; only the joint phase is run; for --kind tower"""
    teacher: Path = WEIGHTS / "gemma"
    """for --kind patches: the demo's Gemma whose tower shows it how to hear"""
    steps: PositiveInt = 8_400
    """optimizer steps of all phases together"""
    num_clips: PositiveInt = 32_000
    """recordings to train on, half of them of meaningless sentences"""
    processes: PositiveInt = 2
    """2: one process trains on speech, the other on chat; 1: one after the other, same steps"""
    num_dev: PositiveInt = 200
    """dev questions for evaluation, typed and spoken"""
    save_every: PositiveInt = 500
    """steps between checkpoints, and between evaluations on dev"""
    seed: Seed = 0
    """seed for weight initialisation, recordings and batches"""
    resume: bool = False
    """continue from the newest checkpoints"""


def main(argv: list[str] | None = None) -> None:
    """Train; prints the folder."""
    config = parse_config(TrainGemmaConfig, argv)
    if config.processes not in (1, 2):
        raise InputError(f"--processes must be 1 or 2, got {config.processes}")
    fewest = FEWEST_STEPS[config.kind]
    if config.steps < fewest and not config.init_from:
        raise InputError(
            f"--steps must be at least {fewest}, so that each phase has one: {config.steps}"
        )
    if config.init_from and config.kind != "tower":
        raise InputError("--init-from: only a model with a tower goes on; leave --kind out")
    if config.init_from:  # what is wrong with it is said before a folder is made
        load_tokenizer(str(config.init_from))
    if config.kind == "patches":
        _load_teacher(config)
    with run_folder(
        config.out, config, "demo.gemma.train", inputs=("init_from", "teacher")
    ) as output:
        if output.is_done:
            return
        output.record(**describe_machine(CPU, describe_precision()))
        with tempfile.TemporaryDirectory() as meeting_place:
            arguments = (config, f"file://{meeting_place}/meet")
            if config.processes == 1:
                _train(0, *arguments)
            else:
                start_processes(_train, arguments, nprocs=config.processes)


# With two threads per process on two cores, threads would wait for each other.
@use_threads(1)
def _train(rank: int, config: TrainGemmaConfig, meeting_place: str) -> None:
    """Run all phases in one of the processes: the first trains the ear, the last the chat, and both
    the joint phase. A single process does both in turn."""
    is_first, is_last = rank == 0, rank == config.processes - 1
    # The last process waits long for the first.
    dist.init_process_group(
        "gloo", meeting_place, rank=rank, world_size=config.processes, timeout=timedelta(hours=12)
    )
    out, seed = config.out, config.seed
    steps = _steps_of_phases(config)
    save: dict[str, Any] = {"save_every": config.save_every, "seed": seed}
    decoder = {**save, "typed_per_step": TYPED_PER_STEP[config.kind]}
    train, dev = ([q for q in all_questions() if q.split == split] for split in ("train", "dev"))
    dev = dev[: config.num_dev]
    # No more clips than the phase that hears most of them.
    most_clips = 25 * max(steps["ear"], steps["joint"])
    sentences = sentences_to_hear(train, min(config.num_clips, most_clips), seed)
    gemma, tokenizer = _start(config, sentences)
    rows = RowMaker(tokenizer)
    typed = TypedDialogues(with_interruptions(train), rows) if is_last else None
    dev_rows = [rows.typed([(q.text, q.answer)]) for q in dev]
    measures: Measures = {"typed": partial(exact_share, gemma, dev_rows)}
    if is_last and steps["chat"]:
        train_decoder(
            out / "chat", gemma, typed=typed, dev=measures, learning_rate=CHAT_LEARNING_RATE,
            steps=steps["chat"], **decoder,
        )  # fmt: skip
    clips = dev_clips = None
    if is_first:
        clips = record_clips(out / "clips" / "train", sentences, held_out=False, seed=seed)
        dev_texts = [q.text for q in dev]
        dev_clips = record_clips(
            out / "clips" / "dev", dev_texts, held_out=False, seed=derive_seed(seed, "dev")
        )
    together = {"typed": typed, "num_processes": config.processes, "is_first": is_first, **decoder}
    speech: SpeechTask
    if config.kind == "patches":
        speech = train_patch_ear(
            out / "ear", gemma, rows, _load_teacher(config).tower, clips, dev_clips, dev=measures,
            learning_rate=PATCH_EAR_LEARNING_RATE, steps=steps["ear"], **together,
        )  # fmt: skip
        dev_heard = patch_rows(rows, dev_clips, range(len(dev_clips))) if dev_clips else []
    else:
        tower = gemma.model.audio_tower
        if clips and dev_clips and steps["ear"]:
            train_ear(out / "ear", tower, tokenizer, clips, dev_clips, steps=steps["ear"], **save)
        _broadcast(gemma.model.language_model, source=config.processes - 1)
        alignment = SpeechAlignment(gemma)
        heard, dev_heard = None, []
        if clips and dev_clips:
            # From here on, the tower has exactly the weights that will be saved.
            _round_to_bfloat16(tower)
            with use_threads(config.processes):  # the other process waits meanwhile
                heard = encode_clips(tower, clips)
                dev_heard = encode_clips(tower, dev_clips).rows(rows)
                align_speech(
                    out / "align", gemma, alignment, rows, heard, steps=steps["align"], seed=seed,
                    scale_only=config.init_from is not None,
                )  # fmt: skip
        _broadcast(alignment, source=0)
        speech = TowerSpeech(gemma, alignment, rows, heard)
    measures["transcription"] = partial(exact_share, gemma, dev_heard)
    train_decoder(
        out / "joint", gemma, speech=speech, dev=measures,
        learning_rate=JOINT_LEARNING_RATES[config.kind], steps=steps["joint"], **together,
    )  # fmt: skip
    if is_first:
        _save(out / "model", gemma, tokenizer)
    dist.destroy_process_group()


def _steps_of_phases(config: TrainGemmaConfig) -> dict[str, int]:
    if config.init_from:
        return {"ear": 0, "chat": 0, "align": min(SCALE_STEPS, config.steps), "joint": config.steps}
    shares = PHASE_SHARES[config.kind]
    steps = {name: round(share * config.steps) for name, share in shares.items()}
    return {**steps, "joint": config.steps - sum(steps.values())}


def _load_teacher(config: TrainGemmaConfig) -> AudioEncoder:
    return load_audio_encoder(
        str(config.teacher), device=CPU, dtype=torch.float32, flag="--teacher"
    )


def _start(
    config: TrainGemmaConfig, sentences: Sequence[str]
) -> tuple[Any, PreTrainedTokenizerBase]:
    """The model and the tokenizer to begin with, in float32."""
    if config.init_from is None:
        tokenizer = train_tokenizer([*sentences, language().write], VOCABULARY_SIZE)
        if config.kind == "patches":
            tokenizer.chat_template = with_empty_thought(str(tokenizer.chat_template))
            return build_unified_gemma(tokenizer, config.seed), tokenizer
        return build_gemma(tokenizer, config.seed), tokenizer
    gemma, trained_tokenizer = load_gemma(str(config.init_from), device=CPU, dtype=torch.float32)
    gemma.set_attn_implementation(ATTENTION)
    return accept_embeddings(gemma).requires_grad_(True), trained_tokenizer


def _save(folder: Path, gemma: AnyGemma, tokenizer: PreTrainedTokenizerBase) -> None:
    has_mel = has_tower(gemma.config)
    for part in ("text_config", "audio_config", "vision_config"):
        getattr(gemma.config, part).dtype = None  # of a loaded model, that in which it was loaded
    for name in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(name, None)  # how it was loaded, likewise
    with model_written_aside(folder) as aside:
        gemma.to(torch.bfloat16).save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        extractor = Gemma4AudioFeatureExtractor if has_mel else Gemma4UnifiedAudioFeatureExtractor
        extractor().save_pretrained(aside)


def sentences_to_hear(questions: Sequence[Question], count: int, seed: int) -> list[str]:
    """Sentences to record for training: half are questions and answers alternately, half are
    meaningless, so that the ear does not learn to guess; one in sixty interrupts, which is the only
    way to hear a word by itself."""
    meaningful = sorted({text for q in questions for text in (q.text, q.answer)})
    shuffled = random.Random(seed)
    shuffled.shuffle(meaningful)
    short = [q.text for q in interruptions(count // SENTENCES_PER_INTERRUPTION)]
    num_senseless = count // 2
    num_meaningful = count - num_senseless - len(short)
    chosen = [meaningful[i % len(meaningful)] for i in range(num_meaningful)]
    return chosen + short + listening_sentences(num_senseless, seed)


def _broadcast(module: nn.Module, source: int) -> None:
    for tensor in module.state_dict().values():
        dist.broadcast(tensor, source)


@torch.no_grad()
def _round_to_bfloat16(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.copy_(parameter.bfloat16())


if __name__ == "__main__":
    run_command(main)
