"""The fold: the only place where shared weights change, in exact integers."""
