"""Stage 2: Twi text -> semantic codes, so that dialogues can be spoken without a recording.

Also here, because this is the first stage to need it: the code-frame decoder (depth transformer),
which stage 4's speech head uses for Mimi's codes.
"""

import commands  # noqa: F401 - before torch is loaded
