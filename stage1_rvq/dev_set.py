"""Measure a quantiser on held-out frames during training."""

import torch

from data_manifests.error_rates import compute_error_rates
from stage1_rvq.codebook_metrics import measure_reconstruction
from stage1_rvq.data import EmbeddingFolder
from stage1_rvq.model import SpeechRVQ
from stage1_rvq.task_loss import TaskLoss

MAX_DEV_FRAMES = 100_000


@torch.no_grad()
def measure_on_dev(
    rvq: SpeechRVQ, dev: EmbeddingFolder, task: TaskLoss | None = None
) -> dict[str, float]:
    """Relative error and cosine on the dev split's frames, with all codebooks; with a reader, also
    its error rates on them."""
    rvq.eval()
    device = rvq.frame_scale_D.device
    frames_ND = dev.sample(MAX_DEV_FRAMES, seed=0).to(device)
    decoded_ND = rvq.decode(rvq.encode(frames_ND))
    reconstruction = measure_reconstruction(frames_ND, decoded_ND, rvq.frame_scale_D)
    metrics = {"relative_error": reconstruction.relative_error, "cosine": reconstruction.cosine}
    if task:
        decoded = [rvq.decode(rvq.encode(dev.read(u).to(device))) for u in dev.utterances]
        rates = compute_error_rates(
            [u.text for u in dev.utterances], task.reader.transcribe(decoded)
        )
        metrics |= {"wer": rates.wer, "cer": rates.cer}
    return metrics
