"""Nested model slices: loading one from a checkpoint, its metadata, the startup box."""
