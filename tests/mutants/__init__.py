"""Deliberate faults in kernels/models and kernels/llm, each with the tests that must fail on it.

`python -m tests.mutants` from the repository's root runs them; `test_mutants.py` does so at night.
"""
