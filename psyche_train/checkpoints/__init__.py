"""Checkpoints on disk: whole or not there, in the transformers layout."""
