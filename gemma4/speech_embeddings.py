"""Input of speech embeddings: generated speech enters Gemma 4 where real speech does."""

# B utterances, T frames (25 per second), D embedding width (1024)

from typing import Any

from torch import Tensor
from transformers.models.gemma4.modeling_gemma4 import Gemma4AudioModelOutput, Gemma4Model

from gemma4.kinds import AnyGemma, has_tower


class SpeechGemma4Model(Gemma4Model):
    """Gemma 4's body, which also accepts speech embeddings in place of mel spectrograms.

    The two are told apart by width: `[B, T, 128]` is a mel spectrogram and goes through the tower,
    `[B, T, 1024]` are embeddings before `output_proj` and skip it. Nothing else differs, so real
    and generated speech give the same logits for the same embeddings.
    """

    def get_audio_features(
        self, input_features: Tensor, input_features_mask: Tensor, **kwargs: Any
    ) -> Gemma4AudioModelOutput:
        """Soft tokens for speech, from either kind of input; see the class."""
        if input_features.shape[-1] != self.config.audio_config.hidden_size:
            return super().get_audio_features(input_features, input_features_mask, **kwargs)
        project = self.audio_tower.output_proj
        projected = project(input_features.to(project.weight.dtype))
        return Gemma4AudioModelOutput(
            last_hidden_state=projected,
            pooler_output=self.embed_audio(inputs_embeds=projected),
            attention_mask=input_features_mask.bool(),
        )


def accept_embeddings(model: AnyGemma) -> AnyGemma:
    """Let a loaded Gemma 4 take speech embeddings as `input_features`, in place.

    Parameters, their names, `generate`, saving and peft are not affected; call this before peft
    wraps the model. A Gemma without a tower takes patches of the waveform as it is.
    """
    if not has_tower(model.config):
        return model
    assert model.config.audio_config.hidden_size != 128, "mel and embeddings would look alike"
    # transformers builds the body itself; only its class differs from the stock one.
    model.model.__class__ = SpeechGemma4Model
    return model
