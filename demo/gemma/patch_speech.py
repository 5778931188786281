"""Speech for a Gemma without a tower: its decoder hears, and is told in its middle what is said.

Patches of the waveform are written down, as frames of a tower are. So that a small decoder need not
find out by that alone what they mean, the states of a middle layer, over the patches, are also read
by CTC, through a linear map that is thrown away afterwards: the layers below are to become an ear.
How much that helps: not yet measured.
"""

# B rows, S text positions, T patches (25 per second), W decoder width, V vocabulary

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import Gemma4UnifiedAudioFeatureExtractor, Gemma4UnifiedForConditionalGeneration

from demo.gemma.chat_rows import RowMaker
from demo.gemma.clips import Clips
from demo.gemma.decoder import row_loss
from demo.gemma.ear import token_ctc_loss, token_log_probs
from demo.gemma.tokenizer import heard_ids
from gemma4.patches import PatchEncoder
from stage1_rvq.data import pad_frames
from stage3_finetune.dialogue import EncodedDialogue


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
        spoken = patch_rows(self._rows, self._clips, picks)
        heard: list[Tensor] = []

        def keep(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            heard.append(output if isinstance(output, Tensor) else output[0])

        hook = self._ear_layer.register_forward_hook(keep)
        try:
            loss = row_loss(self._gemma, spoken)
        finally:
            hook.remove()
        slot = self._rows.special["audio"]
        states = [
            x_SW[: len(row.input_ids)][torch.tensor(row.input_ids) == slot]
            for x_SW, row in zip(heard[0], spoken, strict=True)
        ]
        states_BTW, mask_BT = pad_frames(states)
        log_probs_BTV = token_log_probs(self.module["scores"](states_BTW.float()))
        targets = [heard_ids(self._rows.tokenizer, self._clips.texts[i]) for i in picks]
        ctc = token_ctc_loss(log_probs_BTV, mask_BT.sum(dim=1), targets)
        return {"transcription": loss, "ear": ctc}


def patch_rows(rows: RowMaker, clips: Clips, picks: Sequence[int]) -> list[EncodedDialogue]:
    """Transcription rows of some clips, with their patches, float32 `[T, 640]` each."""
    encoder = PatchEncoder(Gemma4UnifiedAudioFeatureExtractor())
    frames = encoder.encode([clips.waveform(i) for i in picks])
    return [
        rows.transcription(clips.texts[i], frames_TD)
        for i, frames_TD in zip(picks, frames, strict=True)
    ]
