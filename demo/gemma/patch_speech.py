"""Speech for a Gemma without a tower: its decoder hears, and is told in its middle what is said.

Patches of the waveform are written down, as frames of a tower are. Alone, this teaches a small
decoder nothing for thousands of steps. So the states of a middle layer, over the patches, are also
read by CTC, through a linear map that is thrown away afterwards: the layers below become an ear.
"""

# B rows, S text positions, T patches (25 per second), W decoder width

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Gemma4UnifiedForConditionalGeneration

from demo.gemma.chat_rows import RowMaker
from demo.gemma.clips import Clips
from demo.gemma.ear import BLANK, token_ctc_loss, token_log_probs
from demo.gemma.tokenizer import heard_ids
from demo.precision import half_precision
from gemma4.feature_extractors import SAMPLES_PER_FRAME
from stage1_rvq.data import pad_frames
from stage3_finetune.data import collate


class PatchSpeech:
    """Transcription from patches, and CTC from a middle layer; a `SpeechTask`."""

    def __init__(
        self,
        gemma: Gemma4UnifiedForConditionalGeneration,
        rows: RowMaker,
        clips: Clips | None,
        *,
        seed: int,
    ) -> None:
        """
        Args:
            clips: None if another process hears.
            seed: of the linear map.
        """
        config = gemma.config.text_config
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            scores = nn.Linear(config.hidden_size, config.vocab_size)
        self.module = nn.ModuleDict({"embed": gemma.model.embed_audio, "scores": scores})
        self.durations_s = clips.durations_s if clips else None
        self._gemma, self._rows, self._clips = gemma, rows, clips
        self._ear_layer = gemma.model.language_model.layers[config.num_hidden_layers // 2 - 1]

    def losses(self, picks: Sequence[int]) -> dict[str, Tensor]:
        """As `SpeechTask.losses`."""
        assert self._clips is not None
        texts = [self._clips.texts[i] for i in picks]
        frames = [patches(self._clips.waveform(i)) for i in picks]
        batch = collate(
            [self._rows.transcription(t, f) for t, f in zip(texts, frames, strict=True)],
            pad_id=BLANK,
        )
        heard: list[Tensor] = []

        def keep(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            heard.append(output if isinstance(output, Tensor) else output[0])

        hook = self._ear_layer.register_forward_hook(keep)
        try:
            with half_precision():
                loss: Tensor = self._gemma(**batch).loss
        finally:
            hook.remove()
        is_sound_BS = batch["input_ids"] == self._rows.special["audio"]
        states = [x_SW[is_S] for x_SW, is_S in zip(heard[0], is_sound_BS, strict=True)]
        states_BTW, mask_BT = pad_frames(states)
        log_probs_BTV = token_log_probs(self.module["scores"](states_BTW.float()))
        targets = [heard_ids(self._rows.tokenizer, text) for text in texts]
        ctc = token_ctc_loss(log_probs_BTV, mask_BT.sum(dim=1), targets)
        return {"transcription": loss, "ear": ctc}


def patches(waveform_N: np.ndarray) -> Tensor:
    """A waveform at 16 kHz -> float32 `[T, 640]`, as `PatchEncoder` cuts it."""
    padded_N = np.pad(waveform_N, (0, -len(waveform_N) % SAMPLES_PER_FRAME))
    return torch.from_numpy(padded_N.reshape(-1, SAMPLES_PER_FRAME))
