"""How a member turns a batch into an update: DisTrO and its payload."""
