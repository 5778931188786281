"""Tiny recognisers with random weights, saved as their classes are on the hub."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

LETTERS = {token: i for i, token in enumerate(["<pad>", "<unk>", "|", *"abdeɛ"])}
OTHER_LETTERS = {token: i for i, token in enumerate(["<pad>", "<unk>", "|", *"kmnoɔptuw"])}
LANGUAGES = ("en", "fr", "jw")
SHAPE = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "pad_token_id": 0,
}  # fmt: skip
WAV2VEC2 = {
    **SHAPE, "conv_dim": (8, 8), "conv_stride": (10, 8), "conv_kernel": (10, 8),
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip


def save_wav2vec2(folder: Path) -> Path:
    """wav2vec 2.0 with CTC, of one language."""
    _save_letters(folder, LETTERS)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    torch.manual_seed(0)
    Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=len(LETTERS), **WAV2VEC2)).save_pretrained(folder)
    return folder


def save_mms(folder: Path) -> Path:
    """MMS: wav2vec 2.0 with an adapter and letters for each of two languages, eng and aka."""
    _save_letters(folder, {"eng": LETTERS, "aka": OTHER_LETTERS}, target_lang="eng")
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=len(LETTERS), adapter_attn_dim=4, do_stable_layer_norm=True, **WAV2VEC2
    )
    model = Wav2Vec2ForCTC(config)
    model.save_pretrained(folder)
    for language, letters in (("eng", LETTERS), ("aka", OTHER_LETTERS)):
        adapter = {name: torch.randn_like(value) for name, value in model._get_adapters().items()}
        adapter["lm_head.weight"] = torch.randn(len(letters), SHAPE["hidden_size"])
        adapter["lm_head.bias"] = torch.randn(len(letters))
        save_file(adapter, folder / f"adapter.{language}.safetensors")
    return folder


def save_w2v_bert(folder: Path) -> Path:
    """w2v-BERT 2.0 with CTC."""
    _save_letters(folder, LETTERS)
    SeamlessM4TFeatureExtractor(feature_size=80, num_mel_bins=80).save_pretrained(folder)
    torch.manual_seed(0)
    config = Wav2Vec2BertConfig(
        vocab_size=len(LETTERS), feature_projection_input_dim=160, **SHAPE,
        conv_depthwise_kernel_size=3, output_hidden_size=16,
    )  # fmt: skip
    Wav2Vec2BertForCTC(config).save_pretrained(folder)
    return folder


def save_whisper(folder: Path, *, knows_languages: bool = True) -> Path:
    """Whisper of three languages; with `knows_languages=False` as an old copy, whose
    generation_config.json does not list them."""
    marks = [
        "<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in LANGUAGES),
        "<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>",
        "<|notimestamps|>", *(f"<|{0.02 * i:.2f}|>" for i in range(1501)),
    ]  # fmt: skip
    letters = {letter: i for i, letter in enumerate(["Ġ", *"abdefgikmnoprstuwyABDE"])}
    tokenizer = WhisperTokenizer(vocab={**letters, "<|endoftext|>": len(letters)}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": marks[1:11]})
    tokenizer.add_tokens(marks[11:])
    tokenizer.save_pretrained(folder)
    ids = tokenizer.convert_tokens_to_ids
    WhisperFeatureExtractor().save_pretrained(folder)
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
        decoder_ffn_dim=16, max_target_positions=64, bos_token_id=ids(marks[0]),
        pad_token_id=ids(marks[0]), eos_token_id=ids(marks[0]),
        decoder_start_token_id=ids(marks[1]), suppress_tokens=None, begin_suppress_tokens=None,
        init_std=1.0,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    generation = model.generation_config
    generation._from_model_config = False  # otherwise what is not in config.json is not read
    generation.max_length = 24
    generation.suppress_tokens = [ids(mark) for mark in marks[1:]]
    if knows_languages:
        generation.is_multilingual = True
        generation.no_timestamps_token_id = ids("<|notimestamps|>")
        generation.lang_to_id = {f"<|{code}|>": ids(f"<|{code}|>") for code in LANGUAGES}
        generation.task_to_id = {name: ids(f"<|{name}|>") for name in ("transcribe", "translate")}
    model.save_pretrained(folder)
    return folder


def _save_letters(folder: Path, vocabulary: dict, **settings: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), pad_token="<pad>", **settings)
    tokenizer.save_pretrained(folder)
