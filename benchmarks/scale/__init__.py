"""What a run of many members asks of the chain, the lines and the members' machines, and what breaks first.

`measure` takes the constants from the code of this repository, `exchange` simulates how the updates of a round reach
everybody, `real` does the same with real network processes on slow lines, `model` computes the rest, `page` writes
docs/scale.md.
"""
