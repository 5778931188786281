"""Time stage 4: is every frame of speech ready before the previous one has been played?

    python -m benchmarks.speech_head
    python -m benchmarks.speech_head --gemma google/gemma-4-E4B-it --mimi kyutai/mimi \
        --finetune runs/finetune --head runs/head

Prints four tables in one run, each with what a user would compare with:

- an answer, end to end: from the question to the first sound and to the last, with Gemma writing
  while the head speaks (by default the demo's trained models);
- frames: a step of the head, its code-frame decoder and Mimi, against the 80 ms that a frame lasts;
  with those models, and at full size with random weights, which do not affect timings: as the
  chats load them, and with weights that were not repacked (`gemma4/packed_linear.py`);
- Mimi as a stream, against decoding all frames again whenever one is added;
- the code-frame decoder, against transformers' `CsmDepthDecoderForCausalLM.generate` with the same
  shape.
"""

# B utterances, S answer tokens, F Mimi frames (12.5 per second), K codebooks, D width of Gemma

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CsmDepthDecoderConfig, CsmDepthDecoderForCausalLM, MimiConfig, MimiModel

from benchmarks.timing import take_turns
from commands.command_line import parse_config, run_command
from commands.device import DeviceName, DtypeName, pick_device, pick_dtype
from commands.setting_types import ModelName, PositiveInt, PositiveInts
from demo.shipped import WEIGHTS
from gemma4.packed_linear import pack_linear_layers
from speech_head.config import SpeechHeadConfig
from speech_head.head_batch import HeadExample
from speech_head.mimi import Mimi
from speech_head.mimi_stream import MimiStreamDecoder, decode_together
from speech_head.model import SpeechHead
from speech_head.speech import Speech
from speech_head.stream import HeadStream, Sampling, step_together
from speech_head.talker import Talker, load_talker
from speech_head.timed_speech import TimedSpeech, record
from speech_head.training_settings import TrainConfig
from stage2_speechless.frame_decoder import FrameDecoder

DEMO_GEMMA = str(WEIGHTS / "gemma")
PROMPT = "Benada akyi yɛ da bɛn?"  # "What day is after Tuesday?"
NUM_TOKENS = 512  # far more than are spoken
NUM_WARM_UP = 5  # frames that are not timed


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Time the speech head, Mimi and the code-frame decoder while they speak."""

    gemma: ModelName = DEMO_GEMMA
    """hub name or folder of the Gemma 4 that answers"""
    finetune: Path | None = None
    """adapter, written by stage3_finetune.train; with the demo's Gemma, by default the demo's"""
    mimi: ModelName = str(WEIGHTS / "mimi")
    """hub name or folder of Mimi"""
    head: ModelName = str(WEIGHTS / "head")
    """folder of speech_head.train, or hub name"""
    batch_sizes: PositiveInts = (1, 8)
    """utterances spoken together"""
    num_frames: PositiveInt = 100
    """frames per utterance, 12.5 per second"""
    rounds: PositiveInt = 3
    """number of timed runs of each, after a warm-up"""
    full_size: bool = True
    """also time full-size models with random weights (151 M head, 79 M Mimi)"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu"""
    dtype: DtypeName = "auto"
    """precision of Gemma; head and Mimi run in float32"""


@dataclass(frozen=True)
class FrameTimes:
    """Times for B utterances spoken together.

    Attributes:
        first_ms: from the tokens to the first frame's samples.
        frame_ms: for each later frame, including its samples.
    """

    first_ms: float
    frame_ms: list[float]


def main(argv: list[str] | None = None) -> None:
    """Run the comparisons; prints tables."""
    config = parse_config(BenchmarkConfig, argv)
    device = pick_device(config.device)
    adapter = config.finetune
    if adapter is None and config.gemma == DEMO_GEMMA:
        adapter = WEIGHTS / "finetune"
    talker = load_talker(
        config.gemma, adapter, config.mimi, config.head,
        device=device, dtype=pick_dtype(config.dtype, device), cut_long_answers=True,
    )  # fmt: skip
    talker.speed_up()
    print(f"{device}, {torch.get_num_threads()} threads, medians of {config.rounds}")
    time_answers(config, talker)
    voices = {"given": (talker.head, talker.mimi)}
    if config.full_size:
        head, mimi = voices["full size, random"] = build_full_size(device)
        for model in (head, mimi.model):
            pack_linear_layers(model)
    not_packed = {"not repacked": build_full_size(device)} if config.full_size else {}
    time_frames(config, voices | not_packed)
    compare_mimi(config, {name: mimi for name, (_, mimi) in voices.items()}, device)
    compare_frame_decoders(
        config, {name: head.frame_decoder for name, (head, _) in voices.items()}, device
    )


