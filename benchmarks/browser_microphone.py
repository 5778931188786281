"""Are questions that a browser's microphone hears answered as well as the same recordings?

    python -m demo.world.make_corpus --num-questions 1 --num-held-out 100 --out runs/asked
    python -m benchmarks.browser_microphone --questions runs/asked/test.jsonl \
        --dialogues runs/asked/dialogues_test.jsonl

Every question is asked three times, each time in a conversation of its own: read from its file;
played into `voice_chat.hands_free`, which finds its beginning and end; and played, at the speed of
speech, into the microphone of a Chromium that has opened the page of `voice_chat.serve` and
listens hands free. The first two differ by turn taking, the last two by what the browser does to
sound. Exact match is that of `stage3_finetune.evaluate`.

Needs Chromium and `pip install -c constraints.txt -e '.[live,browser]'`. A question takes about 10
seconds.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from benchmarks.asked_questions import AskedQuestion, choose_questions, is_same
from benchmarks.demo_server import serving
from benchmarks.demo_talker import DemoTalkerConfig, ask_sound
from benchmarks.fake_microphone import (
    MARGIN_S,
    MICROPHONE_RATE_HZ,
    ask_page,
    browsing,
    find_browser,
    surround_with_silence,
)
from commands.command_line import parse_config, run_command
from commands.setting_types import PositiveInt
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from data_manifests.error_rates import compute_error_rates
from data_manifests.manifest import read_utterance_audio
from speech_head.talker import Talker
from stage3_finetune.answer_scores import exact_match
from stage3_finetune.reply import Reply
from voice_chat.hands_free import HandsFree
from voice_chat.sound_source import PIECE_SAMPLES
from voice_chat.turn_taking import refuse_missing_detector
from voice_chat.updates import Ended, Heard


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(DemoTalkerConfig):
    """Ask recorded questions from files and through a browser's microphone."""

    questions: Path
    """manifest of recorded held-out questions"""
    dialogues: Path
    """the same questions with their answers, as text (`messages` JSONL)"""
    num_questions: PositiveInt = 100
    """questions asked"""


def main(argv: list[str] | None = None) -> None:
    """Print the table, and every answer that is not that of the file."""
    config = parse_config(BenchmarkConfig, argv)
    refuse_missing_detector()
    program = find_browser()
    questions = choose_questions(config.dialogues, config.questions, config.num_questions)
    talker = config.load()
    replies: dict[str, list[Reply]] = {
        "file": [ask_file(talker, q) for q in tqdm(questions, "file", unit=" questions")],
        "file, hands free": [
            ask_hands_free(talker, config, q)
            for q in tqdm(questions, "file, hands free", unit=" questions")
        ],
    }
    with tempfile.TemporaryDirectory() as folder:
        microphone = Path(folder) / "microphone.wav"
        with serving(config) as server, browsing(program, microphone) as browser:
            replies["browser"] = [
                ask_page(
                    browser, server.address, microphone,
                    read_utterance_audio(q.recording, MICROPHONE_RATE_HZ),
                    pause_s=config.turns.pause_s,
                )
                for q in tqdm(questions, "browser", unit=" questions")
            ]  # fmt: skip
    print(format_scores(questions, replies))
    print(format_differences(questions, replies))


def ask_file(talker: Talker, question: AskedQuestion) -> Reply:
    """Ask a recording in a new conversation."""
    talker.conversation.turns.clear()
    sound_N = read_utterance_audio(question.recording, GEMMA_SAMPLE_RATE_HZ)
    return ask_sound(talker.conversation, sound_N)


def ask_hands_free(talker: Talker, config: BenchmarkConfig, question: AskedQuestion) -> Reply:
    """Play a recording into a hands-free conversation, as fast as it can be computed."""
    question_N = read_utterance_audio(question.recording, GEMMA_SAMPLE_RATE_HZ)
    after_s = config.turns.pause_s + MARGIN_S
    sound_N = surround_with_silence(question_N, GEMMA_SAMPLE_RATE_HZ, after_s)
    talker.conversation.turns.clear()
    live = HandsFree(talker, config.turns, config.sampling_of_turn)
    transcript = answer = ""
    for start in range(0, len(sound_N), PIECE_SAMPLES):
        updates = live.hear(sound_N[start : start + PIECE_SAMPLES])
        while live.is_busy:
            updates += live.work()
        for update in updates:
            if isinstance(update, Heard):
                transcript = update.transcript
            elif isinstance(update, Ended):
                answer = update.text
    return Reply(transcript, answer)


def format_scores(questions: Sequence[AskedQuestion], replies: dict[str, list[Reply]]) -> str:
    """A row for each way of asking; the first is what the others are compared with."""
    [first, *_] = replies.values()
    rows = [
        f"{len(questions)} recorded questions, each in a conversation of its own",
        f"{'':18}{'answered':>10}{'exact match':>13}{'WER of what was heard':>23}"
        f"{'same answer':>13}{'same transcript':>17}",
    ]
    for name, ours in replies.items():
        answered = sum(reply.answer != "" for reply in ours)
        match = exact_match([q.answer for q in questions], [reply.answer for reply in ours])
        heard = compute_error_rates(
            [q.text for q in questions], [reply.transcript for reply in ours]
        )
        answers = sum(is_same(a.answer, b.answer) for a, b in zip(first, ours, strict=True))
        transcripts = sum(
            is_same(a.transcript, b.transcript) for a, b in zip(first, ours, strict=True)
        )
        rows.append(
            f"{name:18}{answered:10}{100 * match:11.1f} %{heard.wer:23.3f}"
            f"{answers:13}{transcripts:17}"
        )
    return "\n".join(rows)


def format_differences(questions: Sequence[AskedQuestion], replies: dict[str, list[Reply]]) -> str:
    """Every question that was answered otherwise than from its file, with what was heard of it."""
    [first, *_] = replies.values()
    rows = []
    for i, question in enumerate(questions):
        differ = {
            name: ours[i]
            for name, ours in replies.items()
            if not is_same(ours[i].answer, first[i].answer)
        }
        if differ:
            rows.append(f"\n{question.text} -> {question.answer}")
            shown = {"file": first[i], **differ}
            rows += [f"  {name:18}{r.transcript} -> {r.answer}" for name, r in shown.items()]
    return "\n".join(rows)


if __name__ == "__main__":
    run_command(main)
