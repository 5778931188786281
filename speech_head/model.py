"""The speech head: an answer's tokens, with Gemma's states -> the Mimi frames that speak it.

    head = load_head("runs/head", device=torch.device("cpu"))
    stream = HeadStream(head, "answer-1", Sampling())     # stream.py

A temporal transformer works frame by frame, 12.5 per second. From the previous frame, the token
under a text cursor and the two tokens after it, it predicts codebook 0 (or the end of speech) and
by how many tokens the cursor advances; the code-frame decoder of stage 2 completes the frame. The
cursor never goes back: no word is repeated or left out, the head decides durations, and every frame
is known to belong to one token (delayed-streams modelling, arXiv:2509.08753, advances over words in
the same way).
"""

# B utterances, S answer tokens, F Mimi frames (12.5 per second), K codebooks (coarsest first),
# L Gemma layers, D width of Gemma, W width of the head, N frames of a batch end to end,
# E width of a voice, V voices known by name

from typing import Any

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache

from commands.checkpoint import find_pretrained, load_frozen
from commands.data_card import add_data_section
from commands.processes import ALONE, Shares
from commands.sources import HEAD, Sources, known
from data_manifests.language import language, refuse_other_language
from gemma4.layer_states import describe_mix
from speech_head.alignment import MAX_ADVANCE
from speech_head.config import SpeechHeadConfig
from speech_head.draws import VOICE_DROPOUT, Told, draw_told
from speech_head.head_batch import NO_VOICE, HeadBatch, HeadLoss
from speech_head.voice_encoder import VoiceEncoder
from stage2_speechless.frame_decoder import EMBEDDING_STD, FrameDecoder, build_transformer

VOICE_WEIGHT = 0.1  # of the speakers' names in the loss
LOOK_AHEAD = 2  # tokens after the cursor; as arXiv:2509.08753


