"""Stage 4 on tiny models: speak; what every voice chat stands on."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from conftest import run
from head_world import ANSWER, QUESTION, let_gemma_write, models

from commands.errors import InputError
from speech_head import answer_parts, speak
from speech_head import talker as talker_module
from speech_head.answer import answer_states
from speech_head.mimi import tiny_mimi
from speech_head.speech import Speech
from speech_head.stream import Sampling, speak_answers
from speech_head.talker import tokenize_within_limit
from stage3_finetune import prompt_limits
from stage3_finetune.dialogue import Turn, encode_prompt
from stage3_finetune.live_prompt import LivePrompt


def test_a_typed_question_is_answered_aloud(head_world, tmp_path):
    out = tmp_path / "new" / "answer.wav"
    printed = run(speak.main, *models(head_world), "--prompt", QUESTION, "--out", out)
    assert printed.splitlines() == [ANSWER, str(out)]
    assert soundfile.info(out).samplerate == 24_000 and soundfile.info(out).frames % 1920 == 0


def test_a_spoken_question_is_answered_aloud_without_its_transcript(head_world, talker, corpus):
    conversation = talker.conversation
    question = conversation.spoken_turn(corpus / "audio" / "train_question_0000.wav")
    for writes_transcripts, expected in ((True, ANSWER), (False, f"{QUESTION}\n{ANSWER}")):
        conversation.writes_transcripts = writes_transcripts
        speech = Speech(talker, Sampling())
        assert sum(len(samples_N) for samples_N in speech.say(talker.answer(question))) > 0
        assert speech.text == expected
        assert [word.word for word in speech.words] == expected.split()[: len(speech.words)]
        assert conversation.turns[-1].content == f"{QUESTION}\n{ANSWER}"
        conversation.turns.clear()
    conversation.writes_transcripts = False


def test_a_draft_that_was_no_transcript_is_spoken_too(talker, corpus, monkeypatch):
    """Only a line break tells a transcript from an answer: until then, a draft may be either."""
    conversation = talker.conversation
    monkeypatch.setattr(conversation, "writes_transcripts", True)
    monkeypatch.setattr(answer_parts, "transcript_length", lambda ids, tokenizer: 0)
    question = conversation.spoken_turn(corpus / "audio" / "train_question_0000.wav")
    straight = [piece for piece in talker.answer(question) if len(piece.ids_S)]
    conversation.turns.clear()
    prompt = LivePrompt(conversation.model, talker.tokenizer, [])
    prompt.hear(question.frames_TD)
    draft = torch.cat([piece.ids_S for piece in straight])[:5].tolist()
    decoding = talker.begin(prompt.begun(draft))
    assert decoding.ids == draft
    drafted = [piece for piece in talker.answer(question, decoding) if len(piece.ids_S)]
    conversation.turns.clear()
    for name in ("ids_S", "states_SLD", "embeddings_SD"):
        expected, found = (
            torch.cat([vars(piece)[name] for piece in pieces]) for pieces in (straight, drafted)
        )
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_streamed_speech_is_the_speech_of_the_whole_text(talker, chunk):
    text = tokenize_within_limit(ANSWER, talker.tokenizer)
    [tokens] = answer_states(talker.conversation.model, [text])
    [spoken] = speak_answers(talker.head, [tokens], ["answer"], Sampling())
    pieces = [
        type(tokens)(*(value[start : start + chunk] for value in vars(tokens).values()))
        for start in range(0, len(text.ids_S), chunk)
    ]
    speech = Speech(talker, Sampling())
    streamed_N = np.concatenate(list(speech.say(pieces)))
    assert torch.equal(torch.stack(speech.frames), spoken.codes_FK)
    assert speech.end == spoken.end and speech.num_pushed == spoken.num_pushed
    offline_N = talker.mimi.decode(spoken.codes_FK).numpy()
    np.testing.assert_allclose(streamed_N, offline_N, rtol=0, atol=1e-4)


def test_the_tenth_turn_is_spoken_as_the_first(talker, monkeypatch):
    """The conversation goes on; of the speech before, the head keeps nothing."""
    let_gemma_write(monkeypatch, "Yoo.")
    text = tokenize_within_limit(ANSWER, talker.tokenizer)
    spoken = []
    for turn in range(10):
        if turn % 9:
            list(Speech(talker, Sampling(seed=turn)).say(talker.answer(Turn("user", QUESTION))))
            continue
        speech = Speech(talker, Sampling())
        samples = list(speech.say(answer_states(talker.conversation.model, [text])))
        spoken.append((torch.stack(speech.frames), np.concatenate(samples)))
    assert len(talker.conversation.turns) == 2 * 8
    talker.conversation.turns.clear()
    (first_FK, first_N), (tenth_FK, tenth_N) = spoken
    assert torch.equal(first_FK, tenth_FK) and np.array_equal(first_N, tenth_N)


def test_a_long_conversation_forgets_its_oldest_turns(talker, monkeypatch):
    conversation = talker.conversation.continuing([])
    monkeypatch.setattr(prompt_limits, "MAX_PROMPT_TOKENS", 120)
    question = conversation.typed_turn(QUESTION)
    for i in range(20):
        conversation.make_room(question)
        conversation.remember(question, f"{ANSWER} {i}")
    assert conversation.make_room(question) == 2
    assert 2 <= len(conversation.turns) < 20
    assert conversation.turns[0].role == "user" and conversation.turns[-1].content.endswith("19")
    with pytest.raises(InputError, match="Gemma takes at most 120 at once: ask a shorter one"):
        conversation.make_room(Turn("user", "Baako ne mmienu. " * 50))


def test_a_mark_that_gemma_spells_out_does_not_spoil_the_conversation(talker):
    conversation = talker.conversation.continuing([])
    conversation.remember(Turn("user", QUESTION), f"{ANSWER} <|audio|> <|turn>")
    assert len(encode_prompt(conversation.turns, talker.tokenizer).input_ids) > 0
    assert conversation.turns[1].content.startswith(ANSWER)


def test_seed_decides_what_is_heard(head_world, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        out = tmp_path / f"{name}.wav"
        run(speak.main, *models(head_world), "--text", ANSWER, "--seed", seed, "--out", out)
    a, b, c = ((tmp_path / f"{name}.wav").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--text", " "), "empty"),
        (("--text", "..."), "no letter"),
        (("--text", "a " * 600), "at most 512 can be spoken"),
        (("--text", "a" * 100_000), "--text has 100,000 characters, at most 4,000"),
        (("--text", "Me <|turn> din."), "marks of the chat template"),
        (("--text", "\udce9"), "must be Unicode text"),
        (("--prompt", ""), "nothing was asked"),
        (("--prompt", "a" * 100_000), "has 100,000 characters, at most 4,000"),
        (("--prompt", "Wo <|audio|> ho te sɛn?"), r"holds '<\|audio\|>', a mark of Gemma's chat"),
        (("--audio", "nowhere.wav"), "no such audio file"),
        (("--text", "Me.", "--prompt", "Wo?"), "give one of"),
        (("--text", "Me.", "--temperature", -1), "--temperature"),
    ],
)
def test_mistakes_are_named_and_leave_no_wav(head_world, tmp_path, words, reason):
    with pytest.raises(InputError, match=reason):
        flags = (*models(head_world), *words, "--out", tmp_path / "answer.wav")
        speak.main([str(word) for word in flags])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("out", ["file/answer.wav", "file", "/proc/answer.wav", "x" * 300])
def test_an_impossible_out_is_refused_before_models_are_loaded(tmp_path, out):
    (tmp_path / "file").touch()
    words = ("--head", "nowhere", "--text", "Me.", "--out", tmp_path / out)
    with pytest.raises(InputError, match="--out"):
        run(speak.main, *words)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_endless_or_silent_answer_leaves_no_wav(head_world, tmp_path, monkeypatch):
    words = (*models(head_world), "--prompt", QUESTION, "--out", tmp_path / "answer.wav")
    with pytest.raises(InputError, match="did not end within 9 tokens"):
        run(speak.main, *words, "--max-new-tokens", 9)
    with pytest.raises(InputError, match="--max-new-tokens must be between 1 and 512, got 2000"):
        run(speak.main, *words, "--max-new-tokens", 2000)
    stream = answer_parts.stream_answer
    monkeypatch.setattr(answer_parts, "stream_answer", lambda *a, **k: list(stream(*a, **k))[-1:])
    with pytest.raises(InputError, match="no answer"):
        run(speak.main, *words)
    assert not list(tmp_path.iterdir())


def test_a_long_answer_is_cut_where_asked(head_world, tmp_path):
    words = (*models(head_world), "--prompt", QUESTION, "--max-new-tokens", 9, "--cut-long-answers")
    row = json.loads(run(speak.main, *words, "--json", "--out", tmp_path / "answer.wav"))
    assert row["answer"] and (tmp_path / "answer.wav").stat().st_size > 1000
    assert [word["word"] for word in row["words"]] and row["time_to_first_audio_ms"] > 0
    with pytest.raises(InputError, match="exists already"):
        run(speak.main, *words, "--out", tmp_path / "answer.wav")


def test_models_that_do_not_belong_together_are_refused(head_world, tmp_path):
    words = dict(zip(*[iter(models(head_world))] * 2, strict=True))
    flags = ("--text", "Me.", "--out", tmp_path / "answer.wav")

    def speak_with(**changed):
        given = words | {f"--{name}": value for name, value in changed.items()}
        run(speak.main, *(word for pair in given.items() for word in pair), *flags)

    config = json.loads((head_world / "mimi" / "config.json").read_text())
    shutil.copytree(head_world / "mimi", tmp_path / "mimi")
    tiny = tiny_mimi()
    tiny.config.num_quantizers = config["num_quantizers"] // 2
    type(tiny)(tiny.config).save_pretrained(tmp_path / "mimi")
    with pytest.raises(InputError, match="num_codebooks is 8, Mimi has 4"):
        speak_with(mimi=tmp_path / "mimi")
    shutil.copytree(head_world / "head" / "model", tmp_path / "model")
    head = talker_module.load_head(str(tmp_path / "model"), device=torch.device("cpu"))
    wider = type(head.config)(**{**vars(head.config), "state_width": 48})
    type(head)(wider).save_pretrained(tmp_path / "wider")
    with pytest.raises(InputError, match="64 wide, --head was trained on a Gemma 48 wide"):
        speak_with(head=tmp_path / "wider")
    with pytest.raises(InputError, match=r"written by speech_head\.states"):
        speak_with(head=head_world / "states")
    assert not (tmp_path / "answer.wav").exists()
