"""Everything that depends on Gemma 4's internals: loading and its errors, the audio tower, input of
speech embeddings, chat templates, quantised weights, tiny random checkpoints.

If transformers changes its Gemma 4, this package must be adapted.
"""

import commands  # noqa: F401 - before torch is loaded
