"""Claim: the schedules of a class of workloads can be timed on all of them within minutes, for rules to be computed.

    python -m bench.cross_times --db store.sqlite

Run it after a sweep and before `autotune export`. It times on each tuned workload the schedules that won for others of
its op, stores the times, and prints how many there are, then one JSON line.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace

from autotune.cross_probes import probe
from autotune.render import workload_name
from autotune.session import session
from autotune.settings import Settings
from bench import options


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--db", required=True, help="a store with a sweep of this device")
    parser.add_argument("--seconds", type=float, default=300.0, help="for all measurements")
    args = parser.parse_args()
    with session(replace(Settings.from_environment(), db=args.db)) as s:
        rows = []
        for probed in probe(s, "python -m bench.cross_times", args.seconds):
            rows.append(probed)
            print(f"{workload_name(probed.workload):<46}{probed.timed:>4} of {probed.missing}", flush=True)
        report = {"bench": "cross_times", "target": asdict(s.info.target), "versions": dict(s.info.versions)}
    print(json.dumps({**report, "workloads": len(rows), "timed": sum(r.timed for r in rows)}))


if __name__ == "__main__":
    main()
