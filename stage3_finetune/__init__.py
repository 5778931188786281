"""Stage 3: Gemma 4 learns to answer spoken Twi from dialogues whose spoken turns are only codes.

Real recordings and generated codes enter Gemma through the same door (`model.py`), before its own
`output_proj`, so that what is learned on the second holds for the first.
"""

import commands  # noqa: F401 - before torch is loaded
