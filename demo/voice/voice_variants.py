"""Our own voices, as espeak-ng variant files.

Used as "hi+NAME", like the variants that come with espeak-ng (hi+m3, hi+f1, ...). Each line of a
variant is documented in espeak-ng's docs/voices.md: `pitch` gives the lowest and highest pitch,
`formant` a formant's number and its frequency, strength and width in percent.
"""


def _variant(
    pitch: tuple[int, int], formants: tuple[int, int, int], flutter: int, more: str = ""
) -> str:
    """A variant file. `formants`: percent of frequency of F1, of F2 and F3, of all higher ones."""
    f1, f23, higher = formants
    frequencies = [f1, f1, f23, f23, *[higher] * 5]
    lines = [f"formant {i} {frequency} 100 100" for i, frequency in enumerate(frequencies)]
    head = ["language variant", f"pitch {pitch[0]} {pitch[1]}", f"flutter {flutter}"]
    return "\n".join([*head, *lines, *([more] if more else [])]) + "\n"


VARIANTS = {
    "tall": _variant((70, 105), (88, 90, 92), flutter=2),
    "bass": _variant((62, 92), (93, 88, 94), flutter=3, more="voicing 130"),
    "bright": _variant((95, 150), (104, 106, 108), flutter=1),
    "alto": _variant((135, 205), (108, 112, 112), flutter=2),
    "girl": _variant((190, 290), (116, 122, 124), flutter=2),
    "airy": _variant((150, 235), (112, 114, 116), flutter=4, more="breath 0 3 4 4 4 4 3 3"),
    # held out
    "uncle": _variant((76, 124), (97, 93, 90), flutter=5, more="roughness 2"),
    "aunt": _variant((158, 245), (110, 118, 113), flutter=1),
    # Flat: the tiny codec preserves pitch only if it is constant, at a multiple of its 25 Hz.
    "flat100": _variant((110, 110), (100, 100, 100), flutter=0),
    "flat200": _variant((210, 210), (110, 110, 113), flutter=0),
}

FLAT_PITCH_HZ = {"hi+flat100": 100.0, "hi+flat200": 200.0}
"""Voices without intonation, and their pitch in the final speech at pitch 50 and warp 1."""

MEASURED_PITCH_HZ = {"hi+flat100": 100.99, "hi+flat200": 200.96}
"""Their pitch from espeak-ng 1.52 (autocorrelation of long vowels); resampling corrects it."""
