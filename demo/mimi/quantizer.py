"""Train Mimi's codebooks: first k-means, then moving averages (van den Oord et al. 2017).

transformers 5.23 has no such training, but its `MimiEuclideanCodebook` has the state for it: a
codebook is `embed_sum / cluster_usage`. Here those two buffers are updated, so that the trained
model is a plain `MimiModel`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.models.mimi import modeling_mimi as layers

# B utterances, F Mimi frames (12.5 per second), D latent width, C codebook width, V vectors,
# S codebook size

RECENT_VECTORS = 2048  # per codebook; unused codes are reset to one of them
MAX_REPLACED = 4  # codes per codebook and step
KMEANS_ROUNDS = 10


@dataclass(frozen=True)
class Quantized:
    """Quantised latents, with straight-through gradients.

    `latents_BDF` go to the decoder; `semantic_BCF` is the first codebook's part of them, before its
    output projection; `commitment` is the distance of the encoder's output from its codes (1: the
    variance of the latents when the codebooks were made).
    """

    latents_BDF: Tensor
    semantic_BCF: Tensor
    commitment: Tensor


class CodebookTrainer(nn.Module):
    """Quantise with gradients, and let the codebooks of a `MimiModel` follow the latents.

    A checkpoint must hold its buffers as well as the model.
    """

    recent_KVC: Tensor
    variance: Tensor

    def __init__(
        self, quantizer: layers.MimiSplitResidualVectorQuantizer, *, decay: float, dead_share: float
    ) -> None:
        """
        Args:
            quantizer: the model's quantiser; not kept as a submodule.
            decay: decay of the moving averages, per step.
            dead_share: a code used less than this share of the mean usage is reset.
        """
        super().__init__()
        # torch does not look into a tuple, so a checkpoint holds each of them only once.
        self._groups = (
            quantizer.semantic_residual_vector_quantizer,
            quantizer.acoustic_residual_vector_quantizer,
        )
        self._decay, self._dead_share = decay, dead_share
        num_codebooks = sum(len(group.layers) for group in self._groups)
        width = self._groups[0].input_proj.out_channels
        self.num_replaced = 0  # codes, since the last reading
        self.register_buffer("recent_KVC", torch.zeros(num_codebooks, RECENT_VECTORS, width))
        # Fixed at the start: if commitment were divided by the current variance, the latents would
        # grow without limit (var 40 -> 2,289 in 1,200 steps); undivided, its weight would depend on
        # the model.
        self.register_buffer("variance", torch.ones(len(self._groups)))

    def bypass(self, latents_BDF: Tensor) -> Quantized:
        """The path before codebooks exist: latents are projected in and out, but not quantised."""
        projected = [group.input_proj(latents_BDF) for group in self._groups]
        semantic_BDF, acoustic_BDF = (
            group.output_proj(x_BCF) for group, x_BCF in zip(self._groups, projected, strict=True)
        )
        return Quantized(semantic_BDF + acoustic_BDF, projected[0], latents_BDF.new_zeros(()))

    @torch.no_grad()
    def begin(self, latents_VD: Tensor, vectors_per_step: int) -> list[float]:
        """Initialise all codebooks by k-means, each on the residual of the ones before it.

        Args:
            latents_VD: the encoder's output, float32; V at least the codebook size.
            vectors_per_step: number of vectors in each later step: the unit of code usage.

        Returns:
            For each codebook, the share of the variance that is left after it.
        """
        shares_left = []
        k = 0
        for index, group in enumerate(self._groups):
            residual_VC = group.input_proj(latents_VD[:, :, None])[:, :, 0]
            self.variance[index] = residual_VC.var(dim=0).mean()
            for layer in group.layers:
                codebook = layer.codebook
                centroids_SC, counts_S = _kmeans(residual_VC, codebook.codebook_size)
                usage_S = counts_S.clamp(min=1) * vectors_per_step / len(residual_VC)
                codebook.cluster_usage.copy_(usage_S)
                codebook.embed_sum.copy_(centroids_SC * usage_S[:, None])
                codebook._embed = None
                picks_V = torch.randint(len(residual_VC), (RECENT_VECTORS,))
                self.recent_KVC[k] = residual_VC[picks_V]
                residual_VC = residual_VC - codebook.embed[_nearest(residual_VC, codebook.embed)]
                left = residual_VC.var(dim=0).mean() / self.variance[index]
                shares_left.append(left.item())
                k += 1
        return shares_left

    def quantize(self, latents_BDF: Tensor, *, learn: bool, dropout: float) -> Quantized:
        """Quantise, residual by residual, and let the codebooks follow.

        Args:
            latents_BDF: the encoder's output, float32.
            learn: whether the codebooks are updated.
            dropout: share of utterances that get only the first few acoustic codebooks.

        Returns:
            The quantised latents; gradients pass as if nothing had been quantised.
        """
        num_utterances, _, num_frames = latents_BDF.shape
        outputs, codes, commitments = [], [], []
        k = 0
        for index, group in enumerate(self._groups):
            x_BCF = group.input_proj(latents_BDF)
            x_VC = x_BCF.transpose(1, 2).flatten(0, 1)
            residual_VC, sum_VC = x_VC.detach(), torch.zeros_like(x_VC)
            kept_B = torch.full((num_utterances,), len(group.layers))
            if index > 0 and dropout > 0:
                fewer_B = torch.randint(1, len(group.layers), (num_utterances,))
                kept_B = torch.where(torch.rand(num_utterances) < dropout, fewer_B, kept_B)
            kept_V = kept_B.repeat_interleave(num_frames)
            distances = []
            for depth, layer in enumerate(group.layers):
                codebook = layer.codebook
                codes_V = codebook.quantize(residual_VC)
                chosen_VC = codebook.embed[codes_V]
                if learn:
                    self._follow(codebook, residual_VC, codes_V, k)
                sum_VC = sum_VC + chosen_VC * (kept_V > depth)[:, None]
                residual_VC = residual_VC - chosen_VC
                distances.append((x_VC - sum_VC).square().mean() / self.variance[index])
                k += 1
            commitments.append(torch.stack(distances).mean())
            straight_VC = x_VC + (sum_VC - x_VC).detach()
            codes.append(straight_VC.unflatten(0, (num_utterances, num_frames)).transpose(1, 2))
            outputs.append(group.output_proj(codes[-1]))
        return Quantized(outputs[0] + outputs[1], codes[0], commitments[0] + commitments[1])

    @torch.no_grad()
    def _follow(
        self, codebook: layers.MimiEuclideanCodebook, x_VC: Tensor, codes_V: Tensor, k: int
    ) -> None:
        """Update a codebook's averages; reset a few dead codes to recent vectors."""
        size = codebook.codebook_size
        recent_VC = torch.cat([x_VC, self.recent_KVC[k]])[:RECENT_VECTORS]
        self.recent_KVC[k] = recent_VC
        counts_S = torch.bincount(codes_V, minlength=size).float()
        sums_SC = torch.zeros_like(codebook.embed_sum).index_add_(0, codes_V, x_VC)
        codebook.cluster_usage.lerp_(counts_S, 1 - self._decay)
        codebook.embed_sum.lerp_(sums_SC, 1 - self._decay)
        mean = codebook.cluster_usage.mean()
        dead = (codebook.cluster_usage < self._dead_share * mean).nonzero()[:MAX_REPLACED, 0]
        picks = torch.randint(RECENT_VECTORS, (len(dead),))
        codebook.cluster_usage[dead] = mean / 2
        codebook.embed_sum[dead] = recent_VC[picks] * (mean / 2)
        self.num_replaced += len(dead)
        codebook._embed = None  # transformers caches the quotient


