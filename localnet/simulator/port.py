"""One process' way to the chain: the client's own `ChainPort` on a sender and an RPC pool that are models."""

from __future__ import annotations

import base64
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from localnet.simulator.chain import SLOT_S, SimChain, at_slot
from localnet.simulator.threads import host
from localnet.simulator.weather import Weather
from psyche_chain.chain.errors import RpcUnavailable, TransactionExpired
from psyche_chain.chain.sender import Receipt
from psyche_chain.client.chain_port import ChainPort
from psyche_chain.client.ports import Member, Snapshot
from psyche_chain.errors import PsycheError

Edge = Callable[[], Awaitable[None]]
STALE_SLOTS = 60


class SimRpc:
    """A pool of endpoints: what they answer, after how long, and how old it is."""

    def __init__(self, chain: SimChain, weather: Weather, rng: random.Random, edge: Edge) -> None:
        self.chain, self._weather, self._rng, self._edge = chain, weather, rng, edge

    async def ask(self) -> tuple[int, int]:
        """Slot and Unix time of an answer.

        Raises:
            RpcUnavailable: no endpoint answered.
        """
        await self._edge()
        if self._weather.has("rpc_down", chance=0.8):
            await trio.sleep(self._rng.uniform(0.1, 5.0))
            await self._edge()
            raise RpcUnavailable("no RPC endpoint answered")
        before, after = self._rng.uniform(0.01, 0.15), self._rng.uniform(0.01, 0.15)
        await trio.sleep(before)
        slot, unix_s = self.chain.moment()
        lag = self._rng.choice((0, 0, 0, 0, 1, 1, 2))
        if self._weather.has("rpc_stale", chance=0.8):
            lag = self._rng.randrange(STALE_SLOTS)
        await trio.sleep(after)
        await self._edge()
        return slot - lag, unix_s - int(lag * SLOT_S)

    def said(self, slot: int) -> int:
        """What an endpoint that is believed says the slot is."""
        if self._weather.has("rpc_liar", chance=0.5):
            return self._rng.choice((0, slot - STALE_SLOTS, slot + STALE_SLOTS, slot + 10**9))
        return slot

    async def call_at_slot(
        self,
        method: str,
        params: Sequence[Any],
        parse: Callable[[Any, int], Any],
        *,
        deadline_s: float | None = None,
    ) -> Any:
        """See `psyche_chain.chain.rpc.RpcPool`; accounts are those of now, whatever the slot."""
        slot, _ = await self.ask()
        if method != "getMultipleAccounts":
            return parse([], self.said(slot))
        return parse([self._account(Pubkey.from_string(key)) for key in params[0]], self.said(slot))

    def _account(self, key: Pubkey) -> dict[str, Any] | None:
        found = self.chain.account(key)
        if found is None:
            return None
        data = [base64.b64encode(found.data).decode(), "base64"]
        return {"owner": str(found.owner), "lamports": found.lamports, "data": data}


class SimSender:
    """Sends for one process; what was handed over lands whatever becomes of the process."""

    def __init__(
        self,
        rpc: SimRpc,
        payer: Keypair,
        weather: Weather,
        rng: random.Random,
        edge: Edge,
        outside: trio.Nursery,
    ) -> None:
        self.rpc, self.payer = rpc, payer
        self._chain, self._weather, self._rng, self._edge = rpc.chain, weather, rng, edge
        self._outside = outside

    async def send(
        self,
        instructions: Sequence[Instruction],
        signers: Sequence[Keypair] = (),
        *,
        label: str,
        min_units: int = 0,
        deadline_s: float = 60.0,
    ) -> Receipt:
        """See `psyche_chain.chain.sender.Sender.send`."""
        deadline = trio.current_time() + deadline_s
        await self.rpc.ask()
        if self._weather.has("tx_lost", chance=0.7):
            await self._expire(deadline, label)
        flight = _Flight(self._chain, list(instructions), self.payer.pubkey(), label)
        late = self._weather.has("tx_late", chance=0.6)
        delay_s = self._rng.uniform(5.0, 80.0) if late else self._rng.uniform(0.1, 1.2)
        self._outside.start_soon(flight.land, delay_s, self._weather.has("tx_again", chance=0.7))
        with trio.move_on_at(deadline):
            await flight.landed.wait()
        if not flight.landed.is_set():
            await self._expire(deadline, label)
        await trio.sleep(self._rng.uniform(0.05, 0.6))
        await self._edge()
        if self._weather.has("answer_lost", chance=0.7):
            raise RpcUnavailable(f"{label}: no RPC endpoint answered")
        if flight.error is not None:
            raise flight.error
        return Receipt("", self.rpc.said(flight.slot), 0, ())

    async def _expire(self, deadline: float, label: str) -> None:
        await trio.sleep_until(deadline)
        await self._edge()
        raise TransactionExpired(f"{label}: not confirmed in time")


class _Flight:
    """A transaction on its way."""

    def __init__(self, chain: SimChain, instructions: list[Instruction], payer: Pubkey, label: str) -> None:
        self._chain, self._instructions, self._payer, self._label = chain, instructions, payer, label
        self.landed = trio.Event()
        self.slot = 0
        self.error: PsycheError | None = None

    async def land(self, delay_s: float, again: bool) -> None:
        host.set(None)
        await trio.sleep(delay_s)
        while self._chain.clock.halted:
            await trio.sleep(SLOT_S)
        try:
            self.slot = self._chain.send(self._instructions, self._payer, self._label)
        except PsycheError as error:
            self.error = error
        self.landed.set()
        if again:
            try:
                self._chain.send(self._instructions, self._payer, self._label)
            except PsycheError:
                return


class SimPort(ChainPort):
    """`ChainPort`; what it reads of the run is not decoded once for every member."""

    def __init__(self, sender: SimSender, wallet: Keypair, *, p2p_key: bytes, tier: int, weight: int) -> None:
        run = sender.rpc.chain.run
        super().__init__(sender, run, wallet, p2p_key=p2p_key, tier=tier, weight=weight)  # type: ignore[arg-type]
        self._rpc = sender.rpc

    async def snapshot(self) -> Snapshot:
        slot, unix_s = await self._rpc.ask()
        return Snapshot(at_slot(self._rpc.chain.seen_at(slot), self._rpc.said(slot)), unix_s)

    async def members(self) -> list[Member]:
        await self._rpc.ask()
        return self._rpc.chain.members()
