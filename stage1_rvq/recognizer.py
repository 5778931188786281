"""The CTC recogniser: 1024-d speech embeddings -> Twi text. It evaluates every later stage.

    recogniser = load_recognizer("runs/recognizer", device=torch.device("cpu"))
    texts = recogniser.transcribe([frames_TD, ...])
    spans = recogniser.align(frames_TD, "me din de ama")

It evaluates quantised and generated frames, filters generated speech, and aligns recordings for
stage 4. The shape is SUPERB's ASR probe (Yang et al., 2021): two bidirectional LSTM layers and CTC.
"""

# B utterances, T frames (25 per second), D embedding width, U units of a text, V units in all

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from commands.checkpoint import load_frozen
from commands.data_card import add_data_section
from commands.errors import InputError
from commands.finished_folder import open_input
from commands.origins import Origin, RecordedFingerprint
from commands.setting_types import LayerWidth, NumLayers, PositiveInt, Probability
from commands.sources import RECOGNIZER, Sources, as_sources, known
from data_manifests.language import FIRST_NORMALIZATION, language, refuse_other_language
from data_manifests.normalization import normalize_for_scoring
from gemma4.tower_identity import norm_fingerprint
from stage1_rvq.data import EmbeddingFolder, pad_frames
from stage1_rvq.padded_lstm import run_lstm

BLANK_ID = 0


@dataclass(frozen=True)
class RecognizerConfig:
    """Shape of the recogniser; saved beside its weights.

    Attributes:
        dim: embedding width D.
        num_units: V, blank included.
        width: width of each LSTM direction.
        num_layers: LSTM layers.
        dropout: dropout between layers, in training.
        tower: fingerprint of the audio tower whose embeddings it was trained on; "" if unknown.
        sources: what it was trained on, and with; None if that is not known.
        normalization: of the texts that it writes, as `Language.normalization`.
    """

    dim: LayerWidth = 1024
    num_units: PositiveInt = 512
    width: LayerWidth = 512
    num_layers: NumLayers = 2
    dropout: Probability = 0.1
    tower: RecordedFingerprint = ""
    sources: Sources | None = None
    normalization: str = FIRST_NORMALIZATION

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", as_sources(self.sources))  # JSON gives mappings


@dataclass(frozen=True)
class UnitSpan:
    """One unit of a text, and the frames in which it was said.

    Attributes:
        text: the unit's letters ("▁" marks a word's start).
        start_frame: first frame that belongs to it, 25 a second.
        end_frame: one past its last frame.
    """

    text: str
    start_frame: int
    end_frame: int


