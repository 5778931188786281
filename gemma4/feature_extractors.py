"""What turns a waveform into a checkpoint's features: log-mel bands, or patches of the waveform."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from transformers import (
    Gemma4AudioFeatureExtractor,
    Gemma4UnifiedAudioFeatureExtractor,
    PretrainedConfig,
)

from commands.errors import InputError
from commands.pretrained import one_line_errors
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from gemma4.kinds import PATCHES

# Fewer samples do not fill one analysis window of the mel front end.
MIN_SAMPLES = 161
SAMPLES_PER_FRAME = 640  # 25 frames per second
MEL = {
    "sampling_rate": GEMMA_SAMPLE_RATE_HZ, "hop_length": 160, "feature_size": 128,
    "padding_side": "right",
}  # fmt: skip
PATCH = {
    "sampling_rate": GEMMA_SAMPLE_RATE_HZ, "feature_size": SAMPLES_PER_FRAME,
    "audio_samples_per_token": SAMPLES_PER_FRAME, "padding_side": "right",
}  # fmt: skip


def load_feature_extractor(
    name: str,
) -> Gemma4AudioFeatureExtractor | Gemma4UnifiedAudioFeatureExtractor:
    """Load the feature extractor of a checkpoint: that of its kind.

    Raises:
        InputError: it cannot be loaded, or is not set as Gemma 4's.
    """
    with one_line_errors("--gemma", name):
        kind = PretrainedConfig.get_config_dict(name)[0].get("model_type")
        if kind == PATCHES:
            return _load(Gemma4UnifiedAudioFeatureExtractor, name, PATCH)
        return _load(Gemma4AudioFeatureExtractor, name, MEL)


def _load(extractor_class: Any, name: str, expected: Mapping[str, Any]) -> Any:
    extractor = extractor_class.from_pretrained(name, trust_remote_code=False)
    for setting, value in expected.items():
        if (found := getattr(extractor, setting)) != value:
            raise InputError(
                f"preprocessor_config.json has {setting} = {found!r}, Gemma 4 {value!r}"
            )
    # Errors in other settings show when it is used.
    silence_N = np.zeros(16 * MIN_SAMPLES, np.float32)
    features = extractor([silence_N], sampling_rate=GEMMA_SAMPLE_RATE_HZ, return_tensors="pt")
    if not features["input_features"].isfinite().all():
        raise InputError("what preprocessor_config.json makes of silence is not finite")
    return extractor