def make_canonical(quantizer: layers.MimiSplitResidualVectorQuantizer) -> None:
    """Store each codebook with usages of 1: the same codes, but float16 loses less precision."""
    for module in quantizer.modules():
        if isinstance(module, layers.MimiEuclideanCodebook):
            module.embed_sum.copy_(module.embed.clone())
            module.cluster_usage.fill_(1.0)
            module._embed = None


def _kmeans(x_VC: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Centroids [size, C] and how many vectors each has; an empty one moves to a random vector."""
    centroids_SC = x_VC[torch.randperm(len(x_VC))[:size]]
    for _ in range(KMEANS_ROUNDS):
        codes_V = _nearest(x_VC, centroids_SC)
        counts_S = torch.bincount(codes_V, minlength=size).float()
        sums_SC = torch.zeros_like(centroids_SC).index_add_(0, codes_V, x_VC)
        elsewhere_SC = x_VC[torch.randint(len(x_VC), (size,))]
        means_SC = sums_SC / counts_S.clamp(min=1)[:, None]
        centroids_SC = torch.where(counts_S[:, None] > 0, means_SC, elsewhere_SC)
    return centroids_SC, counts_S


def _nearest(x_VC: Tensor, centroids_SC: Tensor) -> Tensor:
    scores_VS = x_VC @ centroids_SC.T - centroids_SC.square().sum(dim=1) / 2
    return scores_VS.argmax(dim=1)
