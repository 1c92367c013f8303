"""The run of one schedule on chain: what it shows at every moment of simulated time, and its operator.

Every state that the run was in is kept: a node that lags shows an old one, and the checks go through all.
"""

from __future__ import annotations

import bisect
import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import trio
from solders.account import Account
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import CreateAccountParams, create_account

from localnet.simulator.machine import Machine
from localnet.simulator.plan import Plan
from psyche_chain.chain import accounts, ids, layout, money, queries
from psyche_chain.chain.instructions import CreateRunArgs
from psyche_chain.chain.state import ChainConfig, RunState
from psyche_chain.client.ports import Member
from psyche_chain.client.view import ChainView

SLOT_S = 0.4
FIRST_SLOT = 1000
GENESIS_UNIX_S = 1_700_000_000
SOL = 10**9
CAPACITY = 8
SPEC = b'{"simulated": true}'
PAY_PER_TIER = (3, 2, 1, 1)
MAX_WEIGHT = 10
_OF_MEMBERS = ("join", "settle", "update contact", "claim")
"""Labels of transactions that change membership accounts."""


@dataclass(frozen=True, slots=True)
class Shown:
    """The run as it was from a moment on."""

    since_s: float
    slot: int
    state: RunState
    view: ChainView


def key_of(*parts: object) -> Keypair:
    """A keypair that is the same in every schedule of that name."""
    return Keypair.from_seed(hashlib.sha256(repr(parts).encode()).digest())


class ChainClockModel:
    """The chain's Unix time and slot as functions of simulated time: it may drift, and stop for a while."""

    def __init__(self) -> None:
        self._at_s = 0.0
        self._chain_s = 0.0
        self._slots = 0.0
        self.rate = 1.0
        """Chain seconds for a second."""
        self.halted = False

    def advance(self, now_s: float) -> tuple[int, int]:
        """Slot and Unix time at a moment that is not before the last one."""
        passed = max(0.0, now_s - self._at_s)
        self._at_s = now_s
        if not self.halted:
            self._chain_s += passed * self.rate
            self._slots += passed / SLOT_S
        return FIRST_SLOT + int(self._slots), GENESIS_UNIX_S + int(self._chain_s)


