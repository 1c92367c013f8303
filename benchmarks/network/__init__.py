"""Speed of transfers between two processes; see `__main__.py`."""
