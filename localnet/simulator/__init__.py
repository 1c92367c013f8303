"""Whole runs in one process and in simulated time, the same for the same seed; see docs/simulator.md."""