def time_answers(config: BenchmarkConfig, talker: Talker) -> None:
    """End to end: Gemma writes, the head speaks."""
    recordings: list[TimedSpeech] = []
    for round_ in range(config.rounds + 1):
        speech = Speech(talker, Sampling(seed=round_))
        recordings.append(record(speech, talker.answer(talker.conversation.typed_turn(PROMPT))))
        talker.conversation.turns.clear()
    counted = recordings[1:]
    first_ms = 1000 * statistics.median(one.first_sound_s for one in counted)
    factor = statistics.median(one.total_s / one.duration_s for one in counted)
    print(
        f"\n{PROMPT!r} -> {speech.text!r}, {len(speech.ids)} tokens, Gemma included\n"
        f"first sound after {first_ms:.0f} ms, real-time factor {factor:.3f}"
    )


def build_full_size(device: torch.device) -> tuple[SpeechHead, Mimi]:
    """A full-size head and Mimi with random weights; the head uses guidance, like one trained with
    the defaults."""
    torch.manual_seed(0)
    head = (
        SpeechHead(SpeechHeadConfig(text_dropout=TrainConfig.loss.text_dropout))
        .to(device)
        .eval()
        .requires_grad_(False)
    )
    mimi = Mimi(MimiModel(MimiConfig()), num_codebooks=head.config.num_codebooks, device=device)
    return head, mimi


def time_frames(config: BenchmarkConfig, voices: dict[str, tuple[SpeechHead, Mimi]]) -> None:
    """Milliseconds per frame, against the time that it lasts."""
    print(
        f"\n{config.num_frames} frames of each utterance, ms a frame of all utterances together\n"
        f"{'':<20}{'batch':>6}{'first':>10}{'p50':>8}{'p95':>8}{'budget':>8}"
        f"{'real-time factor':>18}"
    )
    for name, (head, mimi) in voices.items():
        budget_ms = 1000 / mimi.frame_rate_hz
        for batch_size in config.batch_sizes:
            runs = [
                time_stream(head, mimi, batch_size, config.num_frames, seed=round_)
                for round_ in range(config.rounds + 1)
            ][1:]
            first_ms = statistics.median(run.first_ms for run in runs)
            frames_ms = torch.tensor([ms for run in runs for ms in run.frame_ms])
            p50_ms, p95_ms = frames_ms.quantile(torch.tensor([0.5, 0.95])).tolist()
            print(
                f"{name:<20}{batch_size:>6}{first_ms:>10.1f}{p50_ms:>8.1f}{p95_ms:>8.1f}"
                f"{budget_ms:>8.0f}{frames_ms.mean().item() / budget_ms:>18.3f}",
                flush=True,
            )


def time_stream(
    head: SpeechHead, mimi: Mimi, batch_size: int, num_frames: int, *, seed: int
) -> FrameTimes:
    """Speak random tokens for `num_frames` frames, including Mimi."""
    generator = torch.Generator().manual_seed(seed)
    width, num_layers = head.config.state_width, len(head.config.layers)
    streams = [HeadStream(head, str(i), Sampling(seed=seed)) for i in range(batch_size)]
    decoders = [MimiStreamDecoder(mimi) for _ in streams]
    tokens = HeadExample(
        states_SLD=torch.randn(NUM_TOKENS, num_layers, width, generator=generator),
        embeddings_SD=torch.randn(NUM_TOKENS, width, generator=generator),
        codes_FK=torch.empty(0), cursor_F=torch.empty(0),
    )  # fmt: skip
    frame_ms: list[float] = []
    for position in range(num_frames + NUM_WARM_UP):
        started = time.perf_counter()
        if position == 0:
            for stream in streams:
                stream.push(tokens)
        frames = [codes_K for codes_K in step_together(streams) if codes_K is not None]
        assert len(frames) == batch_size, "speech that is not closed cannot end"
        decode_together(decoders, torch.stack(frames)[:, None]).cpu()
        frame_ms.append(1000 * (time.perf_counter() - started))
    return FrameTimes(frame_ms[0], frame_ms[NUM_WARM_UP:])


