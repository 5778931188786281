"""Make waiting OpenMP threads spin only briefly, then sleep; set before torch is loaded.

Between two parallel loops OpenMP's threads spin, so as to start the next one at once: GNU's spin
300,000 times, which takes milliseconds. On cores shared with another program, they spin while a
thread they depend on waits for a core, and a step takes seconds instead of a tenth. Threads that
never spin (`OMP_WAIT_POLICY=PASSIVE`) are slow even on free cores, because every small loop must
wake them. Spinning a thousand times, some 50 microseconds, avoids both costs (`python -m
benchmarks.shared_cores`); GNU's OpenMP does the same by default when it has more threads than
cores.

OpenMP reads its environment once, when torch's library is loaded, so a command would set this too
late: importing any of our packages sets it. Values that the user has set are kept.
"""

import os

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # For LLVM's and Intel's OpenMP, in milliseconds; their default is 200. Not measured.
    os.environ.setdefault("KMP_BLOCKTIME", "1")
