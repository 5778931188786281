"""The quantiser's model card: a README.md made only from what was recorded and measured.

`SpeechRVQ.save_pretrained` and `push_to_hub` write it. What was not measured reads "not yet
measured", what was not recorded "not recorded". It contains no local paths.
"""

# K codebooks (coarsest first)

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from commands.data_card import data_section, license_facts, licenses_without_commerce
from commands.json_files import read_json
from commands.schema import as_mapping, check_json
from commands.sources import Sources, merge
from data_manifests.language import language
from stage1_rvq.codebook_metrics import QuantizerMetrics, ReadRates
from stage1_rvq.config import RVQConfig
from stage1_rvq.published import (
    AVERAGED_FILE,
    BEST_FILE,
    CONFIG_FILE,
    FINAL_FILE,
    WRAPPER_FILE,
)
from stage1_rvq.token_strings import TOKENS_FILE, TRAIN_TOKENS_FILE
from stage1_rvq.training_data import TrainingData

DEFAULT_GEMMA = "google/gemma-4-E4B-it"
NOT_MEASURED = "not yet measured"


def make_model_card(
    config: RVQConfig,
    sources: Sources,
    *,
    run: Path | None = None,
    token_sources: Sources = (),
    metrics: QuantizerMetrics | None = None,
    repository: str = "path/to/this/folder",
    published_files: Sequence[str] = (),
    is_averaged: bool = False,
) -> ModelCard:
    """Write the card of one quantiser.

    Args:
        config: its shape.
        sources: what it was trained on, and with.
        token_sources: what the codes in the files of tokens were made from.
        run: the folder of `stage1_rvq.train` that it comes from; records its training data.
        metrics: from `stage1_rvq.evaluate`.
        repository: the name under which the usage example loads it.
        published_files: files beside it in the published layout.
        is_averaged: whether `rvq_averaged.pt` is an average of checkpoints.

    Returns:
        The card, with front matter and text.
    """
    provenance = read_json(run / "provenance.json") if run else {}
    settings = read_json(run / "config.json") if run else {}
    data = None
    if run and "training_data" in provenance:
        where = f"{run / 'provenance.json'}: training_data"
        data = check_json(json.dumps(provenance["training_data"]), TrainingData, where=where)
    described = PUBLISHED | ({AVERAGED_FILE: AVERAGED} if is_averaged else {})
    sources = merge(sources, token_sources)
    bits = config.num_codebooks * math.log2(config.codebook_size) * config.frame_rate_hz
    text = CARD.format(
        front_matter=ModelCardData(**{**_front_matter(), **license_facts(sources)}).to_yaml(),
        language=language().name,
        data=data_section(sources),
        weights=_license_of_weights(sources),
        dim=config.dim,
        frame_rate_hz=f"{config.frame_rate_hz:g}",
        num_codebooks=config.num_codebooks,
        codebook_size=config.codebook_size,
        bit_rate=f"{bits:,.0f}",
        gemma=(data and data.gemma) or DEFAULT_GEMMA,
        repository=repository,
        training=_training_table(data, settings, provenance, config.frame_rate_hz),
        results=_results(metrics, config) if metrics else NO_RESULTS,
        alone=ALONE.format(repository=repository) if WRAPPER_FILE in published_files else "",
        files=FILES + "".join(f"| `{name}` | {described[name]} |\n" for name in published_files),
    )
    return ModelCard(text)


def _front_matter() -> dict[str, Any]:
    tags = ["gemma4", "speech-tokenizer", "residual-vector-quantization"]
    return {
        "license": "apache-2.0",
        "language": list(language().codes),
        "library_name": "speechless-twi",
        "tags": ["speech", *language().tags, *tags],
    }


def _training_table(
    data: TrainingData | None,
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
    frame_rate_hz: float,
) -> str:
    rows = dict.fromkeys(
        ("speech", "speakers", "corpora", "audio tower", "loss", "settings", "commit"),
        "not recorded",
    )
    if data:
        hours = data.num_frames / frame_rate_hz / 3600
        rows["speech"] = (
            f"{hours:.2f} hours: {data.num_utterances:,} utterances, {data.num_frames:,} frames"
        )
        rows["speakers"] = f"{data.num_speakers:,}"
        if data.corpus_hours:
            rows["corpora"] = ", ".join(
                f"{name} ({hours:.2f} h)" for name, hours in data.corpus_hours.items()
            )
        rows["audio tower"] = data.gemma or "a local checkpoint"
    if settings:
        rows["loss"] = "0.5 MSE + 0.5 (1 - cosine) + commitment, of projected frames"
        if settings.get("recognizer"):
            rows["loss"] += f" + {settings.get('task_weight')} x CTC loss of a frozen recogniser"
        rows["settings"] = ", ".join(
            f"{name} {value:g}"
            for name, value in settings.items()
            # Paths and names are left out, and so are the task loss's settings if it was not used.
            if type(value) in (int, float) and (settings.get("recognizer") or "task_" not in name)
        )
    if git := provenance.get("git"):
        git = as_mapping(git, where="provenance.json: git")
        changed = ", with uncommitted changes" if git.get("uncommitted_changes") else ""
        rows["commit"] = f"{git.get('commit', 'not recorded')}{changed}"
    return "".join(f"| {name} | {value} |\n" for name, value in rows.items())


def _license_of_weights(sources: Sources) -> str:
    if licenses_without_commerce(sources):
        return "Weights: for non-commercial use only, because of the data they were made from."
    return "Weights: Apache-2.0."


