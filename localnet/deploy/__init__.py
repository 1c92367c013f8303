"""Put built programs on a chain with Solana's upgradeable loader, as `anchor deploy` would."""

from localnet.deploy.check import Match, Verified, buffers, close_buffers, verify
from localnet.deploy.loader import Deployment, deploy_program
from localnet.deploy.programs import (
    DEFAULT_KEYS,
    DEFAULT_PROGRAMS,
    Program,
    deploy_all,
    find_programs,
    load_keypair,
)
from localnet.deploy.rpc import DeployError, KeyFileError, Rpc, UnreachableError

__all__ = [
    "DEFAULT_KEYS",
    "DEFAULT_PROGRAMS",
    "DeployError",
    "Deployment",
    "KeyFileError",
    "Match",
    "Program",
    "Rpc",
    "UnreachableError",
    "Verified",
    "buffers",
    "close_buffers",
    "deploy_all",
    "deploy_program",
    "find_programs",
    "load_keypair",
    "verify",
]
