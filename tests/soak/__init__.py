"""Faults injected at random into stores, imports, caches, files, servers, disks and processes, and promises counted.

`python -m tests.soak --seconds 600` runs it; `--seed`, `--only` and `--case` repeat one case of it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # of `support`