def _results(metrics: QuantizerMetrics, config: RVQConfig) -> str:
    hours = metrics.num_frames / config.frame_rate_hz / 3600
    lines = [
        "Measured with `python -m stage1_rvq.evaluate` on held-out speech: "
        f"{metrics.num_utterances:,} utterances, {metrics.num_frames:,} frames, {hours:.2f} hours."
    ]
    if not metrics.enough_frames_for_usage:
        lines[0] += " That is under 20 frames per code: codebook use is a lower bound."
    lines += [
        "",
        "| codebook | used codes | perplexity | entropy / log(size) |",
        "|---|---|---|---|",
    ]
    usage = zip(metrics.used_fraction, metrics.perplexity, metrics.normalized_entropy, strict=True)
    for k, (used, perplexity, entropy) in enumerate(usage, start=1):
        lines.append(f"| {k} | {100 * used:.1f} % | {perplexity:.1f} | {entropy:.3f} |")
    lines += [
        "",
        "| codebooks kept | WER | CER |",
        "|---|---|---|",
        f"| embeddings, not quantised | {_rates(metrics.continuous)} |",
    ]
    for codebooks in metrics.reconstruction:
        rates = metrics.quantized[codebooks] if metrics.quantized else None
        lines.append(f"| {codebooks} | {_rates(rates)} |")
    lines += [
        "",
        "| codebooks kept | space | relative error | cosine | cosine, mean removed | MSE |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {codebooks} | {space} | {part.relative_error:.4f} | {part.cosine:.4f} "
        f"| {part.cosine_centered:.4f} | {part.mse:.4f} |"
        for codebooks, spaces in metrics.reconstruction.items()
        for space, part in spaces.items()
    ]
    return "\n".join([*lines, "", DEFINITIONS.format(language=language().name)])


def _rates(rates: ReadRates | None) -> str:
    """WER and CER cells of a row; measured only if `evaluate` was given a recogniser."""
    if rates is None:
        return f"{NOT_MEASURED} | {NOT_MEASURED}"
    return f"{100 * rates.wer:.1f} % | {100 * rates.cer:.1f} %"


DEFINITIONS = """\
Relative error is |x - x'|^2 / |x - mean|^2. Spaces: `projected` is the output of the tower's
`output_proj` (without its bias), which Gemma's decoder gets and in which codes are chosen; `raw` is
its input; `normalized` is that divided by the weight of the tower's last norm. WER and CER are a
CTC recogniser's, pooled, on {language} text normalised for scoring.
"""

NO_RESULTS = f"""\
| on held-out speech | |
|---|---|
| used codes, perplexity and entropy of each codebook | {NOT_MEASURED} |
| relative error, cosine, MSE | {NOT_MEASURED} |
| WER and CER of a CTC recogniser, before and after quantisation | {NOT_MEASURED} |
"""

FILES = "| `config.json`, `model.safetensors` | the quantiser |\n"
PUBLISHED = {
    CONFIG_FILE: "its shape, in the layout of `ik/speechless-twi-stage1-rvq-gemma4`",
    BEST_FILE: "the same weights in that layout: `torch.load(..., weights_only=True)['rvq']`, "
    "the norm's scale folded into the linear maps",
    FINAL_FILE: "weights after the last step, in that layout",
    AVERAGED_FILE: "the weights of `rvq_best.pt` again, under the name that layout recommends",
    WRAPPER_FILE: "class that these load into: `RVQWrapper`; needs no code but this file",
    TOKENS_FILE: "codes of held-out speech as strings of tokens, with id and text",
    TRAIN_TOKENS_FILE: "the same of training speech",
}
AVERAGED = "weights averaged over checkpoints, in that layout: better on dev"

ALONE = """
Without it, with torch and vector-quantize-pytorch, after reading `rvq_wrapper.py`:

```python
import sys

import torch

sys.path.append("{repository}")  # a local copy of this repository
from rvq_wrapper import load_rvq

rvq = load_rvq("{repository}")
frames_BTD = torch.load("frames.pt")  # the audio tower's frames, before `output_proj`
decoded_BTD, codes_BKT, _ = rvq(frames_BTD)
print(codes_BKT.shape)
```
"""

CARD = """\
---
{front_matter}
---

# Semantic codes of {language} speech: a residual vector quantiser for Gemma 4's audio embeddings

Turns the {dim}-d embeddings of Gemma 4's frozen audio tower, taken before its `output_proj`
({frame_rate_hz} a second), into {num_codebooks} codes of {codebook_size} a frame
({bit_rate} bit/s), and back. Decoded embeddings enter Gemma where real ones do; the first codebooks
alone decode too. This is stage 1 of a pipeline after *Speechless* (arXiv:2505.17417), which means
to teach Gemma 4 spoken {language} from text.

## Use

With the project's code installed; nothing is executed that was downloaded with the weights.

```python
from pathlib import Path

import torch

from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ, read_audio
from gemma4.gemma import load_audio_encoder
from stage1_rvq.model import load_rvq

device = torch.device("cpu")
encoder = load_audio_encoder("{gemma}", device=device, dtype=torch.float32)
rvq = load_rvq("{repository}", device=device)

speech = read_audio(Path("question.wav"), GEMMA_SAMPLE_RATE_HZ)  # any format and length
frames_TD = encoder.encode([speech])[0]  # embeddings, {frame_rate_hz} a second
codes_TK = rvq.encode(frames_TD)  # integers, coarsest codebook first
decoded_TD = rvq.decode(codes_TK)  # embeddings again, for Gemma's own output_proj
print(codes_TK.shape)
```
{alone}
## Training

| | |
|---|---|
{training}
## Results

{results}
How speakers of {language} judge what is built on these codes: not yet measured.

{data}
## Files

| file | |
|---|---|
{files}
## Licence and citation

{weights} Gemma 4 and the corpora have licences of their own.

Dao et al., *Speechless: Speech Instruction Training Without Speech for Low Resource Languages*,
INTERSPEECH 2025, arXiv:2505.17417.
"""