class CTCRecognizer(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="speechless-twi",
    tags=["speech", "automatic-speech-recognition"],
):
    """Bidirectional LSTM with CTC on cached, quantised or generated embeddings."""

    frame_scale_D: Tensor

    def __init__(self, config: RecognizerConfig) -> None:
        super().__init__()
        self.config = config
        self.units: Tokenizer | None = None  # set by `load_recognizer` and `train_recognizer`
        self.register_buffer("frame_scale_D", torch.ones(config.dim))
        self.input = nn.Linear(config.dim, config.width)
        self.lstm = nn.LSTM(
            config.width, config.width, config.num_layers, batch_first=True, bidirectional=True,
            dropout=config.dropout if config.num_layers > 1 else 0.0,
        )  # fmt: skip
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(2 * config.width, config.num_units)

    def origin(self) -> Origin:
        """The audio tower that it was trained on."""
        norm = "" if self.config.tower else norm_fingerprint(self.frame_scale_D)
        return Origin(self.config.tower, norm=norm)

    def made_from(self) -> Sources:
        """The data that it was trained on, and what else it was trained with."""
        return known(self.config.sources, RECOGNIZER)

    def generate_model_card(self, **facts: Any) -> ModelCard:
        """The card that `save_pretrained` and `push_to_hub` write: the hub's own, and the data."""
        card = super().generate_model_card(**facts)
        return add_data_section(card, self.made_from(), tag=language().tags[0])

    def refuse_other_width(self, dim: int, *, flag: str) -> None:
        """Raise InputError if the embeddings of what a flag named are of another width."""
        if dim != self.config.dim:
            raise InputError(
                f"--recognizer takes embeddings {self.config.dim} wide, those of {flag} are {dim}"
            )

    def forward(self, frames_BTD: Tensor, lengths_B: Tensor) -> Tensor:
        """Log-probabilities of units per frame.

        Args:
            frames_BTD: embeddings before `output_proj`, padded at the end.
            lengths_B: int64 on the CPU, real frames of each utterance.

        Returns:
            float32 `[B, T, V]`; padding holds arbitrary values. An utterance gives the same result
            alone or in a batch.

        Raises:
            InputError: D is not the recogniser's.
        """
        if frames_BTD.shape[-1] != self.config.dim:
            raise InputError(
                f"embeddings are {frames_BTD.shape[-1]} wide, this recogniser takes "
                f"{self.config.dim}"
            )
        x_BTW = F.gelu(self.input(frames_BTD / self.frame_scale_D))
        hidden_BTW = run_lstm(self.lstm, x_BTW, lengths_B)
        return self.output(self.dropout(hidden_BTW)).float().log_softmax(dim=-1)

    @torch.no_grad()
    def transcribe(self, frames: Sequence[Tensor], *, batch_size: int = 32) -> list[str]:
        """Greedy transcripts of embeddings `[T_i, D]`, normalised for scoring."""
        assert self.units is not None
        texts = []
        for start in range(0, len(frames), batch_size):
            log_probs_BTV, lengths_B = self._log_probs(list(frames[start : start + batch_size]))
            for log_probs_TV, length in zip(log_probs_BTV, lengths_B, strict=True):
                best_T = log_probs_TV[:length].argmax(dim=-1).unique_consecutive()
                ids = [unit for unit in best_T.tolist() if unit != BLANK_ID]
                texts.append(normalize_for_scoring(self.units.decode(ids)))
        return texts

    @torch.no_grad()
    def align(self, frames_TD: Tensor, text: str) -> list[UnitSpan]:
        """When each unit of a known text was said: the most probable CTC path (Viterbi).

        Blanks between units count towards the unit before them, and the first unit starts at frame
        0, so that the spans cover the utterance without gaps.

        Raises:
            InputError: nothing speakable in the text, or too many units for the number of frames.
        """
        assert self.units is not None
        encoding = self.units.encode(normalize_for_scoring(text))
        if not encoding.ids:
            raise InputError(f"nothing to align in {text!r}")
        log_probs_BTV, _ = self._log_probs([frames_TD])
        starts = viterbi_starts(log_probs_BTV[0].cpu(), encoding.ids)
        starts[0] = 0
        ends = [*starts[1:], len(frames_TD)]
        return [UnitSpan(*span) for span in zip(encoding.tokens, starts, ends, strict=True)]

    def _log_probs(self, frames: list[Tensor]) -> tuple[Tensor, Tensor]:
        frames_BTD, mask_BT = pad_frames(frames)
        lengths_B = mask_BT.sum(dim=1)
        return self(frames_BTD.to(self.frame_scale_D), lengths_B), lengths_B


def ctc_loss(
    log_probs_BTV: Tensor, lengths_B: Tensor, texts: Sequence[str], units: Tokenizer
) -> Tensor:
    """Mean CTC loss of transcripts, in nats per unit.

    Args:
        log_probs_BTV: from `CTCRecognizer`.
        lengths_B: real frames of each utterance.
        texts: what is said in each; normalised here.
        units: the recogniser's units.
    """
    targets = [torch.tensor(_unit_ids(text, units)) for text in texts]
    return F.ctc_loss(
        log_probs_BTV.transpose(0, 1),
        torch.cat(targets).to(log_probs_BTV.device),
        lengths_B,
        torch.tensor([len(target) for target in targets]),
        blank=BLANK_ID,
    )


