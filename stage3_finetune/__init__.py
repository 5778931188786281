"""Stage 3: Gemma 4 learns to answer spoken Twi from dialogues whose spoken turns are only codes.

Real recordings and generated codes enter Gemma at the same point (`model.py`), before its own
`output_proj`, so that what is learned from generated codes also holds for recordings.
"""

import commands  # noqa: F401 - before torch is loaded
