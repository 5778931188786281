"""Training losses of the demo's Mimi: on the sound, and on the content of its latents.

The sound is compared as log-mel spectra at five resolutions and as harmonics. Two linear probes
predict log-mel bands and phonemes from the latents; they are discarded after training, but make the
encoder learn from the first step on, and make the first codebook semantic.
"""

import librosa
import torch
from torch import Tensor, nn
from torch.nn import functional

# B utterances, N samples (24,000 per second), F Mimi frames (12.5 per second), T labels (50 per
# second), D latent width, H frequencies, W analysis windows, P phonemes

SAMPLE_RATE_HZ = 24_000
LABELS_PER_FRAME = 4
NUM_SAMPLES_PER_LABEL = 480
# (window, mel bands): from 85 ms, which resolves pitch, to 5 ms, which locates bursts in time
RESOLUTIONS = ((2048, 128), (1024, 96), (512, 64), (256, 32), (128, 16))
LOG_FLOOR = 1e-3  # relative to full scale; with a lower one, silence dominates the loss
HARMONICS_WINDOW, HARMONICS_MAX_HZ, HARMONICS_FLOOR = 2048, 4000, 5e-4


class SpectralLoss(nn.Module):
    """Distance between two pieces of speech, insensitive to phase."""

    def __init__(self) -> None:
        super().__init__()
        for window, num_bands in RESOLUTIONS:
            self.register_buffer(f"window_{window}", torch.hann_window(window), persistent=False)
            filters_MH = mel_filters(window, num_bands)
            self.register_buffer(f"filters_{window}", filters_MH, persistent=False)

    def forward(self, decoded_BN: Tensor, x_BN: Tensor) -> tuple[Tensor, Tensor]:
        """Compare decoded speech with the original.

        Returns:
            The loss, and the part of it that is the mean distance of log-mel spectra (natural
            logarithm).
        """
        distances, convergences = [], []
        for window, _ in RESOLUTIONS:
            decoded_BHW = self._spectrum(decoded_BN, window)
            x_BHW = self._spectrum(x_BN, window)
            filters_MH = self.get_buffer(f"filters_{window}")
            difference_BMW = log(filters_MH @ decoded_BHW) - log(filters_MH @ x_BHW)
            distances.append(difference_BMW.abs().mean())
            error = torch.linalg.vector_norm(decoded_BHW - x_BHW)
            convergences.append(error / (torch.linalg.vector_norm(x_BHW) + 1e-3))
            if window == HARMONICS_WINDOW:
                top = HARMONICS_MAX_HZ * window // SAMPLE_RATE_HZ
                decoded_BHW, x_BHW = decoded_BHW[:, :top], x_BHW[:, :top]
                harmonics_BHW = log(decoded_BHW, HARMONICS_FLOOR) - log(x_BHW, HARMONICS_FLOOR)
        mel = torch.stack(distances).mean()
        convergence = torch.stack(convergences).mean()
        return mel + 0.3 * convergence + 0.5 * harmonics_BHW.abs().mean(), mel

    def _spectrum(self, x_BN: Tensor, window: int) -> Tensor:
        """Magnitudes, 1 for a sine of full scale; the gradient is finite at zero too."""
        window_N = self.get_buffer(f"window_{window}")
        spectrum_BHW = torch.stft(
            x_BN, window, window // 4, window=window_N, pad_mode="constant", return_complex=True
        )
        power_BHW = spectrum_BHW.real.square() + spectrum_BHW.imag.square()
        return (power_BHW + 1e-12).sqrt() / (window_N.sum() / 2)


class LatentProbes(nn.Module):
    """Linear probes: 48 log-mel bands from all codebooks, phonemes from the first one."""

    num_bands = 48
    window = 768  # 32 ms around each label's 20 ms
    window_N: Tensor
    filters_MH: Tensor

    def __init__(self, latent_dim: int, semantic_dim: int, num_phonemes: int) -> None:
        """
        Args:
            num_phonemes: number of classes, including the pause.
        """
        super().__init__()
        self.bands = nn.Linear(latent_dim, LABELS_PER_FRAME * self.num_bands)
        self.phonemes = nn.Linear(semantic_dim, LABELS_PER_FRAME * num_phonemes)
        filters_MH = mel_filters(self.window, self.num_bands)
        self.register_buffer("window_N", torch.hann_window(self.window), persistent=False)
        self.register_buffer("filters_MH", filters_MH, persistent=False)

    def band_loss(self, latents_BDF: Tensor, x_BN: Tensor) -> Tensor:
        """Mean distance of log-mel bands, natural logarithm."""
        margin = (self.window - NUM_SAMPLES_PER_LABEL) // 2
        with torch.no_grad():
            padded_BN = functional.pad(x_BN, (margin, margin))
            spectrum_BHT = torch.stft(
                padded_BN, self.window, NUM_SAMPLES_PER_LABEL, window=self.window_N, center=False,
                return_complex=True,
            )  # fmt: skip
            bands_BMT = log(self.filters_MH @ spectrum_BHT.abs() / (self.window / 4))
        read_BFX = self.bands(latents_BDF.transpose(1, 2))
        read_BTM = read_BFX.reshape(len(x_BN), -1, self.num_bands)
        return (read_BTM - bands_BMT.transpose(1, 2)).abs().mean()

    def phoneme_loss(self, semantic_BDF: Tensor, labels_BT: Tensor) -> Tensor:
        """Cross-entropy of the phonemes, nats per label."""
        read_BFX = self.phonemes(semantic_BDF.transpose(1, 2))
        num_phonemes = self.phonemes.out_features // LABELS_PER_FRAME
        return functional.cross_entropy(read_BFX.reshape(-1, num_phonemes), labels_BT.flatten())


def mel_filters(window: int, num_bands: int) -> Tensor:
    """Triangular mel filters of peak 1 for a window's spectrum, float32 [bands, frequencies]."""
    filters_MH = librosa.filters.mel(
        sr=SAMPLE_RATE_HZ, n_fft=window, n_mels=num_bands, fmax=SAMPLE_RATE_HZ / 2, norm=None
    )
    return torch.from_numpy(filters_MH).float()


def log(magnitudes: Tensor, floor: float = LOG_FLOOR) -> Tensor:
    """Natural logarithm, levelling off at `floor` of full scale."""
    return (magnitudes + floor).log()
