"""What a Twi utterance is: corpora, audio, Twi text, error rates, and how commands read and write.

Nothing here imports torch. Packages import one way only, and `tests/test_import_order.py` enforces
it:

    data_manifests <- stage1_rvq <- stage2_speechless <- stage3_finetune <- speech_head <- demo
"""

import data_manifests.waiting_threads  # noqa: F401 - before torch is loaded
from data_manifests.library_messages import silence_libraries

silence_libraries()