class SpeechHead(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="speechless-twi",
    tags=["speech", "text-to-speech"],
):
    """Recogniser of Gemma's states, temporal transformer, its heads, and a code-frame decoder."""

    state_mean_LD: Tensor
    state_std_LD: Tensor
    voices_VE: Tensor

    def __init__(self, config: SpeechHeadConfig) -> None:
        super().__init__()
        self.config = config
        if config.reads != "embedding":
            shape = (len(config.layers), config.state_width)
            self.layer_scales_LD = nn.Parameter(torch.ones(shape))
            self.layer_logits_L = nn.Parameter(torch.zeros(len(config.layers)))
            self.read_states = nn.Linear(config.state_width, config.width)
            if config.standardizes:
                self.register_buffer("state_mean_LD", torch.zeros(shape))
                self.register_buffer("state_std_LD", torch.ones(shape))
        if config.reads != "states":
            self.read_embeddings = nn.Linear(config.state_width, config.width)
        if config.reads == "gate":
            self.gate = nn.Linear(2 * config.width, config.width)
        self.read_ahead = nn.Linear(LOOK_AHEAD * config.width, config.width, bias=False)
        # Code c of codebook k is token k V + c; one more token precedes the first frame.
        self.temporal = build_transformer(
            config.num_codebooks * config.codebook_size + 1,
            config.width, config.num_layers, config.num_heads,
        )  # fmt: skip
        # A frame is the sum of K embeddings, and should have the size of one.
        std = EMBEDDING_STD / config.num_codebooks**0.5
        nn.init.normal_(self.temporal.embed_tokens.weight, std=std)
        self.dropout = nn.Dropout(config.dropout)
        # One more class than there are codes: the end of speech.
        self.code0_head = nn.Linear(config.width, config.codebook_size + 1, bias=False)
        self.advance_head = nn.Linear(config.width, MAX_ADVANCE + 1)
        self.frame_decoder = FrameDecoder(
            config.num_codebooks, config.codebook_size, config.width, config.depth_width,
            config.depth_layers, config.depth_heads,
        )  # fmt: skip
        if config.voice_width:
            self.voice_encoder = VoiceEncoder(
                config.num_codebooks, config.codebook_size, config.voice_width
            )
            self.read_voice = nn.Linear(config.voice_width, config.width, bias=False)
            # At first it speaks as if there were no voices, for example as the head it starts from.
            nn.init.zeros_(self.read_voice.weight)
            if config.voices:
                # Whose voice it is, asked in training only. Else the encoder hardly learns that
                # voices differ: after the first frame, the frames before it tell the voice.
                self.name_voice = nn.Linear(config.voice_width, len(config.voices))
                shape = (len(config.voices), config.voice_width)
                self.register_buffer("voices_VE", torch.zeros(shape))

    @property
    def device(self) -> torch.device:
        return self.temporal.embed_tokens.weight.device

    @property
    def end_of_speech(self) -> int:
        """The class of `code0_head` that is not a code."""
        return self.config.codebook_size

    def made_from(self) -> Sources:
        """The data that it was trained on, and what else it was trained with."""
        return known(self.config.sources, HEAD)

    def generate_model_card(self, **facts: Any) -> ModelCard:
        """The card that `save_pretrained` and `push_to_hub` write: the hub's own, and the data."""
        card = super().generate_model_card(**facts)
        return add_data_section(card, self.made_from(), tag=language().tags[0])

    @torch.no_grad()
    def set_statistics(self, mean_LD: Tensor | float, std_LD: Tensor | float) -> None:
        """Say what states are standardised by; 0 and 1 leave them as they are."""
        self.state_mean_LD.copy_(torch.as_tensor(mean_LD))
        self.state_std_LD.copy_(torch.as_tensor(std_LD))

    def draw_told(self, num_utterances: int, num_frames: int, history_dropout: float = 0.0) -> Told:
        """Draw what the head is shown of a batch.

        Args:
            num_utterances: B.
            num_frames: frames of the longest utterance.
            history_dropout: probability that a frame is hidden from the frames after it. It delays
                overfitting (lowest dev loss of the demo's 700 steps: 3.48 at 0.2, 3.60 without),
                but does not make the speech more intelligible, since the cursor already tells the
                head which word it is at.
        """
        return draw_told(
            num_utterances, num_frames, history_dropout=history_dropout, device=self.device,
            text_dropout=self.config.text_dropout if self.training else 0.0,
            voice_dropout=VOICE_DROPOUT if self.training and self.config.voice_width else 0.0,
        )  # fmt: skip

    def forward(
        self,
        batch: HeadBatch,
        codebook_weights_K: Tensor,
        told: Told | None = None,
        shares: Shares = ALONE,
    ) -> HeadLoss:
        """Training loss of a batch; padding changes nothing.

        Args:
            batch: from `data.collate`.
            codebook_weights_K: float, loss weight of each codebook.
            told: what is shown of it; None draws it here, without hidden frames.
            shares: of a process that has a part of a batch; each loss is times its share.
        """
        if told is None:
            told = self.draw_told(*batch.frame_mask_BF.shape)
        tokens_BSW, gate_BSW = self._read(batch.states_BSLD, batch.embeddings_BSD)
        gate = None
        if gate_BSW is not None:
            gate = shares.tokens * gate_BSW.detach()[batch.token_mask_BS].mean()
        tokens_BSW = tokens_BSW * batch.token_mask_BS[..., None]
        text_BFW = self.text_under_cursor(tokens_BSW, batch.cursor_BF)
        if told.text_B is not None:
            text_BFW = text_BFW * told.text_B[:, None, None]
        frames_BFW = self.embed_frames(batch.codes_BFK)
        if told.frames_BF is not None:
            frames_BFW = frames_BFW * told.frames_BF[..., None]
        before_BFW = torch.cat([self.start_of_speech(len(text_BFW))[:, None], frames_BFW], dim=1)
        inputs_BFW, voice_loss = before_BFW + text_BFW, None
        if self.config.voice_width and batch.reference_BRK is not None:
            assert batch.reference_mask_BR is not None
            voices_BE = self.voice_encoder(batch.reference_BRK, batch.reference_mask_BR)
            if batch.voice_B is not None and self.config.voices:
                voice_loss = shares.utterances * self._name_loss(voices_BE, batch.voice_B)
            if told.voice_B is not None:
                voices_BE = voices_BE * told.voice_B[:, None]
            inputs_BFW = inputs_BFW + self.read_voice(voices_BE)[:, None]
        # Padding comes after the real frames, where a causal model does not see it.
        states_BFW = self.temporal_states(inputs_BFW)
        frame_mask_BF = batch.frame_mask_BF
        codes_NK = batch.codes_BFK[frame_mask_BF]
        states_NW = states_BFW[:, :-1][frame_mask_BF]
        advance_N = batch.cursor_BF.diff(dim=1)[frame_mask_BF]
        num_frames_B = frame_mask_BF.sum(dim=1)
        last_BW = states_BFW[torch.arange(len(states_BFW)), num_frames_B]
        end_B = torch.full_like(num_frames_B, self.end_of_speech)

        first = F.cross_entropy(self.code0_head(states_NW).float(), codes_NK[:, 0])
        end = F.cross_entropy(self.code0_head(last_BW).float(), end_B)
        logits_NJV = self.frame_decoder(states_NW, codes_NK).float()
        others_NJ = F.cross_entropy(logits_NJV.mT, codes_NK[:, 1:], reduction="none")
        codebooks_K = shares.frames * torch.cat([first[None], others_NJ.mean(dim=0)])
        advance = shares.frames * F.cross_entropy(self.advance_head(states_NW).float(), advance_N)
        weighted = (codebooks_K * codebook_weights_K).sum() / codebook_weights_K.sum()
        total = weighted + advance + shares.frames * end * len(end_B) / len(codes_NK)
        end = shares.utterances * end.detach()
        if voice_loss is not None:
            total, voice_loss = total + VOICE_WEIGHT * voice_loss, voice_loss.detach()
        return HeadLoss(total, codebooks_K.detach(), advance.detach(), end, gate, voice_loss)

    def _name_loss(self, voices_BE: Tensor, voice_B: Tensor) -> Tensor:
        """Loss of the speakers' names, per utterance; 0 for those without one."""
        logits_BV = self.name_voice(voices_BE).float()
        summed = F.cross_entropy(logits_BV, voice_B, ignore_index=NO_VOICE, reduction="sum")
        return summed / len(voice_B)

    def read_tokens(self, states_BSLD: Tensor, embeddings_BSD: Tensor) -> Tensor:
        """The head's input for each token: mixed states and embedding, gated.

        Gemma's layers differ far more in scale than in meaning, so each is normalised to unit RMS
        before they are mixed; so is the embedding. So do the dimensions of a layer, which are
        standardised. The gate is that of LLaMA-Omni2
        (arXiv:2505.02625), where it halved the word errors compared with the states alone.

        Returns:
            `[B, S, W]`; each token is independent of its neighbours.
        """
        return self._read(states_BSLD, embeddings_BSD)[0]

    def _read(self, states_BSLD: Tensor, embeddings_BSD: Tensor) -> tuple[Tensor, Tensor | None]:
        """The head's input, and the gate `[B, S, W]` if there is one: at 1 only states are read."""
        width = (self.config.state_width,)
        if self.config.reads == "embedding":
            return self.read_embeddings(F.rms_norm(embeddings_BSD.float(), width)), None
        unit_BSLD = F.rms_norm(states_BSLD.float(), width)
        if self.config.standardizes:
            unit_BSLD = F.rms_norm((unit_BSLD - self.state_mean_LD) / self.state_std_LD, width)
        scaled_BSLD = unit_BSLD * self.layer_scales_LD
        mixed_BSD = torch.einsum("bsld,l->bsd", scaled_BSLD, self.layer_logits_L.softmax(dim=0))
        from_states_BSW = self.read_states(mixed_BSD)
        if self.config.reads == "states":
            return from_states_BSW, None
        from_text_BSW = self.read_embeddings(F.rms_norm(embeddings_BSD.float(), width))
        if self.config.reads == "sum":
            return from_states_BSW + from_text_BSW, None
        gate_BSW = self.gate(torch.cat([from_states_BSW, from_text_BSW], dim=-1)).sigmoid()
        return gate_BSW * from_states_BSW + (1 - gate_BSW) * from_text_BSW, gate_BSW

    def layer_shares(self) -> dict[str, float]:
        """Weight of each layer in the mix of states, for the training log."""
        if self.config.reads == "embedding":
            return {}
        return describe_mix(self.layer_logits_L, self.config.layers)

    def text_under_cursor(self, tokens_BSW: Tensor, cursor_BF: Tensor) -> Tensor:
        """The token at each frame's cursor and those that follow it, `[B, F, W]`; zeros stand for
        tokens after the last."""
        padded_BSW = F.pad(tokens_BSW, (0, 0, 0, LOOK_AHEAD))
        rows_B1 = torch.arange(len(tokens_BSW), device=cursor_BF.device)[:, None]
        ahead = [padded_BSW[rows_B1, cursor_BF + 1 + j] for j in range(LOOK_AHEAD)]
        return padded_BSW[rows_B1, cursor_BF] + self.read_ahead(torch.cat(ahead, dim=-1))

    def embed_frames(self, codes_BFK: Tensor) -> Tensor:
        """Frames as the transformer's input: sums of their code embeddings, `[B, F, W]`."""
        num_codebooks = self.config.num_codebooks
        offsets_K = torch.arange(num_codebooks, device=codes_BFK.device) * self.config.codebook_size
        flat_NW = F.embedding_bag(
            (codes_BFK + offsets_K).reshape(-1, num_codebooks),
            self.temporal.embed_tokens.weight,
            mode="sum",
        )
        return flat_NW.view(*codes_BFK.shape[:2], -1)

    def start_of_speech(self, num_utterances: int) -> Tensor:
        """The input before the first frame, `[B, W]`."""
        return self.temporal.embed_tokens.weight[-1].expand(num_utterances, -1)

    def temporal_states(
        self, inputs_BFW: Tensor, cache: DynamicCache | None = None, **masks: Tensor
    ) -> Tensor:
        """States that each predict one frame, `[B, F, W]`; with a cache, the inputs are only the
        new frames, and `masks` say which rows have how many before (`JoinedCaches.masks`)."""
        output = self.temporal(
            inputs_embeds=self.dropout(inputs_BFW),
            past_key_values=cache,
            use_cache=cache is not None,
            **masks,
        )
        return self.dropout(output.last_hidden_state)


def load_head(name: str, *, device: torch.device) -> SpeechHead:
    """Load a head for inference, in float32.

    Args:
        name: folder written by `python -m speech_head.train`, a `save_pretrained` folder, or a hub
            name.
        device: where it runs.

    Raises:
        InputError: the folder is unfinished or of another kind, the weights do not fit, or they
            were made for another language.
    """
    folder = find_pretrained(name, made_by="speech_head.train", flag="--head")
    head = load_frozen(folder, SpeechHead, SpeechHeadConfig, device=device)
    refuse_other_language(head.config.normalization, what=f"--head {name}")
    return head
