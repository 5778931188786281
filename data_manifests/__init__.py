"""What a Twi utterance is: corpora, audio, Twi text, numbers, dialects, error rates.

Nothing here imports torch.
"""

import commands  # noqa: F401 - before torch is loaded
