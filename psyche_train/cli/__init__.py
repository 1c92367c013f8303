"""The `psyche-train` command, and the shell that all commands of the project run in."""
