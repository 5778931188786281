"""Threads that wait spin for a moment, then sleep: set before torch is loaded, by every package.

Between two parallel loops OpenMP's threads spin, to be there at once for the next: GNU's 300,000
times, milliseconds. On cores that another program uses too, each then waits for a thread that waits
for a core, and a step takes seconds instead of a tenth. Threads that never spin
(`OMP_WAIT_POLICY=PASSIVE`) pay for it alone, by a wake-up for every small loop. A thousand times,
some 50 microseconds, costs neither (`python -m benchmarks.shared_cores`); it is also what GNU's
OpenMP takes by itself where it has more threads than cores.

OpenMP reads its environment once, when torch's library is loaded, so no command can set this in
time: importing any of our packages must. What a user has set stays.
"""

import os

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # LLVM's and Intel's OpenMP, in milliseconds; 200 by themselves. Not measured.
    os.environ.setdefault("KMP_BLOCKTIME", "1")
