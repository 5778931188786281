"""espeak-ng's library in this process: voices, parameters, samples and phoneme events.

Its state (voice, parameters, callback, random numbers) is global in the process. Each forked
process has its own copy of the state; spawned ones start the library themselves.
"""

import atexit
import ctypes
import functools
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from commands.errors import InputError, nearest_name
from demo.voice.voice_variants import VARIANTS

# speak_lib.h of espeak-ng 1.52
AUDIO_OUTPUT_SYNCHRONOUS = 2
INITIALIZE_PHONEME_EVENTS_IN_IPA = 0x1 | 0x2
CHARS_UTF8_WITH_PHONEMES = 0x1 | 0x100
EVENT_LIST_TERMINATED, EVENT_PHONEME = 0, 7
RATE, PITCH, PITCH_RANGE = 1, 3, 4
BUFFER_MS = 500
SEED = 1
BASE_VOICE = "hi"

IPA_OF = {
    "a": "a", "e": "e", "E": "ɛ", "I": "ɪ", "i": "i", "o": "o", "O": "ɔ", "U": "ʊ", "u": "u",
    "b": "b", "d": "d", "f": "f", "g": "ɡ", "h": "h", "j": "j", "k": "k", "l": "l", "m": "m",
    "n": "n", "p": "p", "*": "ɾ", "s": "s", "t": "t", "v": "ʋ", "w": "w", "z": "z",
    "N": "ŋ", "n^": "ɲ", "tS;": "tɕ", "dZ;": "dʑ", "S;": "ɕ",
    # of Ewe
    "d.": "ɖ", "x": "x", "Q": "ɣ", "B": "β",
    **{f"{vowel}~": f"{ipa}\u0303" for vowel, ipa in zip("aeEioOu", "aeɛioɔu", strict=True)},
}  # fmt: skip
"""Every phoneme that the voice is given, in espeak-ng's notation, and the name that it reports."""

_NAMES = {ipa: (name,) for name, ipa in IPA_OF.items() if name != "v"} | {"v": ("v",)}
SAID_AS: dict[str, tuple[str, ...]] = {
    **_NAMES,
    **{f"{ipa}ʷ": (*_NAMES[ipa], "w") for ipa in ("k", "ɡ", "h", "ŋ", "ɲ", "ɕ", "tɕ", "dʑ")},
    # Not in the voice: the nearest, one after the other.
    "ts": ("t", "s"), "dz": ("d", "z"), "ɡ͡b": ("g", "b"), "k͡p": ("k", "p"), "ɸ": ("p", "h"),
}  # fmt: skip
"""What the voice is given for each phoneme of `data_manifests/pronunciation.py`."""


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h; `id` is a union of which the phoneme's name is 8 bytes."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class Espeak:
    """The library of this process; made by `start_espeak`."""

    def __init__(self, library: ctypes.CDLL, data_path: Path) -> None:
        self._library = library
        self._variants = {path.name for path in (data_path / "voices" / "!v").iterdir()}
        self.sample_rate_hz = library.espeak_Initialize(
            AUDIO_OUTPUT_SYNCHRONOUS,
            BUFFER_MS,
            os.fsencode(data_path),
            INITIALIZE_PHONEME_EVENTS_IN_IPA,
        )
        if self.sample_rate_hz <= 0:
            raise InputError(f"espeak-ng cannot read its data in {data_path}")
        self._chunks: list[np.ndarray] = []
        self._events: list[tuple[int, str]] = []
        # 1.52 seeds itself from the clock, so that breath noise would differ between processes.
        library.espeak_ng_SetRandSeed(SEED)
        self._callback = _Callback(self._receive)  # kept: the library calls it
        library.espeak_SetSynthCallback(self._callback)
        self._voice = ""

    def set_voice(self, voice: str) -> None:
        """Choose the voice for the following speech.

        Raises:
            ValueError: neither `hi` nor `hi+` and a variant. (If a variant does not exist,
                espeak-ng speaks without it and reports no error.)
        """
        if voice == self._voice:
            return
        base, _, variant = voice.partition("+")
        if base != BASE_VOICE or (voice != BASE_VOICE and variant not in self._variants):
            hint = nearest_name(variant, sorted(self._variants)) if variant else "hi or hi+m3, say"
            raise ValueError(f"espeak-ng has no voice {voice!r}: {hint}")
        status = self._library.espeak_SetVoiceByName(voice.encode())
        assert status == 0, f"espeak_SetVoiceByName {voice}: {status}"
        self._voice = voice

    def set_parameter(self, parameter: int, value: int) -> None:
        """Set `RATE` (words per minute), `PITCH` or `PITCH_RANGE` (0 to 100)."""
        status = self._library.espeak_SetParameter(parameter, value, 0)
        assert status == 0, f"espeak_SetParameter {parameter} {value}: {status}"

    def synthesize(self, text: str) -> tuple[np.ndarray, list[tuple[int, str]]]:
        """int16 samples, and (start sample, IPA without stress, or "" for a pause) per phoneme."""
        self._chunks, self._events = [], []
        encoded = text.encode()
        status = self._library.espeak_Synth(
            encoded, len(encoded) + 1, 0, 1, 0, CHARS_UTF8_WITH_PHONEMES, None, None
        )
        assert status == 0, f"espeak_Synth: {status}"
        return np.concatenate(self._chunks), self._events

    def _receive(self, wav, num_samples: int, events) -> int:  # type: ignore[no-untyped-def]
        if wav and num_samples > 0:
            self._chunks.append(np.ctypeslib.as_array(wav, (num_samples,)).copy())
        i = 0
        while events[i].type != EVENT_LIST_TERMINATED:
            if events[i].type == EVENT_PHONEME:
                name = events[i].id.decode("utf-8").lstrip("ˈˌ")
                self._events.append((events[i].sample, name))
            i += 1
        return 0


@functools.cache
def start_espeak() -> Espeak:
    """The library of this process, started by the first call.

    Raises:
        InputError: espeak-ng is not installed.
    """
    library, data_path = _find_espeak()
    return Espeak(library, _add_variants(data_path))


def _find_espeak() -> tuple[ctypes.CDLL, Path]:
    """The wheel's library and data; else the system's library, which knows where its data is."""
    try:
        import espeakng_loader
    except ImportError:
        pass
    else:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
        return library, Path(espeakng_loader.get_data_path())
    try:
        library = ctypes.CDLL("libespeak-ng.so.1")
    except OSError:
        raise InputError(
            "no espeak-ng: pip install espeakng-loader, or apt-get install libespeak-ng1"
        ) from None
    library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, None, 0)
    path = ctypes.c_char_p()
    library.espeak_Info(ctypes.byref(path))
    return library, Path(os.fsdecode(path.value or b""))


def _add_variants(data_path: Path) -> Path:
    """A temporary data folder with links to espeak-ng's data and our own variants added; removed
    when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="twi-espeak-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    variants = folder / "voices" / "!v"
    variants.mkdir(parents=True)
    for source, target in (
        (data_path, folder),
        (data_path / "voices", folder / "voices"),
        (data_path / "voices" / "!v", variants),
    ):
        for entry in sorted(source.iterdir()):
            if not (target / entry.name).exists():
                (target / entry.name).symlink_to(entry)
    for name, definition in VARIANTS.items():
        (variants / name).write_text(definition, encoding="ascii")
    return folder
