"""Send transactions so that they land once, or are known never to land.

A transaction is simulated first: its compute units set the limit, and a refusal is told before anything is
paid. It is then signed, sent to the best endpoint, and sent again every two seconds to all of them, until one
shows it confirmed or most of those that answer have made as many blocks since as a blockhash lives. What an
endpoint says of the blockhash's end is not relied upon: one that lies must not make a transaction run twice.
Only after that, and when no endpoint's history has it, is it simulated again and built anew with a fresh
blockhash.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import trio
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import Transaction

from psyche_chain.chain import queries
from psyche_chain.chain.errors import RpcError, RpcUnavailable, TransactionExpired
from psyche_chain.chain.failure import explain
from psyche_chain.chain.rpc import RpcPool

logger = logging.getLogger(__name__)

MAX_TRANSACTION_BYTES: Final = 1232
MAX_UNITS: Final = 1_400_000
UNIT_MARGIN: Final = 1.2
"""Limit over the simulated compute units: state may change between the simulation and the landing."""
UNIT_FLOOR: Final = 2_000
RESEND_S: Final = 2.0
FIRST_POLL_S: Final = 0.1
MAX_POLL_S: Final = 1.0
FEES_TTL_S: Final = 30.0
BLOCKHASH_BLOCKS: Final = 150
"""Blocks after its own for which a blockhash is valid."""
LAMPORTS_PER_SIGNATURE: Final = 5_000


@dataclass(frozen=True, slots=True)
class Receipt:
    """A transaction that was confirmed."""

    signature: str
    slot: int
    units: int
    """Compute units of the simulation."""
    logs: tuple[str, ...]
    """Log lines of the simulation, which ran on the state just before."""


@dataclass(frozen=True, slots=True)
class Landed:
    """A transaction that the chain took, whether it succeeded or not; its fee is paid."""

    signature: str
    label: str
    base_fee: int
    """Lamports."""
    priority_fee: int
    """Lamports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendPolicy:
    """Limits of a `Sender`."""

    deadline_s: float = 90.0
    """Longest time for one `send`, new blockhashes included."""
    priority_fee: int | None = None
    """Micro-lamports per compute unit; None: what others paid lately."""
    max_fee_micro_lamports: int | None = 100_000
    """Cap of the priority fee, per compute unit."""
    max_fee_lamports: int | None = None
    """Cap of the priority fee, per transaction."""
    fee_percentile: float = 0.75
    """Of the recent fees paid for the same writable accounts."""


