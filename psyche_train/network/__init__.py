"""The peer network: verified blobs and round records between the members of a run.

`open_network` runs py-libp2p in a process of its own and gives a `NetworkClient`. This package does not
import libp2p; only `python -m psyche_train.network` does.
"""

from psyche_train.network.client import NetworkClient, open_network
from psyche_train.network.types import (
    FetchError,
    NetworkConfig,
    NetworkDown,
    NetworkError,
    NetworkStatus,
    Peer,
    PushLimits,
    libp2p_id,
)

__all__ = [
    "FetchError",
    "NetworkClient",
    "NetworkConfig",
    "NetworkDown",
    "NetworkError",
    "NetworkStatus",
    "Peer",
    "PushLimits",
    "libp2p_id",
    "open_network",
]
