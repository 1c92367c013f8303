"""Bad networks between members on one machine: slow, lossy, narrow or cut, the same for the same seed."""