class Sender:
    """Signs for one paying wallet and sends through a pool."""

    def __init__(self, rpc: RpcPool, payer: Keypair, policy: SendPolicy | None = None) -> None:
        self.rpc = rpc
        self.payer = payer
        self.policy = policy or SendPolicy()
        self.landed: list[Landed] = []
        """What this sender brought on chain, oldest first."""
        self._unheard: RpcError | None = None
        """Why nothing is known of the transaction that was sent."""
        self._fee = 0
        self._fee_at = float("-inf")

    @property
    def wallet(self) -> Pubkey:
        """The paying wallet."""
        return self.payer.pubkey()

    def fits(self, instructions: Sequence[Instruction]) -> bool:
        """Whether these instructions, with the compute budget's two, stay within one transaction."""
        budget = [set_compute_unit_limit(MAX_UNITS), set_compute_unit_price(1)]
        message = Message([*budget, *instructions], self.wallet)
        size = 1 + 64 * message.header.num_required_signatures + len(bytes(message))
        return size <= MAX_TRANSACTION_BYTES

    async def simulate(self, instructions: Sequence[Instruction], *, label: str = "") -> queries.Simulation:
        """Dry-run the instructions.

        Raises:
            ProgramError, FundsError: they would be refused.
        """
        budget = [set_compute_unit_limit(MAX_UNITS)]
        message = Message([*budget, *instructions], self.wallet)
        unsigned = Transaction.new_unsigned(message)
        result = await queries.simulate(self.rpc, bytes(unsigned))
        if result.err is not None:
            raise explain(
                result.err,
                instructions=[*budget, *instructions],
                logs=result.logs,
                label=label,
                payer=str(self.wallet),
            )
        return result

    async def send(
        self,
        instructions: Sequence[Instruction],
        signers: Sequence[Keypair] = (),
        *,
        label: str,
        min_units: int = 0,
        deadline_s: float | None = None,
    ) -> Receipt:
        """Send until confirmed.

        Args:
            instructions: without compute-budget ones; they are added.
            signers: besides the payer.
            label: what is being done, in the user's words; begins every error message.
            min_units: least compute-unit limit, for instructions that may have to do more than the simulation
            showed (one that can make a phase due needs 200,000).
            deadline_s: instead of the policy's.

        Raises:
            ProgramError, FundsError: the instructions were refused; nothing changed.
            TransactionExpired: it did not land in time and never will.
            RpcUnavailable: no endpoint answers; whether it landed is unknown.
        """
        limit_s = self.policy.deadline_s if deadline_s is None else deadline_s
        deadline = trio.current_time() + limit_s
        signature: str | None = None
        self._unheard = None
        with trio.move_on_at(deadline):
            dry = await self.simulate(instructions, label=label)
            units = min(MAX_UNITS, max(min_units, UNIT_FLOOR + int(dry.units * UNIT_MARGIN)))
            budget = [set_compute_unit_limit(units)]
            if price := await self._price(instructions, units):
                budget.append(set_compute_unit_price(price))
            all_instructions = [*budget, *instructions]
            while True:
                blockhash, _ = await queries.latest_blockhash(self.rpc)
                transaction = self._sign(all_instructions, signers, blockhash)
                signature = str(transaction.signatures[0])
                status = await self._land(transaction, signature)
                if status is None:
                    logger.info("transaction expired label=%s signature=%s", label, signature)
                    await self.simulate(instructions, label=label)  # it may make no sense any more
                    continue
                self.rpc.observe(status.slot)
                base_fee = LAMPORTS_PER_SIGNATURE * len(transaction.signatures)
                self.landed.append(Landed(signature, label, base_fee, -(-units * price // 1_000_000)))
                if status.err is not None:
                    logs = await queries.transaction_logs(self.rpc, signature)
                    raise explain(
                        status.err,
                        instructions=all_instructions,
                        logs=logs,
                        label=label,
                        payer=str(self.wallet),
                    )
                return Receipt(signature, status.slot, dry.units, dry.logs)
        if self._unheard is not None:
            raise RpcUnavailable(
                f"{label}: whether it landed is unknown (signature {signature}): {self._unheard.message}",
                hint="it may still land: look with psyche-chain status RUN before running the command again",
            )
        raise TransactionExpired(
            f"{label}: not confirmed within {limit_s:g} s"
            + (f" (last signature {signature})" if signature else ""),
            "the cluster may be busy; look with psyche-chain status RUN, then run the command again",
        )

    def _sign(
        self, instructions: Sequence[Instruction], signers: Sequence[Keypair], blockhash: Hash
    ) -> Transaction:
        message = Message.new_with_blockhash(list(instructions), self.wallet, blockhash)
        required = set(message.account_keys[: message.header.num_required_signatures])
        unique = {k.pubkey(): k for k in [self.payer, *signers] if k.pubkey() in required}
        return Transaction(list(unique.values()), message, blockhash)

    async def _land(self, transaction: Transaction, signature: str) -> queries.SignatureStatus | None:
        """Send until confirmed; None once its blockhash has expired without it having landed."""
        raw = bytes(transaction)
        first_heights: dict[int, int] = {}
        await self._send_raw(raw)
        while True:
            send_again, poll_s = trio.current_time() + RESEND_S, FIRST_POLL_S
            while trio.current_time() < send_again:
                await trio.sleep(poll_s)
                poll_s = min(MAX_POLL_S, poll_s * 1.5)
                try:
                    status = (await queries.signature_statuses(self.rpc, [signature]))[0]
                except RpcError as exc:  # it may have landed all the same: go on asking
                    self._unheard = exc
                    continue
                self._unheard = None
                if status is not None and status.confirmed:
                    return status
            # Asked in this order: heights past the limit, then still no status, is final.
            expired = self._is_expired(await queries.block_heights(self.rpc), first_heights)
            everywhere = await queries.status_everywhere(self.rpc, signature)
            known = [status for status in everywhere.values() if status is not None]
            if confirmed := [status for status in known if status.confirmed]:
                return confirmed[0]
            if expired and everywhere and not known:
                return None
            await queries.send_raw(self.rpc, raw, to_all=True)

    @staticmethod
    def _is_expired(heights: Mapping[int, int], first: dict[int, int]) -> bool:
        """Whether most endpoints saw as many blocks as a blockhash lives since they were `first` asked."""
        past = sum(h > first.setdefault(endpoint, h) + BLOCKHASH_BLOCKS for endpoint, h in heights.items())
        return 2 * past > len(heights)

    async def _send_raw(self, raw: bytes) -> None:
        try:
            await queries.send_raw(self.rpc, raw)
        except RpcUnavailable as exc:
            logger.warning("send failed, will try again: %s", exc)
        except (
            RpcError
        ) as exc:  # "already processed", "blockhash not found" on a node behind: the status decides
            logger.debug("send refused: %s", exc)

    async def _price(self, instructions: Sequence[Instruction], units: int) -> int:
        """Micro-lamports per compute unit: what the policy says, or others paid lately, up to the caps."""
        price = self.policy.priority_fee
        if price is None:
            price = await self._recent_price(instructions)
        if (cap := self.policy.max_fee_micro_lamports) is not None:
            price = min(price, cap)
        if (most := self.policy.max_fee_lamports) is not None:
            price = min(price, most * 1_000_000 // units)
        return price

    async def _recent_price(self, instructions: Sequence[Instruction]) -> int:
        """A percentile of the recent fees for the same writable accounts; asked for twice a minute."""
        if 0 in (self.policy.max_fee_micro_lamports, self.policy.max_fee_lamports):
            return 0
        if trio.current_time() - self._fee_at > FEES_TTL_S:
            writable = {m.pubkey for ix in instructions for m in ix.accounts if m.is_writable}
            fees = sorted(await queries.recent_fees(self.rpc, sorted(writable, key=bytes)))
            at = min(len(fees) - 1, int(len(fees) * self.policy.fee_percentile))
            self._fee = fees[at] if fees else 0
            self._fee_at = trio.current_time()
        return self._fee


async def confirm(rpc: RpcPool, signature: str, *, deadline_s: float = 30.0) -> queries.SignatureStatus:
    """Wait until a transaction that somebody else sent (a faucet) is confirmed.

    Raises:
        TransactionExpired: it was not seen in time.
    """
    with trio.move_on_after(deadline_s):
        poll_s = FIRST_POLL_S
        while True:
            status = (await queries.signature_statuses(rpc, [signature]))[0]
            if status is not None and status.confirmed:
                rpc.observe(status.slot)
                return status
            await trio.sleep(poll_s)
            poll_s = min(MAX_POLL_S, poll_s * 1.5)
    raise TransactionExpired(f"transaction {signature} was not confirmed within {deadline_s:g} s")
