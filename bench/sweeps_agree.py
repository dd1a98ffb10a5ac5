"""Claim: independent sweeps of a model agree, and what is shipped is as fast: a token takes the same time within 1 %.

    autotune sweep model.gguf --db a.sqlite; autotune sweep model.gguf --db b.sqlite
    python -m bench.sweeps_agree model.gguf a.sqlite b.sqlite

Times a captured token of the model, on random weights, with what each store serves, with what is shipped, and with the
defaults, all in turn. A MODEL is a GGUF, of which only the header is read. Prints a table, then one JSON line.
"""

from __future__ import annotations

import json
from collections import Counter

from autotune.trial.runner import Runner
from autotune.trial.statistics import median
from autotune.trial.token import Schedules, TokenTimer
from bench import options
from db.lookup import Lookup
from kernels import devices
from kernels.llm.planned import plan
from kernels.llm.shapes import X_DTYPE
from kernels.models.header import read_header
from kernels.models.passes import CONTEXT
from kernels.ops.tolerance import tolerance
from kernels.serve.resolution import look_up
from kernels.serve.sink import buildable


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("model")
    parser.add_argument("stores", nargs="*")
    parser.add_argument("--ctx", type=int, default=CONTEXT, help="positions of the cache")
    parser.add_argument("--rounds", type=int, default=48, help="samples of each")
    args = parser.parse_args()
    choice, header = devices.choose_device(), read_header(args.model)
    devices.activate(choice)
    with Runner(choice) as runner:
        info = runner.describe()
    launches = plan(header, args.ctx, choice.device, weights=False).passes.decode.until("next")
    launched = dict.fromkeys(launch.workload(1, X_DTYPE) for launch in launches)

    def served(store: str | None, mode: str) -> tuple[Schedules, dict[str, int]]:
        lookup = Lookup(store, limit=tolerance) if store else Lookup(limit=tolerance)
        found = {w: look_up(w, info.target, lookup, mode, buildable(info.renderer)) for w in launched}
        return tuple((w, r.schedule) for w, r in found.items()), dict(Counter(r.step for r in found.values()))

    asked = {store: served(store, "on") for store in args.stores}
    asked |= {"shipped": served(None, "on"), "defaults": served(None, "off")}
    with TokenTimer(choice, header, args.ctx) as timer:
        samples = timer.compare(1, [schedules for schedules, _ in asked.values()], args.rounds)
        layers = timer.loaded.layers, timer.loaded.of_layers
    print(f"{'what is served':<30}{'ms a token':>11}{'tok/s':>9}{'to the first':>14}  steps")
    rows = []
    for (name, (_, steps)), times in zip(asked.items(), samples, strict=True):
        ratio = median([a / b for a, b in zip(samples[0], times, strict=True)])
        rows.append({"served": name, "seconds": median(times), "speed_to_first": ratio, "steps": steps})
        print(f"{name[-29:]:<30}{median(times) * 1e3:>11.3f}{1 / median(times):>9.1f}{ratio:>14.4f}  {steps}")
    about = options.described(choice.device)
    print(json.dumps({"bench": "sweeps_agree", "model": args.model, "layers": layers, **about, "rows": rows}))


if __name__ == "__main__":
    main()
