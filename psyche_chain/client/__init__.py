"""The member's client: duties decided from snapshots of the chain, done until the run is finished."""

from psyche_chain.client.options import JoinOptions
from psyche_chain.client.run import run_client

__all__ = ["JoinOptions", "run_client"]
