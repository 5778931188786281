"""The residual vector quantiser: 1024-d speech embeddings <-> 8 codes (out of 2048) per frame.

    rvq = SpeechRVQ.from_pretrained("runs/rvq/model")
    codes_TK = rvq.encode(frames_TD)
    frames_TD = rvq.decode(codes_TK)

The quantiser itself is vector-quantize-pytorch's `ResidualVQ`, and only this file uses it. Around
it are the scale of Gemma's last norm, and an input and an output linear map (as in
ik/speechless-twi-stage1-rvq-gemma4). The maps begin as what `frame_metric` says, so that frames are
near each other for the quantiser if they are for Gemma's decoder.
"""

# B utterances, T frames (25 per second), D embedding width, K codebooks (coarsest first), N frames

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import Tensor, nn
from torch.nn import functional as F
from vector_quantize_pytorch import ResidualVQ

from commands.checkpoint import find_pretrained, load_frozen, state_to_save
from commands.errors import InputError
from commands.origins import Origin
from commands.sources import QUANTIZER, Sources, known
from commands.tensor_files import fingerprint_tensors
from gemma4.tower_identity import norm_fingerprint
from stage1_rvq.codebooks import fit_codebooks, search_codes
from stage1_rvq.config import RVQConfig
from stage1_rvq.frame_metric import FrameMetric
from stage1_rvq.joint_codebooks import BatchRows, share_batch
from stage1_rvq.model_card import make_model_card
from stage1_rvq.published import find_published, is_published, read_published, read_sizes

MIN_FRAMES_PER_CODE = 20  # with fewer, k-means fits noise
DROPOUT_SEEDS = 10_000  # as many as vector-quantize-pytorch 1.32 draws from


@dataclass(frozen=True)
class RVQLoss:
    """Training loss and its parts, each a scalar tensor; and the decoded embeddings `[N, D]`,
    through which gradients reach the linear maps (straight through the codebooks)."""

    total: Tensor
    mse: Tensor
    cosine_distance: Tensor
    commitment: Tensor
    decoded_ND: Tensor

    def as_numbers(self) -> dict[str, float]:
        """For the training log."""
        parts = {"loss": self.total, "mse": self.mse, "cosine_distance": self.cosine_distance}
        return {
            name: part.item() for name, part in {**parts, "commitment": self.commitment}.items()
        }


