"""What every command shares: settings and their errors, files that are checked when they are read
and whole when they are written, run folders, checkpoints, training logs, devices.

Importing this package, as every other package does first, settles how OpenMP's threads wait, which
must be done before torch is loaded, and drops two messages of libraries. Nothing else happens.
"""

import commands.waiting_threads  # noqa: F401 - before torch is loaded
from commands.library_messages import silence_libraries

silence_libraries()
