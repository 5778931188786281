"""What is wrong with a recording that training must not see: empty, cut short, silent, no audio."""

from commands.errors import InputError

# MP3 headers announce up to two 1152-sample frames more than decode; if more are missing, the file
# is cut short.
MISSING_TOLERANCE_S = 0.15
# The longest recording, or slice of a file, that is decoded at a time.
MAX_DURATION_S = 3600.0


class AudioDefect(InputError):
    """A recording that training must not see; `kind` names the defect in reports."""

    kind = "unreadable audio"


class MissingAudio(AudioDefect):
    """There is no such file."""

    kind = "missing audio"


class CutShort(AudioDefect):
    """Fewer samples decode than the header, or the slice, promises."""

    kind = "cut short"


class SilentAudio(AudioDefect):
    """Nothing but rounding noise."""

    kind = "silent"
