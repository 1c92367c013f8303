"""Learning, measured: strategies, mixed tiers and their ablations at equal tokens, over several seeds.

`python -m benchmarks.learning` trains every row of `rows.py` with the real trainer, payloads and fold, keeps
each run's result as one JSON file, and writes the tables and plots of `docs/learning.md`.
"""
