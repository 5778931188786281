"""Stage 1: Twi speech -> semantic codes, through Gemma 4's audio tower and a residual quantiser.

Also contains the CTC recogniser, which evaluates every later stage.
"""

import commands  # noqa: F401 - before torch is loaded
