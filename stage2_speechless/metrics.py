"""What is measured of Speechless: its loss, and what the CTC reader understands of its speech."""

from collections.abc import Sequence

import torch

from data_manifests.error_rates import compute_error_rates
from stage1_rvq.data import iterate_batches
from stage2_speechless.data import TrainingUtterance, collate, move_batch
from stage2_speechless.generation import MAX_FRAMES
from stage2_speechless.model import Speechless
from stage2_speechless.round_trip import RoundTrip
from stage2_speechless.sampling import DEFAULT_TEMPERATURE, DEFAULT_TOP_K
from stage2_speechless.speak import Sentence, speak


@torch.no_grad()
def measure_loss(
    model: Speechless, utterances: list[TrainingUtterance], batch_size: int
) -> dict[str, float]:
    """Loss per frame, in all and of each codebook, of utterances whose conditions are all told."""
    device = model.code0_head.weight.device
    by_length = sorted(utterances, key=lambda u: len(u.codes_TK))
    num_frames = sum(len(u.codes_TK) for u in utterances)
    sums: dict[str, float] = {}
    for positions in iterate_batches(len(by_length), batch_size):
        picks = [by_length[i] for i in positions]
        loss = model(**vars(move_batch(collate(picks, model), device)))
        for name, value in loss.as_numbers().items():
            if name != "end":
                weight = sum(len(u.codes_TK) for u in picks) / num_frames
                sums[name] = sums.get(name, 0.0) + value * weight
    return sums


def measure_speech(
    model: Speechless,
    utterances: Sequence[TrainingUtterance],
    round_trip: RoundTrip,
    *,
    seed: int = 0,
    temperature: float = DEFAULT_TEMPERATURE,
    top_k: int = DEFAULT_TOP_K,
    batch_size: int = 32,
    max_frames: int = MAX_FRAMES,
) -> dict[str, float | int]:
    """Speak the utterances' sentences anew and have both versions read.

    Returns:
        wer_real_codes: reader's pooled WER on the real codes, the ceiling.
        wer_generated, cer_generated: on the generated ones.
        length_ratio: all generated frames over all real ones.
        never_ended: fraction of sentences that had to be cut off.
        num_utterances: how many.
    """
    texts = [u.text for u in utterances]
    spoken = speak(
        model,
        [Sentence(u.id, u.text, u.dialect) for u in utterances],
        seed=seed,
        temperature=temperature,
        top_k=top_k,
        batch_size=batch_size,
        max_frames=max_frames,
    )
    real = compute_error_rates(texts, round_trip.transcribe([u.codes_TK for u in utterances]))
    generated = compute_error_rates(texts, round_trip.transcribe([s.codes_TK for s in spoken]))
    num_real_frames = sum(len(u.codes_TK) for u in utterances)
    return {
        "wer_real_codes": real.wer,
        "wer_generated": generated.wer,
        "cer_generated": generated.cer,
        "length_ratio": sum(len(s.codes_TK) for s in spoken) / num_real_frames,
        "never_ended": sum(not s.ended for s in spoken) / len(spoken),
        "num_utterances": len(spoken),
    }
