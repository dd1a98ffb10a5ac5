"""Sweeps on many devices at once, by way of Dask (the extra `fleet`): see docs/fleet.md."""
