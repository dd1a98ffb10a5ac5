"""Injects faults for a while: python -m tests.soak [--seconds 60] [--seed 7] [--only rows] [--case 12] [--show 3]"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from .attack import Attack
from .driver import Driver, Fault, Tally, as_json, run_side_by_side

DEFAULT_SECONDS = 60.0


def main() -> int:
    """0 if every promise was kept, 1 if one was not."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, metavar="N", help=f"for how long [SOAK_SECONDS; {DEFAULT_SECONDS:g}]")
    parser.add_argument("--seed", type=int, metavar="N", help="of all cases; it is printed")
    parser.add_argument("--only", action="append", default=[], metavar="ATTACK", help="repeatable")
    parser.add_argument("--except", action="append", default=[], metavar="ATTACK", dest="left_out", help="repeatable")
    parser.add_argument("--cases", type=int, metavar="N", help="the first N cases of each attack, however long")
    parser.add_argument("--case", type=int, metavar="N", help="this case alone, with all that it says")
    parser.add_argument("--lanes", type=int, default=os.cpu_count() or 1, metavar="N", help="cases at once [cores]")
    parser.add_argument("--show", type=int, default=1, metavar="N", help="faults of one cause to tell in full [1]")
    asked = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if asked.seed is None else asked.seed
    seconds = float(os.environ.get("SOAK_SECONDS") or DEFAULT_SECONDS) if asked.seconds is None else asked.seconds
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder:
        _alone(Path(folder))
        from .attacks import ATTACKS  # only now: caches are chosen when tinygrad is imported
        from .reading import warm

        unknown = {*asked.only, *asked.left_out} - {a.name for a in ATTACKS}
        if unknown:
            parser.error(f"no attack {', '.join(sorted(unknown))}: there are {', '.join(a.name for a in ATTACKS)}")
        chosen = [a for a in ATTACKS if a.name in (asked.only or [a.name]) and a.name not in asked.left_out]
        print(f"seed {seed}", flush=True)
        warm(Path(folder))
        return _run(chosen, seed, Path(folder), asked, seconds)


def _run(attacks: list[Attack], seed: int, root: Path, asked: argparse.Namespace, seconds: float) -> int:
    seen: Counter[tuple[str, str]] = Counter()

    def tell(fault: Fault) -> None:
        seen[fault.promise, fault.where] += 1
        if seen[fault.promise, fault.where] <= asked.show:
            print(_told(seed, fault), flush=True)

    driver, start = Driver(attacks, seed, root, tell), time.monotonic()
    tallies = driver.tallies
    if asked.case is not None or asked.cases is not None:
        for attack in attacks:
            for number in [asked.case] if asked.case is not None else range(asked.cases):
                did = driver.run(attack, number)
                if asked.case is not None:
                    print("\n".join(f"did: {line}" for line in did))
        driver.close()
    else:
        tallies = run_side_by_side(attacks, seed, root, seconds, asked.lanes, tell)
        seen.update((f.promise, f.where) for t in tallies.values() for f in t.faults)
    print(_table(tallies))
    for (promise, where), count in seen.most_common():
        print(f"{count:6d} × {promise}: {where}")
    print(as_json(seed, tallies, time.monotonic() - start))
    return 1 if seen else 0


def _alone(folder: Path) -> None:
    """Nothing of the user's is read or written: no store, no caches, no settings."""
    for name in [n for n in os.environ if n.startswith("AUTOTUNE_")]:
        del os.environ[name]
    places = {"XDG_CACHE_HOME": "cache", "XDG_DATA_HOME": "data", "HOME": "home"}
    for variable, name in places.items():
        (folder / name).mkdir()
        os.environ[variable] = str(folder / name)
    from support.cpu_device import cpu

    choice = cpu()
    os.environ["DEV"] = choice.device
    if choice.cc is not None:
        os.environ["CC"] = choice.cc


def _told(seed: int, fault: Fault) -> str:
    repeat = f"python -m tests.soak --seed {seed} --only {fault.attack} --case {fault.case}"
    did = "".join(f"\n  did: {line:.300}" for line in fault.did)
    detail = "\n  ".join(fault.detail.strip().splitlines()[-25:])
    return f"-- {fault.promise}: {fault.where}\n  {repeat}{did}\n  {detail}"


def _table(tallies: dict[str, Tally]) -> str:
    lines = [f"{'attack':12} {'cases':>7} {'faults':>7} {'broken':>7} {'skipped':>8} {'seconds':>8}  slowest case"]
    for name, t in tallies.items():
        skipped, (slowest, number) = t.skipped.total(), t.slowest
        lines.append(
            f"{name:12} {t.cases:7d} {t.injected:7d} {len(t.faults):7d} {skipped:8d} {t.seconds:8.1f}  "
            f"{slowest:.1f} s, {number}"
        )
        lines += [f"{'':12} {count} skipped: {kind}" for kind, count in t.skipped.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
