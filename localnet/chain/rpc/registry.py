"""The table of RPC methods and what they work on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from localnet.chain.bank import Bank
from localnet.chain.errors import MIN_CONTEXT_SLOT, RpcError, invalid_params
from localnet.chain.records import Json
from localnet.chain.rpc.params import Config, Params
from localnet.chain.store import History
from localnet.chain.view import View

VERSION = "3.1.8"
"""What getVersion says: the validator whose RPC this server follows. Clients choose features by it."""


@dataclass(slots=True)
class Node:
    """What the handlers work on."""

    bank: Bank
    view: View
    history: History
    started: float

    def context(self) -> dict[str, Json]:
        return {"slot": self.view.slot, "apiVersion": VERSION}

    def with_context(self, value: Json) -> dict[str, Json]:
        return {"context": self.context(), "value": value}

    def check_min_context(self, config: Config) -> None:
        """Raise Solana's error when the caller has seen a later slot than this chain's."""
        wanted = config.get("minContextSlot", int, 0)
        if wanted < 0:
            raise invalid_params(f"Invalid params: invalid value: integer `{wanted}`, expected u64.")
        if wanted > self.view.slot:
            raise RpcError(
                MIN_CONTEXT_SLOT, "Minimum context slot has not been reached", {"contextSlot": self.view.slot}
            )

    def context_config(self, params: Params, index: int, struct: str = "RpcContextConfig") -> Config:
        """An optional configuration whose `minContextSlot` is heeded."""
        config = params.config(index, struct)
        self.check_min_context(config)
        return config


Function = Callable[[Node, Params], Json | Awaitable[Json]]


@dataclass(frozen=True, slots=True)
class Method:
    """How a method is called: its function, and how many parameters it must and may have."""

    function: Function
    required: int
    optional: int


METHODS: dict[str, Method] = {}


def method(required: int = 0, optional: int = 0) -> Callable[[Function], Function]:
    """Serve a function under its name in camel case: `get_slot` as getSlot."""

    def add(function: Function) -> Function:
        head, *tail = function.__name__.split("_")
        name = head + "".join(part.capitalize() for part in tail)
        METHODS[name] = Method(function, required, optional)
        return function

    return add
