"""Stage 4: Gemma's answer is spoken while it is being generated.

Gemma's states at the answer's tokens -> Mimi codes, 12.5 frames per second -> 24 kHz speech. Gemma
and Mimi stay frozen; only the head between them is trained.
"""

import commands  # noqa: F401 - before torch is loaded
