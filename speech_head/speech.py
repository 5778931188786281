"""Speech from text: Gemma's tokens -> frames -> samples, while the tokens are being generated.

speech = Speech(talker, Sampling())
for samples_N in speech.say(talker.answer(question)):
    play(samples_N)
print(speech.text, speech.words, speech.end)
"""

# S answer tokens, K codebooks, N samples (24,000 per second)

from collections.abc import Generator, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from commands.errors import InputError
from data_manifests.normalization import is_speakable
from speech_head.answer import AnswerTokens
from speech_head.mimi_stream import MimiStreamDecoder, decode_together
from speech_head.stream import End, HeadStream, Sampling, step_together
from speech_head.talker import Talker
from speech_head.word_times import WordTime, word_times


class Speech:
    """One answer being spoken.

    Attributes:
        ids: tokens so far, including the one that closes the turn.
        frames: Mimi codes so far, each `[K]`.
        end: how the speech ended; None until then.
    """

    def __init__(self, talker: Talker, sampling: Sampling, *, id_: str = "answer") -> None:
        self.talker = talker
        self.ids: list[int] = []
        self.frames: list[Tensor] = []
        self._stream = HeadStream(talker.head, id_, sampling, talker.voice_E)
        self._decoder = MimiStreamDecoder(talker.mimi)
        self._ready: list[np.ndarray] = []  # sound that is computed, but not yielded

    def say(self, answer: Iterable[AnswerTokens]) -> Generator[np.ndarray]:
        """Speak tokens as they arrive.

        Args:
            answer: tokens of the whole answer, in pieces of any size.

        Yields:
            float32 `[1920]`, 80 ms at a time, as soon as the required tokens are available.

        Raises:
            InputError: the answer has no letter to pronounce; also whatever `answer` raises.
        """
        for tokens in answer:
            self.add(tokens)
            yield from self.speak()
        self.close()
        yield from self.speak()

    def add(self, tokens: AnswerTokens) -> None:
        """Add the next tokens."""
        if len(tokens.ids_S):
            self.ids += tokens.ids_S.tolist()
            self._stream.push(tokens)

    def close(self) -> None:
        """Say that all tokens have been added; raises InputError as `say`."""
        if not is_speakable(self.text):
            raise InputError(f"no answer: nothing to pronounce in {self.text!r}")
        self._stream.close()

    @property
    def text(self) -> str:
        """The answer so far; a letter split over several tokens is added with the last of them."""
        text: str = self.talker.tokenizer.decode(self.ids, skip_special_tokens=True)
        return text.rstrip("\N{REPLACEMENT CHARACTER}").strip()

    @property
    def end(self) -> End | None:
        return self._stream.end

    @property
    def num_pushed(self) -> int:
        """Number of tokens from which the cursor had to be moved on (`HeadStream.num_pushed`)."""
        return self._stream.num_pushed

    @property
    def words(self) -> list[WordTime]:
        """Words spoken at least in part, with their times."""
        return word_times(
            self.ids, self._stream.cursor, self.talker.tokenizer, self.talker.mimi.frame_rate_hz
        )

    @property
    def can_speak(self) -> bool:
        """Whether the next frame can be computed from what has been added."""
        return self._stream.can_step

    def speak(self) -> Iterator[np.ndarray]:
        """Speak what has been added, as far as can be said before the tokens after it; as `say`."""
        while self._ready or self.can_speak:
            if not self._ready:
                speak_together([self])
            if self._ready:
                yield self._ready.pop()


def speak_together(speeches: Sequence[Speech]) -> None:
    """Compute the next 80 ms of several answers in one pass; each yields its own afterwards.

    Args:
        speeches: of the same models, sampled in the same way but for the seed; each can speak.
    """
    stepped = step_together([speech._stream for speech in speeches])
    spoken = [
        (speech, codes_K)
        for speech, codes_K in zip(speeches, stepped, strict=True)
        if codes_K is not None
    ]
    if not spoken:
        return
    sounds_BN = decode_together(
        [speech._decoder for speech, _ in spoken], torch.stack([c for _, c in spoken])[:, None]
    )
    for (speech, codes_K), sound_N in zip(spoken, sounds_BN.cpu(), strict=True):
        speech.frames.append(codes_K)
        speech._ready.append(sound_N.numpy())
