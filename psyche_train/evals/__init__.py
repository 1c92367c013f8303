"""How good a model is: multiple-choice tasks as lm-evaluation-harness defines them, and validation loss.

All of it runs in small slices, one forward pass each, so that a member evaluates between its duties.
"""
