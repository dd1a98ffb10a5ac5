"""Decides what to try next: the space of schedules, a cost model that ranks candidates, and strategies that propose
them.

The package is pure: it reads no clock, opens no device or store, and starts no process. To add a strategy, write a file
in `strategies/` with a class that has `propose` and `observe`, and list it in `strategies/__init__.py`.
"""
