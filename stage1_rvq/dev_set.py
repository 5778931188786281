"""Measure a quantiser on held-out frames during training."""

from dataclasses import asdict, dataclass

import torch

from data_manifests.error_rates import compute_error_rates
from stage1_rvq.codebook_metrics import compare_frames
from stage1_rvq.data import EmbeddingFolder
from stage1_rvq.model import SpeechRVQ
from stage1_rvq.task_loss import TaskLoss

MAX_DEV_FRAMES = 100_000


@dataclass(frozen=True)
class DevMetrics:
    """Relative error and cosine of the dev split's frames, with all codebooks, in the
    space that counts (`FrameMetric.spaces`); with a recogniser, also its error rates on them."""

    relative_error: float
    cosine: float
    wer: float | None = None
    cer: float | None = None

    def as_numbers(self) -> dict[str, float]:
        """What was measured, for the training log."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@torch.no_grad()
def measure_on_dev(
    rvq: SpeechRVQ, dev: EmbeddingFolder, task: TaskLoss | None = None
) -> DevMetrics:
    """Measure a quantiser; the error rates only with a task loss, by its recogniser."""
    rvq.eval()
    device = rvq.frame_scale_D.device
    frames_ND = dev.sample(MAX_DEV_FRAMES, seed=0).to(device)
    decoded_ND = rvq.decode(rvq.encode(frames_ND))
    space = dev.metric.spaces[0]
    reconstruction = compare_frames(
        dev.metric.into_space(frames_ND, space), dev.metric.into_space(decoded_ND, space)
    )
    relative_error, cosine = reconstruction.relative_error, reconstruction.cosine
    if not task:
        return DevMetrics(relative_error, cosine)
    decoded = [rvq.decode(rvq.encode(dev.read(u).to(device))) for u in dev.utterances]
    rates = compute_error_rates(
        [u.text for u in dev.utterances], task.recognizer.transcribe(decoded)
    )
    return DevMetrics(relative_error, cosine, rates.wer, rates.cer)