class SimChain:
    """The run's accounts on the machine."""

    def __init__(self, machine: Machine, plan: Plan, wallets: Sequence[Keypair]) -> None:
        self._machine = machine
        self._plan = plan
        self.clock = ChainClockModel()
        self.operator = key_of("operator").pubkey()
        self.run_state = key_of("run state").pubkey()
        self.mint = key_of("mint").pubkey()
        self.shown: list[Shown] = []
        self.sent = 0
        """Transactions that were carried out."""
        self.on_change: Callable[[Shown], None] = lambda shown: None
        self._started_s = trio.current_time()
        self._members: list[Member] | None = None
        self._last_slot = 0
        self._bytes = b""
        machine.wipe()
        self._create(wallets)

    @property
    def now_s(self) -> float:
        """Seconds since the schedule began."""
        return trio.current_time() - self._started_s

    @property
    def newest(self) -> Shown:
        return self.shown[-1]

    def moment(self) -> tuple[int, int]:
        """The chain's slot and Unix time now; both are set on the machine."""
        slot, unix_s = self.clock.advance(self.now_s)
        if slot != self._last_slot:
            self._machine.set_time(slot, unix_s)
            self._last_slot = slot
        return slot, unix_s

    def send(self, instructions: Sequence[Instruction], payer: Pubkey, label: str) -> int:
        """Carry out a transaction now and return its slot.

        Raises:
            PsycheError: it was refused.
        """
        slot, _ = self.moment()
        self._machine.send(instructions, payer, label)
        self.sent += 1
        if label.startswith(_OF_MEMBERS):
            self._members = None
        self._look(slot)
        return slot

    def seen_at(self, slot: int) -> Shown:
        """What a node that knows all of that slot, and nothing later, shows."""
        index = bisect.bisect_right(self.shown, slot, key=lambda shown: shown.slot)
        return self.shown[max(0, index - 1)]

    def members(self) -> list[Member]:
        """All memberships."""
        if self._members is None:
            found = []
            for slot in self.newest.state.members():
                account = self._machine.account(ids.membership_address(self.run_state, slot.wallet))
                if account is not None:
                    m = accounts.decode_membership(account)
                    found.append(Member(m.slot, m.wallet, m.p2p_key, m.contact))
            self._members = sorted(found, key=lambda m: (m.slot, str(m.wallet)))
        return list(self._members)

    def account(self, key: Pubkey) -> queries.Account | None:
        return self._machine.account(key)

    def set_lamports(self, wallet: Pubkey, lamports: int) -> None:
        """Empty or fill a wallet."""
        self._machine.airdrop(wallet, lamports)

    def set_paused(self, paused: bool) -> None:
        """What the operator's `pause` and `resume` send."""
        self.send([self._pool.set_paused(paused)], self.operator, "pause")

    def claim(self, wallet: Pubkey) -> int:
        """Claim a wallet's pay through the treasurer; return the tokens that it then holds."""
        instruction = money.claim(
            payer=self.operator,
            wallet=wallet,
            run=self.run.key,
            run_state=self.run_state,
            mint=self.mint,
            vault=self._vault,
            token_program=ids.TOKEN_ID,
        )
        create = money.create_token_account(payer=self.operator, owner=wallet, mint=self.mint)
        self.send([create, instruction], self.operator, "claim")
        return accounts.token_amount(self.account(ids.token_account_address(wallet, self.mint)))

    # how it begins

    def _create(self, wallets: Sequence[Keypair]) -> None:
        machine, plan, operator = self._machine, self._plan, self.operator
        for holder in (operator, *(w.pubkey() for w in wallets)):
            machine.airdrop(holder, 1000 * SOL)
        machine.set_account(self.mint, _mint_account(machine, operator))
        size = layout.run_state_size(CAPACITY)
        args = CreateRunArgs(
            run_id="simulated",
            name="A schedule",
            description="",
            authority=operator,
            join_authority=operator,
            min_client_version="0.1.0",
            spec_len=len(SPEC),
            spec_sha256=hashlib.sha256(SPEC).digest(),
        )
        run_key = ids.run_address(operator, args.run_id)
        self._pool = money.PoolActions(
            payer=operator, authority=operator, run=run_key, run_state=self.run_state
        )
        self._vault = ids.token_account_address(ids.pool_address(self.run_state), self.mint)
        self.moment()
        account = create_account(
            CreateAccountParams(
                from_pubkey=operator,
                to_pubkey=self.run_state,
                lamports=machine.rent(size),
                space=size,
                owner=ids.COORDINATOR_ID,
            )
        )
        pool = money.create_pool(
            args,
            payer=operator,
            authority=operator,
            run_state=self.run_state,
            mint=self.mint,
            token_program=ids.TOKEN_ID,
        )
        machine.send([account, pool], operator, "create")
        for instructions in (
            [self._pool.write_spec(0, SPEC), self._pool.seal_spec()],
            [self._pool.configure(config_of(plan)), self._pool.set_round_rate(plan.round_rate)],
            [self._pool.set_paused(False)],
            [money.mint_to(self.mint, self._vault, 10**15, authority=operator)],
        ):
            machine.send(instructions, operator, "set up")
        for wallet in wallets:
            grantee = wallet.pubkey()
            machine.send(
                [
                    money.create_authorization(
                        grantee, payer=operator, grantor=operator, max_weight=MAX_WEIGHT
                    ),
                    money.set_active(True, grantor=operator, grantee=grantee),
                ],
                operator,
                "authorize",
            )
        found = machine.account(run_key)
        assert found is not None
        self.run = accounts.decode_run(found)
        self._look(FIRST_SLOT)

    def _look(self, slot: int) -> None:
        found = self._machine.account(self.run_state)
        assert found is not None
        if self.shown and found.data == self._bytes:
            return
        self._bytes = found.data
        state = RunState.from_account(found.data, owner=found.owner, slot=slot)
        self.shown.append(Shown(self.now_s, slot, state, ChainView.of(state)))
        self.on_change(self.shown[-1])


def config_of(plan: Plan) -> ChainConfig:
    """The run's rules: waits are short, so that a schedule sees many rounds."""
    return ChainConfig(
        warmup_time=30,
        cooldown_time=30,
        max_round_train_time=20,
        round_witness_time=10,
        epoch_time=plan.epoch_time_s,
        waiting_for_members_extra_time=2,
        global_batch_size_warmup_tokens=0,
        total_steps=plan.total_steps,
        global_batch_size_start=plan.batch,
        global_batch_size_end=plan.batch,
        max_seq_len=16,
        pay_per_tier=PAY_PER_TIER,
        init_min_clients=min(len(plan.tiers), max(2, plan.min_clients)),
        min_clients=plan.min_clients,
        min_full_members=1,
        witness_nodes=plan.witness_nodes,
        max_missed=3,
        max_failed_warmups=plan.max_failed_warmups,
        max_tier=max(1, *plan.tiers),
    )


def at_slot(shown: Shown, slot: int) -> ChainView:
    """The view as a node shows it at `slot`."""
    return shown.view if shown.view.chain_slot == slot else replace(shown.view, chain_slot=slot)


def _mint_account(machine: Machine, authority: Pubkey) -> Account:
    data = struct.pack("<I32sQBBI32s", 1, bytes(authority), 0, 6, 1, 0, bytes(32))
    return Account(machine.rent(len(data)), data, ids.TOKEN_ID)