def fits_ctc(text: str, num_frames: int, units: Tokenizer) -> bool:
    """Whether an utterance has a transcript, and enough frames for CTC to write it."""
    ids = _unit_ids(text, units)
    return 0 < len(ids) + sum(a == b for a, b in pairwise(ids)) <= num_frames


def find_usable(embeddings: EmbeddingFolder, units: Tokenizer) -> Tensor:
    """Positions of the utterances that `fits_ctc`: int64."""
    rows = zip(embeddings.table.texts("text"), embeddings.num_frames_N.tolist(), strict=True)
    return torch.tensor(
        [i for i, (text, num_frames) in enumerate(rows) if fits_ctc(text, num_frames, units)],
        dtype=torch.long,
    )


def viterbi_starts(log_probs_TV: Tensor, units: Sequence[int]) -> list[int]:
    """First frame of each unit on the most probable CTC path.

    Args:
        log_probs_TV: float `[T, V]`, blank at index 0.
        units: U unit ids.

    Returns:
        U frame positions, strictly increasing.

    Raises:
        InputError: T is smaller than the path needs (U, and one more for each pair of equal
            neighbours).
    """
    num_frames, num_units = len(log_probs_TV), len(units)
    needed = num_units + sum(a == b for a, b in pairwise(units))
    if num_frames < needed:
        raise InputError(f"{num_units} units need {needed} frames, the speech has {num_frames}")
    # States: blank, unit 1, blank, unit 2, ..., blank.
    states = torch.zeros(2 * num_units + 1, dtype=torch.long)
    states[1::2] = torch.tensor(units)
    may_skip = torch.zeros(len(states), dtype=torch.bool)
    may_skip[3::2] = states[3::2] != states[1:-2:2]
    emissions_TS = log_probs_TV[:, states]
    score_S = torch.full((len(states),), -torch.inf)
    score_S[:2] = emissions_TS[0, :2]
    back_TS = torch.zeros(num_frames, len(states), dtype=torch.long)
    for t in range(1, num_frames):
        stay = score_S
        step = F.pad(score_S[:-1], (1, 0), value=-torch.inf)
        skip = F.pad(score_S[:-2], (2, 0), value=-torch.inf).masked_fill(~may_skip, -torch.inf)
        best, back_TS[t] = torch.stack([stay, step, skip]).max(dim=0)
        score_S = best + emissions_TS[t]
    state = len(states) - 1 if score_S[-1] >= score_S[-2] else len(states) - 2
    starts = [0] * num_units
    for t in range(num_frames - 1, -1, -1):
        if state % 2 == 1:
            starts[state // 2] = t
        state -= int(back_TS[t, state])
    return starts


def _unit_ids(text: str, units: Tokenizer) -> list[int]:
    ids: list[int] = units.encode(normalize_for_scoring(text)).ids
    return ids


def load_recognizer(folder: Path, *, device: torch.device) -> CTCRecognizer:
    """Load a recogniser, written by `python -m stage1_rvq.train_recognizer`, for use.

    Raises:
        InputError: missing, unfinished, another command's folder, or made for another language.
    """
    open_input(folder, made_by="stage1_rvq.train_recognizer", flag="--recognizer")
    recognizer = load_frozen(folder / "model", CTCRecognizer, RecognizerConfig, device=device)
    refuse_other_language(recognizer.config.normalization, what=f"--recognizer {folder}")
    recognizer.units = _load_units(folder / "units.json")
    if recognizer.units.get_vocab_size() != recognizer.config.num_units:
        raise InputError(
            f"--recognizer {folder}: units.json has {recognizer.units.get_vocab_size()} units, the "
            "model "
            f"{recognizer.config.num_units}"
        )
    return recognizer


def _load_units(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises a bare Exception for anything it cannot read
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: not a tokenizer's file: {reason}") from None
