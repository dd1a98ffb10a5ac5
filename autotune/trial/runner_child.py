"""The inside of the runner's child: owns the device, holds one workload's buffers, validates and times programs.

Decides nothing: what to run, for how long and what to make of it is the parent's business. A hung or crashed kernel
takes this process along, which is what it is for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from multiprocessing.connection import Connection
from typing import Any

from autotune.tinygrad_api.copy import copy_bandwidth
from autotune.tinygrad_api.launch import Buffer, Kernel, LaunchError, LoadError, OpenDevice
from autotune.tinygrad_api.lower import Program
from autotune.trial.child import answer_requests
from autotune.trial.messages import DeviceInfo, Prepared, Refused, Timing
from autotune.trial.validate import Verdict, dtype_name, initial, judge
from db.records import Outcome, Workload
from kernels import devices
from kernels.ops.case import Case, outputs
from kernels.ops.op import UPDATE, WEIGHT, Operand
from kernels.ops.references import make_case
from kernels.ops.registry import operands, tuned_values

COLD_FACTOR = 4
COLD_LIMIT_NBYTES = 2 << 30
# every copy is some allocations, and a process may have 65530 mappings; reached only by weights of a few KiB
COLD_LIMIT_COPIES = 4096
# a warm-up launch also loads the code, so it may take this many times longer before it alone condemns a kernel
WARM_UP_FACTOR = 3.0
LAUNCH_SECONDS = 50e-6
# A launch costs Python more than a small kernel takes, so a sample is a chain of launches where there are graphs or an
# executor: as many as there are cold copies, within these bounds.
GRAPH_LAUNCHES = 512
GRAPH_SECONDS = 4e-3


class Bench:
    """The device and the inputs of one workload on it."""

    def __init__(self, choice: devices.Choice) -> None:
        devices.activate(choice)
        self._choice, self._device = choice, OpenDevice()
        self._facts = devices.facts(choice.device)
        self._kernels: dict[str, Kernel] = {}

    def describe(self) -> DeviceInfo:
        return DeviceInfo(
            target=devices.describe_target(self._choice.device),
            renderer=self._device.renderer,
            clock=self._device.clock,
            versions=(("tinygrad", version("tinygrad")), ("driver", self._facts.driver)),
        )

    def prepare(self, workload: Workload, seed: int) -> Prepared:
        """Inputs of `workload`, and enough copies of its weight that a launch finds none of it in a cache."""
        self._kernels, self._copies = {}, []  # frees what the last workload held
        self._sets: dict[int, tuple[Case, dict[str, Buffer]]] = {}
        self._device.trim()
        self._workload, self._seed, self._turn = workload, seed, 0
        self._operands, self._values = operands(workload), tuned_values(workload)
        case = make_case(workload, seed)
        nbytes = case.weight_nbytes(self._operands)
        copies = self._copies_of(nbytes)
        self._written = {o.name: self._device.upload(initial(o, case)) for o in outputs(self._operands)}
        self._sets[seed] = case, self._upload(case, self._operands)
        weights = [o for o in self._operands if o.role == WEIGHT]
        self._copies = [self._sets[seed][1], *(self._upload(case, weights) for _ in range(copies - 1))]
        return Prepared(nbytes, copies)

    def _copies_of(self, nbytes: int) -> int:
        """How many sets of weights of `nbytes` overflow the last cache, as far as there is room."""
        if not nbytes:
            return 1
        wanted = -(-COLD_FACTOR * self._facts.cache_nbytes // nbytes)
        room = min(COLD_LIMIT_NBYTES, self._facts.memory_nbytes // 8 or COLD_LIMIT_NBYTES) // nbytes
        return max(1, min(wanted, room, COLD_LIMIT_COPIES))

    def _upload(self, case: Case, wanted: Sequence[Operand]) -> dict[str, Buffer]:
        """Buffers of those of the operands that are only read."""
        return {o.name: self._device.upload(case.arrays[o.name]) for o in wanted if o.name not in self._written}

    def validate(self, program: Program, tolerance: float, seeds: int) -> Verdict:
        """The verdict over `seeds` sets of inputs: the first that is not OK, else the one with the largest error."""
        kernel = self._load(program)
        verdicts = []
        for seed in range(self._seed, self._seed + seeds):
            case, buffers = self._set(seed)
            before = {o.name: initial(o, case) for o in outputs(self._operands)}
            for name, content in before.items():
                self._device.write(self._written[name], content)
            kernel(self._arguments(buffers))
            for o in outputs(self._operands):
                data = self._device.read(self._written[o.name])
                old = before[o.name] if o.role == UPDATE else None
                verdict = judge(data, dtype_name(o), case.truths[o.name], tolerance, old)
                if verdict.outcome is not Outcome.OK:
                    return verdict
                verdicts.append(verdict)
        return max(verdicts, key=lambda v: v.error or 0.0)

    def measure(self, program: Program, launches: int, stop_above_seconds: float | None) -> Timing:
        """One warm-up, then `launches` cold launches; SLOW as soon as it is clear that none will be fast enough."""
        kernel = self._load(program)
        limit = float("inf") if stop_above_seconds is None else stop_above_seconds
        warm_up = kernel(self._cold())
        if warm_up > limit * WARM_UP_FACTOR + LAUNCH_SECONDS:
            return Timing(Outcome.SLOW, (warm_up,), f"the first launch took {warm_up:.3g} s, stop above {limit:.3g} s")
        sample = self._sampler(program, warm_up)
        samples = [sample()]
        if min(warm_up, samples[0]) > limit:
            return Timing(Outcome.SLOW, tuple(samples), f"a launch takes {samples[0]:.3g} s, stop above {limit:.3g} s")
        samples += [sample() for _ in range(launches - 1)]
        return Timing(Outcome.OK, tuple(samples))

    def compare(self, programs: Sequence[Program], rounds: int) -> tuple[Timing, ...]:
        """Cold samples in turn, ABBAAB.. so that none always comes first: sample i of each is of round i."""
        samplers = [self._sampler(p, self._load(p)(self._cold())) for p in programs]
        for sample in samplers:
            sample()
        samples: list[list[float]] = [[] for _ in programs]
        for number in range(rounds):
            order = range(len(programs))
            for i in order if number % 2 == 0 else reversed(order):
                samples[i].append(samplers[i]())
        return tuple(Timing(Outcome.OK, tuple(s)) for s in samples)

    def _sampler(self, program: Program, about_seconds: float) -> Callable[[], float]:
        """Takes one sample: the seconds of a cold launch, of one in a chain where the device has chains."""
        wanted = min(len(self._copies), GRAPH_LAUNCHES, max(2, int(GRAPH_SECONDS / about_seconds)))
        kernel = self._load(program)
        chain = kernel.chain([self._cold() for _ in range(wanted)])
        if chain is None:
            return lambda: kernel(self._cold())
        if not self._device.executes:
            return lambda: chain() / wanted

        def other_copies() -> float:  # than the sample before, whose copies may all fit the cache
            fresh = kernel.chain([self._cold() for _ in range(wanted)])
            assert fresh is not None
            return fresh() / wanted

        return other_copies

    def chain(self, program: Program, length: int, rounds: int, dependent: bool) -> Timing:
        """Seconds a launch in a graph of launches. Dependent ones write one output, so that each waits for the one
        before, as in decoding; others have outputs of their own and may overlap."""
        launches = [self._cold() for _ in range(max(length, min(len(self._copies), GRAPH_LAUNCHES)))]
        if not dependent:
            launches = [self._disjoint_outputs(buffers) for buffers in launches]
        graph = self._load(program).chain(launches)
        if graph is None:
            return self.measure(program, rounds, None)
        graph()
        return Timing(Outcome.OK, tuple(graph() / len(launches) for _ in range(rounds)))

    def copy_bandwidth(self) -> float:
        """Bytes read and written a second by a copy over more than the cache holds."""
        room = (self._facts.memory_nbytes or 1 << 32) // 8
        cached = COLD_FACTOR * self._facts.cache_nbytes
        return copy_bandwidth(self._device, min(max(cached, 64 << 20), 512 << 20, room))

    def _set(self, seed: int) -> tuple[Case, dict[str, Buffer]]:
        if seed not in self._sets:
            case = make_case(self._workload, seed)
            self._sets[seed] = case, self._upload(case, self._operands)
        return self._sets[seed]

    def _arguments(self, read: dict[str, Buffer]) -> tuple[Buffer, ...]:
        """The kernel's buffers in slot order; what `read` lacks is of the first set."""
        found = self._sets[self._seed][1] | read | self._written
        return tuple(found[o.name] for o in self._operands)

    def _disjoint_outputs(self, arguments: tuple[Buffer, ...]) -> tuple[Buffer, ...]:
        """The same with outputs that no other launch writes."""
        case = self._sets[self._seed][0]
        fresh = {o.name: self._device.upload(initial(o, case)) for o in outputs(self._operands)}
        return tuple(fresh.get(o.name, b) for o, b in zip(self._operands, arguments, strict=True))

    def _cold(self) -> tuple[Buffer, ...]:
        self._turn = (self._turn + 1) % len(self._copies)
        return self._arguments(self._copies[self._turn])

    def _load(self, program: Program) -> Kernel:
        if program.key not in self._kernels:
            self._kernels[program.key] = self._device.load(program, self._values)
        return self._kernels[program.key]


def main(connection: Connection[Any, Any]) -> None:
    """Open the device that the first message chooses, then answer requests until the pipe closes."""
    bench = Bench(connection.recv())
    answer_requests(connection, bench, (LoadError, LaunchError, ValueError), _refusal)


def _refusal(e: Exception) -> Refused:
    if isinstance(e, LoadError):
        return Refused(Outcome.COMPILE_ERROR, str(e), fatal=False)
    if isinstance(e, LaunchError):
        return Refused(Outcome.CRASH, str(e), fatal=True)
    return Refused(Outcome.ILLEGAL, str(e), fatal=False)
