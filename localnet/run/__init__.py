"""`psyche-localnet run`: a chain, a run and several real client processes, started, watched and settled."""
