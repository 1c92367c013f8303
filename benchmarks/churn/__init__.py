"""Churn and bad networks as users meet them, each a scenario with real member processes on the embedded chain."""
