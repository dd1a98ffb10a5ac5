"""What to try next: the space of schedules, a cost model that ranks candidates, and the strategies that propose them.

Pure: nothing here reads a clock, opens a device or a store, or starts a process. To add a strategy, write a file in
`strategies/` with a class that has `propose` and `observe`, and list it in `strategies/__init__.py`.
"""
