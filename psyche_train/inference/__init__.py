"""Trying a model out: open a checkpoint of any kind, turn text into tokens and back, continue it."""
