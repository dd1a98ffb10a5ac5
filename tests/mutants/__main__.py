"""Runs mutants by hand: python -m tests.mutants [--only WORDS ...] [--part 1/4] [--jobs 4] [--json]"""

from __future__ import annotations

import argparse
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from .known import MUTANTS
from .mutant import MutantError
from .runner import CAUGHT, check, outcome, unmutated


def main() -> int:
    """0 if all are caught, 1 if some are not, 2 if none could be run."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="WORDS", help="of names that these words are in")
    parser.add_argument("--part", default="1/1", metavar="I/N", help="the I-th of N parts of the list")
    parser.add_argument("--jobs", type=int, default=min(8, os.cpu_count() or 1), metavar="N", help="so many at a time")
    parser.add_argument("--json", action="store_true", help="one JSON object a mutant")
    parser.add_argument("--list", action="store_true", help="names only; nothing is run")
    asked = parser.parse_args()
    number, _, parts = asked.part.partition("/")
    chosen = [m for m in MUTANTS if not asked.only or any(words in m.name for words in asked.only)]
    chosen = chosen[int(number) - 1 :: int(parts)]
    if asked.list or not chosen:
        print("\n".join(m.name for m in chosen) or "no mutant has such a name")
        return 0 if chosen else 2
    try:
        check(MUTANTS)
        unmutated(chosen)
    except MutantError as error:
        print(error, file=sys.stderr)
        return 2
    missed = 0
    pool = ThreadPoolExecutor(asked.jobs)
    for i, found in enumerate(pool.map(outcome, chosen), 1):
        missed += found.result != CAUGHT
        if asked.json:
            facts = {
                "name": found.mutant.name,
                "result": found.result,
                "by": found.by,
                "seconds": round(found.seconds, 1),
            }
            print(json.dumps(facts), flush=True)
        else:
            by = f" by {found.by.rpartition('::')[2]}" if found.by else ""
            print(f"[{i}/{len(chosen)}] {found.mutant.name}: {found.result}{by} ({found.seconds:.1f} s)", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} caught", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
