"""Stage 4: what Gemma writes is heard while it is being written.

Gemma's states at the answer's tokens -> Mimi codes, 12.5 frames a second -> 24 kHz speech. Gemma
and Mimi stay as they are; only the head between them is trained.
"""

import commands  # noqa: F401 - before torch is loaded
