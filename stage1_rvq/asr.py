"""Any speech recogniser of transformers as a judge: CTC (wav2vec 2.0, MMS, w2v-BERT) or Whisper.

asr = AsrListener("Sunbird/asr-whisper-51-african-languages", "jw", device=torch.device("cpu"))
[text] = asr.transcribe([samples_N], 24_000)

It is independent of whatever it judges. A recogniser of many languages must be told which one to
write; it would guess otherwise, and Whisper does not know Akan: models that others trained for it
use the code of another language in its place.
"""

# N samples

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import (
    MODEL_FOR_CTC_MAPPING,
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForCTC,
    AutoModelForSpeechSeq2Seq,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Wav2Vec2ForCTC,
    WhisperForConditionalGeneration,
    pipeline,
)

from commands.errors import InputError
from commands.pretrained import one_line_errors, refuse_missing_tensors, refuse_other_size
from commands.schema import shorten
from commands.tensor_files import refuse_non_finite_weights
from data_manifests.audio import resample
from data_manifests.pauses import cut_evenly

MAX_CODES_SHOWN = 12
ONE_LANGUAGE = "writes one language only; leave it out"


class AsrListener:
    """A speech recogniser of transformers; a `listener.Transcriber`.

    It transcribes one recording at a time, because padding affects some recognisers, wav2vec 2.0
    among them. Whisper hears 30 s at once: longer recordings are cut at pauses.

    Attributes:
        is_ctc: whether it writes what it hears sound by sound (CTC), and not word by word as a
            language model would, which can invent words or repeat them.
    """

    def __init__(self, name: str, language: str | None = None, *, device: torch.device) -> None:
        """
        Args:
            name: hub name or folder.
            language: code of the language to write, for a recogniser of several: one of Whisper's
                ("jw"), or of an adapter of MMS ("aka"). None for any other.
            device: where it runs, in float32.

        Raises:
            InputError: not found, not a speech recogniser, or it has no such language, or several
                and was told none.
        """
        with one_line_errors("--asr", name):
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
            self.is_ctc = type(config) in MODEL_FOR_CTC_MAPPING
            model_class = AutoModelForCTC if self.is_ctc else AutoModelForSpeechSeq2Seq
            refuse_other_size(name, config, model_class.from_config)
            model, report = model_class.from_pretrained(
                name, trust_remote_code=False, use_safetensors=True, output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            extractor = AutoFeatureExtractor.from_pretrained(name, trust_remote_code=False)
            self._rate_hz = sampling_rate_of(extractor)
        refuse_missing_tensors("--asr", name, report)
        self._generate = choose_language(model, tokenizer, language, name=name)
        refuse_non_finite_weights(model, where=f"--asr {name}")
        self._name = name
        is_whisper = isinstance(model, WhisperForConditionalGeneration)
        self._max_samples = extractor.n_samples if is_whisper else None
        self._marks = "|".join(map(re.escape, tokenizer.all_special_tokens)) or "(?!)"
        with one_line_errors("--asr", name):
            self._pipeline: Any = pipeline(
                "automatic-speech-recognition", model=model, device=device, batch_size=1,
                tokenizer=tokenizer, feature_extractor=extractor, trust_remote_code=False,
            )  # fmt: skip
        self.transcribe([np.zeros(self._rate_hz, np.float32)], self._rate_hz)  # check that it works

    def transcribe(self, waveforms: Sequence[np.ndarray], sample_rate_hz: int) -> list[str]:
        """As `Transcriber.transcribe`; "" if the recogniser writes nothing."""
        with one_line_errors("--asr", self._name):
            return [
                self._hear(resample(waveform, sample_rate_hz, self._rate_hz))
                for waveform in waveforms
            ]

    def _hear(self, waveform_N: np.ndarray) -> str:
        pieces = [waveform_N]
        if self._max_samples:
            pieces = cut_evenly(waveform_N, self._max_samples, self._rate_hz)
        settings = {} if self.is_ctc else {"generate_kwargs": self._generate}
        heard = [
            self._pipeline({"raw": piece_N, "sampling_rate": self._rate_hz}, **settings)["text"]
            for piece_N in pieces
        ]
        # A CTC model's mark for an unknown letter would count as the letters of "<unk>".
        return " ".join(re.sub(self._marks, "", " ".join(heard)).split())


def choose_language(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, language: str | None, *, name: str
) -> dict[str, str]:
    """Let a recogniser of several languages write one of them.

    Returns:
        What its `generate` must be told, if it has one.

    Raises:
        InputError: as `AsrListener`.
    """
    if isinstance(model, WhisperForConditionalGeneration):
        return _choose_whisper_language(model, tokenizer, language, name)
    if isinstance(model, Wav2Vec2ForCTC) and model.config.adapter_attn_dim is not None:
        vocabulary: dict[str, Any] = getattr(tokenizer, "vocab", {})
        languages = [code for code, letters in vocabulary.items() if isinstance(letters, dict)]
        if languages:
            _refuse_other_language(language, languages, name)
            with one_line_errors("--asr", name):
                tokenizer.set_target_lang(language)
                # Without `use_safetensors`, an adapter may be a pickle.
                model.load_adapter(language, use_safetensors=True)
            return {}
    if language is not None:
        raise InputError(f"--asr-language {language}: {name} {ONE_LANGUAGE}")
    return {}


def _choose_whisper_language(
    model: WhisperForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    language: str | None,
    name: str,
) -> dict[str, str]:
    """The language and the task (never the translation into English) for Whisper's `generate`."""
    generation = model.generation_config
    known: dict[str, int] = getattr(generation, "lang_to_id", None) or {}
    if not known and getattr(generation, "is_multilingual", True):
        known = _add_languages(generation, tokenizer)
    told_by_itself = getattr(generation, "language", None) or _forced_language(model)
    if language is None and (told_by_itself is not None or not known):
        return {}
    _refuse_other_language(language, [token.strip("<|>") for token in known], name)
    assert language is not None
    return {"language": language, "task": "transcribe"}


def _add_languages(
    generation: GenerationConfig, tokenizer: PreTrainedTokenizerBase
) -> dict[str, int]:
    """Languages and tasks of a checkpoint whose generation_config.json does not list them, as many
    fine-tuned ones: those of its tokenizer."""
    known = {
        token: number
        for token, number in tokenizer.get_vocab().items()
        if re.fullmatch(r"<\|[a-z]{2,3}\|>", token)
    }
    ids = tokenizer.convert_tokens_to_ids
    generation.is_multilingual, generation.lang_to_id = bool(known), known
    generation.task_to_id = {task: ids(f"<|{task}|>") for task in ("transcribe", "translate")}
    generation.no_timestamps_token_id = ids("<|notimestamps|>")
    return known


def _forced_language(model: WhisperForConditionalGeneration) -> int | None:
    """The token that older checkpoints give in place of a language's code."""
    for settings in (model.generation_config, model.config):
        for position, token in getattr(settings, "forced_decoder_ids", None) or []:
            if position == 1 and isinstance(token, int):
                return token
    return None


def _refuse_other_language(language: str | None, known: Sequence[str], name: str) -> None:
    if language in known:
        return
    shown = ", ".join(known[:MAX_CODES_SHOWN]) + (", ..." if len(known) > MAX_CODES_SHOWN else "")
    if not known:
        raise InputError(f"--asr-language {language}: {name} {ONE_LANGUAGE}")
    if language is None:
        raise InputError(
            f"--asr {name} writes {len(known)} languages: name one with --asr-language, as its "
            f"card says for Akan ({shown})"
        )
    raise InputError(f"--asr-language {language}: {name} has no such language, but {shown}")


def sampling_rate_of(extractor: Any) -> int:
    """Sampling rate of a model's front end, in hertz; raises InputError if it is implausible."""
    rate_hz = extractor.sampling_rate
    if type(rate_hz) is not int or not 1000 <= rate_hz <= 200_000:
        raise InputError(f"preprocessor_config.json has sampling_rate = {shorten(rate_hz)}")
    return rate_hz
