"""The run on chain, as `psyche_chain.client.ports.Chain` wants it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from psyche_chain.chain import accounts, ids
from psyche_chain.chain import instructions as ix
from psyche_chain.chain.errors import ProgramError
from psyche_chain.chain.sender import Sender
from psyche_chain.chain.state import Checkpoint, SlotStatus, set_to_bits
from psyche_chain.client.ports import Member, NotYet, Refused, Snapshot
from psyche_chain.client.view import ChainView

DUTY_DEADLINE_S = 60.0
"""Longest time for one transaction; the duty is decided again if it is still owed."""


class ChainPort:
    """Reads the run and signs for one member.

    The sender's payer is the hot key if there is one, else the wallet; joining is signed by the wallet too.
    """

    def __init__(
        self,
        sender: Sender,
        run: accounts.Run,
        wallet: Keypair,
        *,
        p2p_key: bytes,
        tier: int,
        weight: int,
    ) -> None:
        self._sender = sender
        self._run = run
        self._wallet = wallet
        self._p2p_key = p2p_key
        self._tier = tier
        self._weight = weight

    @property
    def _signer(self) -> Pubkey:
        return self._sender.payer.pubkey()

    async def snapshot(self) -> Snapshot:
        """The newest state, with the chain's clock at the same slot."""
        found = await accounts.fetch_snapshot(self._sender.rpc, self._run, deadline_s=5.0)
        return Snapshot(ChainView.of(found.state), found.clock)

    async def confirm(self, checkpoint: Checkpoint) -> None:
        """Make sure that most of the endpoints that answer show this checkpoint.

        Raises:
            NotYet: they do not; the message names those that show another one.
        """
        rpc = self._sender.rpc
        shown = await accounts.checkpoint_everywhere(rpc, self._run)
        others = [rpc.names[number] for number, found in shown.items() if not found.is_same(checkpoint)]
        if 2 * len(others) >= len(shown):
            who = ", ".join(others) or "none answered"
            raise NotYet(
                f"the checkpoint of step {checkpoint.step} is shown by {len(shown) - len(others)} of "
                f"{len(shown)} RPC endpoints that answered, and more than half must show it before the own "
                f"weights are given up (others: {who}); add honest endpoints with --rpc if this stays"
            )

    async def members(self) -> list[Member]:
        """All memberships of the run."""
        found = await accounts.fetch_memberships(self._sender.rpc, self._run.run_state)
        return [Member(m.slot, m.wallet, m.p2p_key, m.contact) for m in found]

    async def join(self, contact: str) -> int:
        """Become a member; while the table is full, departed members are settled, which frees their slots."""
        authorization = None
        if not self._run.open:
            found = await accounts.find_authorization(
                self._sender.rpc, self._run.join_authority, self._wallet.pubkey()
            )
            authorization = found.key if found else None
        instruction = ix.join(
            payer=self._signer,
            wallet=self._wallet.pubkey(),
            run=self._run.key,
            run_state=self._run.run_state,
            authorization=authorization,
            hot_key=self._signer,
            p2p_key=self._p2p_key,
            tier=self._tier,
            weight=self._weight,
            contact=contact,
        )
        try:
            return await self._send("join", instruction)
        except Refused as error:
            if error.name != "TableFull":
                raise
            full = error
        state = await accounts.fetch_state(self._sender.rpc, self._run)
        for slot in state.members():
            if slot.status is not SlotStatus.DEPARTED:
                continue
            await self._send("settle", ix.settle(run_state=self._run.run_state, wallet=slot.wallet))
            try:  # a round that is not closed may still need the slot
                return await self._send("join", instruction)
            except Refused as error:
                if error.name != "TableFull":
                    raise
        raise full

    async def leave(self, slot: int) -> int:
        """Stop being a member."""
        return await self._send("leave", ix.leave(slot, **self._duty))

    async def update_contact(self, contact: str) -> int:
        """Write the own addresses."""
        membership = ids.membership_address(self._run.run_state, self._wallet.pubkey())
        instruction = ix.update_contact(contact, signer=self._signer, membership=membership)
        return await self._send("update contact", instruction)

    async def ready(self, slot: int) -> int:
        """Say that the weights are at the head of the log."""
        return await self._send("ready", ix.ready(slot, **self._duty))

    async def commit(self, slot: int, round: int, blob_id: bytes) -> int:
        """Commit a blob."""
        return await self._send(f"commit round {round}", ix.commit(slot, round, blob_id, **self._duty))

    async def witness(self, slot: int, round: int, seen: Collection[int]) -> int:
        """Attest the blobs of these slots."""
        bitmap = set_to_bits(frozenset(seen))
        return await self._send(f"witness round {round}", ix.witness(slot, round, bitmap, **self._duty))

    async def attest(self, slot: int, step: int, digests: Sequence[bytes]) -> int:
        """Vote for the weights."""
        instruction = ix.attest_checkpoint(slot, step, digests, **self._duty)
        return await self._send(f"attest step {step}", instruction)

    async def record(self, slot: int, uri: str) -> int:
        """Say where the agreed checkpoint is."""
        return await self._send("record checkpoint", ix.record_checkpoint(slot, uri, **self._duty))

    async def tick(self) -> int:
        """Move the run on."""
        return await self._send("tick", ix.tick(run_state=self._run.run_state))

    @property
    def _duty(self) -> dict[str, Pubkey]:
        return {"signer": self._signer, "run_state": self._run.run_state}

    async def _send(self, label: str, instruction: Instruction) -> int:
        """Send one instruction; any of them can make a whole chain of phases due."""
        try:
            receipt = await self._sender.send(
                [instruction],
                [self._wallet],
                label=label,
                min_units=ix.TICKING_UNITS,
                deadline_s=DUTY_DEADLINE_S,
            )
        except ProgramError as error:
            raise Refused(error.name, str(error)) from error
        return receipt.slot
