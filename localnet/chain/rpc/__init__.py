"""Solana's RPC methods, by family. Importing this package fills the table of methods."""

from localnet.chain.rpc import accounts, blocks, cluster, sending, tokens, transactions
from localnet.chain.rpc.registry import METHODS, Node

__all__ = ["METHODS", "Node", "accounts", "blocks", "cluster", "sending", "tokens", "transactions"]
