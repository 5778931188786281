"""Everything that knows Gemma 4's insides: loading and its errors, the audio tower, the entrance
for speech embeddings, chat templates, quantised weights, tiny random checkpoints.

When transformers changes its Gemma 4, this is what has to follow.
"""

import commands  # noqa: F401 - before torch is loaded
