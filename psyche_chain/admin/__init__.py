"""Administration of runs as library functions; `psyche_chain.cli` puts them on the command line."""
