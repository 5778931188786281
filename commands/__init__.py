"""Code shared by all commands: settings and errors, checked reading and atomic writing of files,
run folders, checkpoints, training logs and devices.

Every other package imports this one first. Importing it sets how OpenMP's threads wait, which must
happen before torch is loaded, and suppresses a few library messages. It does nothing else.
"""

import commands.waiting_threads  # noqa: F401 - before torch is loaded
from commands.library_messages import silence_libraries

silence_libraries()
