"""Threads that wait let others work: set before torch is loaded, by every package's `__init__`.

Between two parallel loops OpenMP's threads spin, to be there at once for the next. On cores that
another program uses too, each then waits for a thread that waits for a core: `make demo` beside a
busy process stood at seconds a step instead of a tenth. Passive threads sleep. OpenMP reads its
environment once, when torch's library is loaded, so no command can set this in time: importing
any of our packages must.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
