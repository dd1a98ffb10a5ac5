"""The devices, compilers and stores of this machine, and the device that was chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autotune.doctor import Report
    from kernels.devices import Choice


def chosen_device(c: Choice) -> str:
    """The chosen device, the reason, and how to get a faster one."""
    return f"device {c.device}: {c.reason}" + (f"\nhow to get faster: {c.faster}" if c.faster else "")


def examination(r: Report) -> str:
    place = r.store
    size = f", {place.nbytes / 1e6:.1f} MB" if place.nbytes is not None else ""
    rows = ", ".join(f"{n} {name}" for name, n in place.rows)
    state = f"schema {place.schema}{size}; {rows}; {place.served} served" if place.exists else "not there yet"
    state += f"; cannot be written: {place.unwritable}" if place.unwritable else ""
    sections = {
        f"device: {r.device or 'none'}": [r.reason, *([f"how to get faster: {r.faster}"] if r.faster else [])],
        "devices": [f"{'*' if d.chosen else ' '} {d.name:8} {'ok' if d.ok else '--'}  {d.detail}" for d in r.devices],
        "compilers": [f"{t.name:8} {t.version or 'not found'}  {t.path}".rstrip() for t in r.compilers],
        f"threads of a CPU: {r.host.threads}": [
            r.host.why,
            f"executor: {'yes' if r.host.executor else 'no'}, {r.host.detail}",
        ],
        "versions": [f"{name:24} {version}" for name, version in r.versions],
        f"store: {place.place}": [place.error or state],
        "caches": [f"{c.name:17} {c.problem or 'ok'}  {c.place}" for c in r.caches],
        "problems" if r.problems else "no problems": [
            f"{'!' if p.fatal else '-'} {p.what}: {p.remedy}" for p in r.problems
        ],
    }
    return "\n".join("\n".join([title, *(f"  {text}" for text in lines)]) for title, lines in sections.items())