class SpeechRVQ(nn.Module, PyTorchModelHubMixin):
    """Residual vector quantiser of Gemma 4's speech embeddings. Computes in float32, whatever the
    input's dtype."""

    frame_scale_D: Tensor
    metric_DD: Tensor

    def __init__(self, config: RVQConfig) -> None:
        super().__init__()
        self.config = config
        # Gemma's last norm weight: dividing by it gives every frame unit RMS.
        self.register_buffer("frame_scale_D", torch.ones(config.dim))
        # Only training needs it.
        self.register_buffer("metric_DD", torch.eye(config.dim), persistent=False)
        self.project_in = nn.Linear(config.dim, config.dim)
        self.project_out = nn.Linear(config.dim, config.dim)
        for projection in (self.project_in, self.project_out):
            nn.init.eye_(projection.weight)
            nn.init.zeros_(projection.bias)
        self.quantizer = ResidualVQ(
            dim=config.dim,
            num_quantizers=config.num_codebooks,
            codebook_size=config.codebook_size,
            decay=config.decay,
            threshold_ema_dead_code=config.min_code_usage,
            # The library would start k-means from the first batch; see `init_codebooks`.
            kmeans_init=False,
            quantize_dropout=True,
        )

    @torch.no_grad()
    def set_metric(self, metric: FrameMetric) -> None:
        """Say in which space the training loss compares frames; before any training, a resumed one
        too."""
        self.frame_scale_D.copy_(metric.frame_scale_D)
        self.metric_DD.copy_(metric.map_DD)

    @torch.no_grad()
    def init_codebooks(
        self, frames_ND: Tensor, metric: FrameMetric, *, beam_size: int = 1, seed: int = 0
    ) -> None:
        """Set the linear maps to and from the metric's space, and fit every codebook there to a
        sample of the whole corpus, level by level.

        Args:
            frames_ND: embeddings sampled from the corpus, at least 20 per code.
            metric: the space in which frames are compared.
            beam_size: beam size of the search that the codebooks are fitted for.
            seed: seed for the frames that k-means starts from.

        Raises:
            InputError: too few frames for the codebook size.
        """
        wanted = MIN_FRAMES_PER_CODE * self.config.codebook_size
        if len(frames_ND) < wanted:
            raise InputError(
                f"k-means needs {wanted:,} frames for {self.config.codebook_size} codes ("
                f"{wanted / self.config.frame_rate_hz / 60:.0f} min of speech), there are "
                f"{len(frames_ND):,}; use more speech or a smaller --codebook-size"
            )
        self.set_metric(metric)
        into_DD = metric.map_DD * metric.frame_scale_D.double()
        self.project_in.weight.copy_(into_DD)
        self.project_out.weight.copy_(torch.linalg.inv(into_DD))
        projected_ND = self.project_in(frames_ND.float() / self.frame_scale_D)
        fitted = fit_codebooks(
            projected_ND,
            self.config.num_codebooks,
            self.config.codebook_size,
            torch.Generator().manual_seed(seed),
            beam_size=beam_size,
        )
        # The moving averages start as if each code had been seen this often in every batch.
        frames_per_code = len(frames_ND) / self.config.codebook_size
        for layer, codebook_CD in zip(self.quantizer.layers, fitted, strict=True):
            layer._codebook.embed.copy_(codebook_CD)
            layer._codebook.cluster_size.fill_(frames_per_code)
            layer._codebook.embed_avg.copy_(codebook_CD * frames_per_code)

    def forward(self, frames_ND: Tensor, rows: BatchRows | None = None) -> RVQLoss:
        """Quantise a batch of real frames (no padding) and return the model card's training loss.

        In training mode this also updates the codebooks, and drops the last codebooks at random, so
        that every prefix of the codebooks can be decoded. Draws are from torch's global generator.

        Args:
            frames_ND: the batch, or this process's part of it.
            rows: which part that is; None where it is all.

        Returns:
            0.5 MSE + 0.5 (1 - cosine) + commitment (source: the published card), over frames in the
            metric's space.
        """
        if rows:
            share_batch(self.quantizer, rows)
        with torch.autocast(frames_ND.device.type, enabled=False):
            scaled_ND = frames_ND.float() / self.frame_scale_D
            quantised_1ND, _, commitment_1K = self.quantizer(
                self.project_in(scaled_ND)[None],
                rand_quantize_dropout_fixed_seed=self._draw_dropout_seed(),
            )
            decoded_ND = self.project_out(quantised_1ND[0]) * self.frame_scale_D
            target_ND = F.linear(frames_ND.float(), self.metric_DD)
            output_ND = F.linear(decoded_ND, self.metric_DD)
            mse = F.mse_loss(output_ND, target_ND)
            cosine_distance = 1 - F.cosine_similarity(output_ND, target_ND, dim=-1).mean()
            commitment = commitment_1K.sum()
        total = 0.5 * mse + 0.5 * cosine_distance + commitment
        return RVQLoss(total, mse, cosine_distance, commitment, decoded_ND)

    def _draw_dropout_seed(self) -> int | None:
        """What the library draws to say how many codebooks are used. It would add up the draws of
        several processes; here they are equal."""
        if not (self.training and self.quantizer.quantize_dropout):
            return None
        return int(torch.randint(DROPOUT_SEEDS, (), device=self.frame_scale_D.device))

    @torch.no_grad()
    def encode(self, frames_TD: Tensor, *, beam_size: int = 1) -> Tensor:
        """Turn speech embeddings into semantic codes.

        Deterministic, and frame by frame: an utterance gives the same codes alone or in a batch.

        Args:
            frames_TD: `[..., T, D]`, before `output_proj`, one frame per 40 ms.
            beam_size: candidates kept per codebook; more lowers the error of trained codebooks.

        Returns:
            codes_TK: int64 `[..., T, K]` in [0, codebook_size).

        Raises:
            InputError: D is not the quantiser's, or an embedding holds NaN or infinity.
            AssertionError: the module is in training mode, where encoding would change the
                codebooks.
        """
        assert not self.training, "call .eval() before encoding"
        if frames_TD.shape[-1] != self.config.dim:
            raise InputError(
                f"embeddings are {frames_TD.shape[-1]} wide, this RVQ takes {self.config.dim}"
            )
        if not frames_TD.isfinite().all():
            raise InputError("embeddings hold NaN or infinity: no code stands for that")
        with torch.autocast(frames_TD.device.type, enabled=False):
            scaled = frames_TD.float() / self.frame_scale_D
            flat_ND = self.project_in(scaled).reshape(-1, self.config.dim)
            codebooks = [layer._codebook.embed[0] for layer in self.quantizer.layers]
            codes_NK = search_codes(flat_ND, codebooks, beam_size=beam_size)
        return codes_NK.reshape(*frames_TD.shape[:-1], self.config.num_codebooks)

    def decode(self, codes_TK: Tensor) -> Tensor:
        """Turn codes back into embeddings, which enter Gemma before `output_proj`.

        Args:
            codes_TK: integer `[..., T, k]` with k <= K: the first k codebooks are used.

        Returns:
            float32 `[..., T, D]`.

        Raises:
            InputError: more codebooks than this RVQ has, or a code out of range.
        """
        num_given = codes_TK.shape[-1]
        if num_given > self.config.num_codebooks:
            raise InputError(
                f"codes have {num_given} codebooks, this RVQ has {self.config.num_codebooks}"
            )
        if (
            codes_TK.numel()
            and not 0 <= codes_TK.min() <= codes_TK.max() < self.config.codebook_size
        ):
            raise InputError(
                f"codes run from {codes_TK.min()} to {codes_TK.max()}, this RVQ has codes 0 to "
                f"{self.config.codebook_size - 1}"
            )
        quantised_ND = self._look_up(codes_TK.reshape(-1, num_given).long())
        frames_ND = self.project_out(quantised_ND) * self.frame_scale_D
        return frames_ND.reshape(*codes_TK.shape[:-1], self.config.dim)

    def _look_up(self, codes_NK: Tensor) -> Tensor:
        """The sum of what codes stand for.

        As the library's `get_output_from_indices`, which (vector-quantize-pytorch 1.31 with einx)
        solves equations in sympy for every number of frames that it has not met.
        """
        layers = self.quantizer.layers
        found_KND = self.frame_scale_D.new_zeros(len(layers), len(codes_NK), self.config.dim)
        for k, codes_N in enumerate(codes_NK.unbind(1)):
            found_KND[k] = layers[k]._codebook.embed[0][codes_N]
        return found_KND.sum(0)

    def origin(self) -> Origin:
        """What codes of this quantiser belong to.

        Its fingerprint is that of its codebooks, so that it is the same in every layout: the
        published one has other maps, since the scale of the last norm is folded into them.
        """
        codebooks = [layer._codebook.embed.float() for layer in self.quantizer.layers]
        tower = self.config.tower
        norm = "" if tower else norm_fingerprint(self.frame_scale_D)
        return Origin(tower, fingerprint_tensors(codebooks), norm)

    def made_from(self) -> Sources:
        """The data that it was trained on, and what else it was trained with."""
        return known(self.config.sources, QUANTIZER)

    def generate_model_card(self, **facts: Any) -> ModelCard:
        """The card that `save_pretrained` and `push_to_hub` write, made from
        `model_card_kwargs`."""
        return make_model_card(self.config, self.made_from(), **facts)


def load_rvq(name: str, *, device: torch.device) -> SpeechRVQ:
    """Load a quantiser for encoding and decoding.

    Args:
        name: folder written by `python -m stage1_rvq.train`, a `save_pretrained` folder, a folder
            in the published layout or one `rvq_*.pt` in it, or a hub name.
        device: where it runs.

    Raises:
        InputError: unfinished or foreign folder, or weights that do not fit.
    """
    if Path(name).is_file():
        if Path(name).suffix != ".pt":
            raise InputError(f"--rvq {name} is a file, expected a folder or an rvq_*.pt")
        return _load_published(Path(name)).to(device)
    folder = find_pretrained(name, made_by="stage1_rvq.train", flag="--rvq")
    if is_published(folder):
        return _load_published(find_published(folder)).to(device)
    return load_frozen(folder, SpeechRVQ, RVQConfig, device=device)


def _load_published(path: Path) -> SpeechRVQ:
    rvq = SpeechRVQ(read_sizes(path.parent))
    rvq.load_state_dict(read_published(path, state_to_save(rvq)))
    return rvq.eval().requires_grad_(False)
