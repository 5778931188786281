"""Stage 1: Twi speech -> semantic codes, through Gemma 4's audio tower and a residual quantiser.

Also here, because this is the first stage to need them: devices, checkpoints and training logs,
Gemma itself, and the CTC reader that judges every later stage.
"""

import data_manifests.waiting_threads  # noqa: F401 - before torch is loaded
