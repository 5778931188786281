"""Recognisers of others as judges: MMS, w2v-BERT, wav2vec 2.0 and Whisper, tiny and random."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from tiny_recognizers import (
    LETTERS,
    OTHER_LETTERS,
    save_mms,
    save_w2v_bert,
    save_wav2vec2,
    save_whisper,
)

from commands.errors import InputError
from data_manifests.audio import resample
from stage1_rvq.asr import AsrListener

CPU = torch.device("cpu")
SAVERS = {
    "wav2vec2": save_wav2vec2, "mms": save_mms, "w2v_bert": save_w2v_bert, "whisper": save_whisper,
}  # fmt: skip
LANGUAGE = {"mms": "aka", "whisper": "jw"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("recognizers")
    return {name: save(root / name) for name, save in SAVERS.items()}


def load(folders, name):
    return AsrListener(str(folders[name]), LANGUAGE.get(name), device=CPU)


def noise(num_samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(num_samples)).astype("f4")


@pytest.mark.parametrize("name", SAVERS)
def test_a_batch_is_what_single_recordings_are(folders, name):
    """At any rate, from 40 ms on; what is resampled before is heard alike."""
    listener = load(folders, name)
    assert listener.is_ctc == (name != "whisper")
    clips = [noise(960), noise(24_000, 1), noise(50_000, 2)]
    together = listener.transcribe(clips, 24_000)
    assert together == [listener.transcribe([clip], 24_000)[0] for clip in clips]
    assert together == listener.transcribe([resample(c, 24_000, 16_000) for c in clips], 16_000)
    assert any(together) and len({*together}) > 1


@pytest.mark.parametrize("name", ["mms", "whisper"])
def test_the_language_that_is_named_is_written(folders, name):
    """Its adapter and letters, or its place in Whisper's prompt."""
    heard = {
        code: AsrListener(str(folders[name]), code, device=CPU).transcribe([noise(32_000)], 16_000)
        for code in {"mms": ("aka", "eng"), "whisper": ("jw", "en")}[name]
    }
    assert len({text for [text] in heard.values()}) == 2
    if name == "mms":
        assert {*heard["aka"][0]} <= {*OTHER_LETTERS, " "}
        assert {*heard["eng"][0]} <= {*LETTERS, " "}
    with pytest.raises(InputError, match=r"writes [23] languages: name one with --asr-language"):
        AsrListener(str(folders[name]), device=CPU)
    with pytest.raises(InputError, match=r"--asr-language tw: .* has no such language, but [ae]"):
        AsrListener(str(folders[name]), "tw", device=CPU)


@pytest.mark.parametrize("name", ["wav2vec2", "w2v_bert"])
def test_a_recogniser_of_one_language_takes_none(folders, name):
    with pytest.raises(InputError, match=r"--asr-language aka: .* writes one language only"):
        AsrListener(str(folders[name]), "aka", device=CPU)


def test_an_old_copy_of_whisper_is_told_all_the_same(folders, tmp_path):
    """Its generation_config.json does not list its languages, its tokenizer does."""
    folder = str(save_whisper(tmp_path / "old", knows_languages=False))  # the same weights
    old = AsrListener(folder, "jw", device=CPU)
    clips = [noise(32_000), noise(20_000, 1)]
    assert old.transcribe(clips, 16_000) == load(folders, "whisper").transcribe(clips, 16_000)
    with pytest.raises(InputError, match=r"name one with --asr-language"):
        AsrListener(folder, device=CPU)


def test_a_fine_tuned_whisper_may_say_its_language_itself(folders, tmp_path):
    shutil.copytree(folders["whisper"], tmp_path / "tuned")
    path = tmp_path / "tuned" / "generation_config.json"
    said = json.loads(path.read_text()) | {"language": "jw", "task": "transcribe"}
    path.write_text(json.dumps(said))
    tuned = AsrListener(str(tmp_path / "tuned"), device=CPU)
    told = load(folders, "whisper")
    assert tuned.transcribe([noise(32_000)], 16_000) == told.transcribe([noise(32_000)], 16_000)


def test_whisper_hears_long_recordings_in_pieces(folders):
    """Nothing beyond its 30 s is dropped: it is cut in the middle of a pause."""
    listener = load(folders, "whisper")
    first, then = noise(16_000 * 20, 1), noise(16_000 * 21, 2)
    pause = np.zeros(1600, np.float32)
    [whole] = listener.transcribe([np.concatenate([first, pause, then])], 16_000)
    pieces = [np.concatenate([first, pause[:800]]), np.concatenate([pause[800:], then])]
    assert whole == " ".join(listener.transcribe(pieces, 16_000))
    [beginning] = listener.transcribe([first], 16_000)
    assert len(whole) > len(beginning) > 0


def test_silence_and_unknown_letters_are_no_words(tmp_path):
    """A recogniser that finds nothing writes nothing; its mark for other letters is no text."""
    folder = save_wav2vec2(tmp_path / "asr")
    model = transformers.Wav2Vec2ForCTC.from_pretrained(folder)
    heard = {}
    for token in ("<pad>", "<unk>", "a"):
        with torch.no_grad():
            model.lm_head.bias.zero_()[LETTERS[token]] = 100
        model.save_pretrained(folder)
        [heard[token]] = AsrListener(str(folder), device=CPU).transcribe([noise(16_000)], 16_000)
    assert heard == {"<pad>": "", "<unk>": "", "a": "a"}


def test_an_adapter_is_never_a_pickle(folders, tmp_path):
    shutil.copytree(folders["mms"], tmp_path / "mms")
    safe = tmp_path / "mms" / "adapter.aka.safetensors"
    torch.save({}, tmp_path / "mms" / "adapter.aka.bin")
    safe.unlink()
    with pytest.raises(InputError, match=r"--asr .*adapter.aka.safetensors"):
        AsrListener(str(tmp_path / "mms"), "aka", device=CPU)
