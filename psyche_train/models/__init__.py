"""Models: their full-width configuration, their parameters in schema order, their first weights."""
