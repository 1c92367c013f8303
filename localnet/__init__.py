"""The embedded chain and the many-clients launcher."""