def compare_mimi(config: BenchmarkConfig, codecs: dict[str, Mimi], device: torch.device) -> None:
    """Decode frame by frame: as a stream, and by decoding everything again for every frame."""
    print(f"\nMimi, {config.num_frames} frames as they come, ms a frame")
    print(f"{'':<20}{'stream':>10}{'prefix again':>14}{'ratio':>8}")
    for name, mimi in codecs.items():
        codes_FK = random_codes(config.num_frames, mimi.num_codebooks, mimi.codebook_size)
        ways = {
            "stream": partial(decode_as_stream, mimi, codes_FK),
            "again": partial(decode_prefixes, mimi, codes_FK),
        }
        seconds = take_turns(ways, config.rounds, device, f"Mimi, {name}")
        ms = {way: 1000 * taken / config.num_frames for way, taken in seconds.items()}
        ratio = ms["again"] / ms["stream"]
        print(f"{name:<20}{ms['stream']:>10.2f}{ms['again']:>14.2f}{ratio:>7.1f}x", flush=True)


def decode_as_stream(mimi: Mimi, codes_FK: Tensor) -> None:
    """Decode frame by frame, each with what the stream remembers of earlier ones."""
    decoder = MimiStreamDecoder(mimi)
    for codes_K in codes_FK:
        decoder.decode(codes_K[None])


def decode_prefixes(mimi: Mimi, codes_FK: Tensor) -> None:
    """Decode all frames so far for every new one, and keep its samples."""
    for end in range(1, len(codes_FK) + 1):
        mimi.decode(codes_FK[:end])[-mimi.frame_size :]


def compare_frame_decoders(
    config: BenchmarkConfig, decoders: dict[str, FrameDecoder], device: torch.device
) -> None:
    """Complete frames whose first codes are known, with ours and transformers' of equal shape."""
    print("\ncode-frame decoder, ms a frame of all utterances together")
    print(f"{'':<20}{'batch':>6}{'ours':>10}{'CSM':>10}{'ratio':>8}")
    for name, ours in decoders.items():
        csm = build_csm_decoder(ours).to(device)
        for batch_size in config.batch_sizes:
            states_ND = torch.randn(batch_size, ours.project.in_features, device=device)
            code0_N = random_codes(batch_size, 1, ours.codebook_size)[:, 0].to(device)
            uniforms_NJ = torch.rand(batch_size, ours.num_codebooks - 1, device=device)
            top_k = min(Sampling.top_k, ours.codebook_size)
            sampling: dict[str, Any] = {"temperature": Sampling.temperature, "top_k": top_k}
            complete = {
                "ours": partial(ours.generate, states_ND, code0_N, uniforms_NJ, **sampling),
                "CSM": partial(
                    csm.generate,
                    F.pad(code0_N[:, None], (1, 0)),  # slot for the state
                    backbone_last_hidden_state=states_ND, do_sample=True,
                    max_new_tokens=ours.num_codebooks - 1, **sampling,
                ),
            }  # fmt: skip
            ways = {way: partial(repeat, config.num_frames, run) for way, run in complete.items()}
            seconds = take_turns(ways, config.rounds, device, f"decoder, {name}, {batch_size}")
            ms = {way: 1000 * taken / config.num_frames for way, taken in seconds.items()}
            ratio = ms["CSM"] / ms["ours"]
            print(
                f"{name:<20}{batch_size:>6}{ms['ours']:>10.2f}{ms['CSM']:>10.2f}{ratio:>7.1f}x",
                flush=True,
            )


def repeat(times: int, function: Callable[[], object]) -> None:
    """Call a function several times."""
    for _ in range(times):
        function()


def build_csm_decoder(ours: FrameDecoder) -> CsmDepthDecoderForCausalLM:
    """transformers' depth decoder in the shape of ours, with random weights."""
    llama = ours.transformer.config
    config = CsmDepthDecoderConfig(
        num_codebooks=ours.num_codebooks,
        backbone_hidden_size=ours.project.in_features,
        vocab_size=ours.codebook_size,
        hidden_size=llama.hidden_size,
        intermediate_size=llama.intermediate_size,
        num_hidden_layers=llama.num_hidden_layers,
        num_attention_heads=llama.num_attention_heads,
        num_key_value_heads=llama.num_attention_heads,
        max_position_embeddings=ours.num_codebooks + 1,
    )
    return CsmDepthDecoderForCausalLM(config).eval()


def random_codes(num_frames: int, num_codebooks: int, codebook_size: int) -> Tensor:
    """Random codes, int64 `[F, K]`, the same in every call."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(codebook_size, (num_frames, num_codebooks), generator=generator)


if __name__ == "__main__":
    run_command(main)
