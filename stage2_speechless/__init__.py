"""Stage 2: Twi text -> semantic codes, so that dialogues can be spoken without recordings.

Also contains the code-frame decoder (depth transformer), which this stage needs first, and which
stage 4's speech head uses for Mimi's codes.
"""

import commands  # noqa: F401 - before torch is loaded
