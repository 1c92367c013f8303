"""A LiteSVM with the three programs, and runs and members that act on it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solders.clock import Clock
from solders.compute_budget import set_compute_unit_limit
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import Message
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM
from solders.system_program import CreateAccountParams, create_account
from solders.token import ID as TOKEN
from solders.token.associated import get_associated_token_address
from solders.transaction import Transaction
from solders.transaction_metadata import FailedTransactionMetadata
from solders.transaction_status import InstructionErrorCustom

from tests.programs.borsh_idl import Idl
from tests.programs.run_state_view import View, account_size, read

PROGRAMS = Path(__file__).parents[2] / "psyche_chain" / "programs"
COORDINATOR, AUTHORIZER, TREASURER = (
    Idl(PROGRAMS / f"{name}.json") for name in ("coordinator", "authorizer", "treasurer")
)
SLOT_HASHES = Pubkey.from_string("SysvarS1otHashes111111111111111111111111111")
INSTRUCTIONS = Pubkey.from_string("Sysvar1nstructions1111111111111111111111111")
ASSOCIATED = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
TOKEN_2022 = Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
ANCHOR_ERRORS = {
    102: "InstructionDidNotDeserialize",
    2000: "ConstraintMut",
    2003: "ConstraintRaw",
    2011: "ConstraintClose",
    2006: "ConstraintSeeds",
    2012: "ConstraintAddress",
    2014: "ConstraintTokenMint",
    2015: "ConstraintTokenOwner",
    2040: "ConstraintDuplicateMutableAccount",
    2022: "ConstraintMintTokenProgram",
    3002: "AccountDiscriminatorMismatch",
    3007: "AccountOwnedByWrongProgram",
    3008: "InvalidProgramId",
    3010: "AccountNotSigner",
    3012: "AccountNotInitialized",
}
JOIN_SCOPE = b"CoordinatorJoinRun"
SPEC = b'{"architecture": "HfLlama"}' * 40
OPEN = Pubkey.default()


class Refused(Exception):
    """A transaction failed; `name` is the error of `program` (the first that failed), or the runtime's words."""

    def __init__(self, name: str, logs: list[str]) -> None:
        super().__init__(name + "\n" + "\n".join(logs))
        self.name = name
        self.program = failing_program(logs)


@dataclass
class Receipt:
    units: int
    logs: list[str]
    size: int
    events: list[tuple[str, dict[str, Any]]]

    def event(self, name: str) -> dict[str, Any]:
        """The only event of that name."""
        (found,) = [fields for n, fields in self.events if n == name]
        return found


def seed(*parts: bytes | Pubkey, idl: Idl) -> Pubkey:
    return Pubkey.find_program_address([bytes(p) for p in parts], idl.program)[0]


class Chain:
    """The chain: its clock, its slot hashes, and somebody with money."""

    def __init__(self) -> None:
        self.svm = LiteSVM()
        self.num_keys = 0
        self.budget = [set_compute_unit_limit(1_400_000)]
        for idl in (COORDINATOR, AUTHORIZER, TREASURER):
            name = {COORDINATOR: "coordinator", AUTHORIZER: "authorizer", TREASURER: "treasurer"}[idl]
            self.svm.add_program(idl.program, (PROGRAMS / f"{name}.so").read_bytes())
        self.rich = self.keypair(10_000)
        self.slot = 100
        self.now = 1_000_000
        self.pass_time(0)

    def fresh_key(self) -> Keypair:
        """A key that nobody has yet; the same ones in every run, so that compute units are too."""
        self.num_keys += 1
        return Keypair.from_seed(hashlib.sha256(self.num_keys.to_bytes(8, "little")).digest())

    def keypair(self, sol: int = 10) -> Keypair:
        """A fresh key with money."""
        key = self.fresh_key()
        self.airdrop(key.pubkey(), sol)
        return key

    def airdrop(self, key: Pubkey, sol: int) -> None:
        """Money out of nowhere."""
        self.svm.airdrop(key, sol * 10**9)

    def pass_time(self, seconds: int) -> None:
        """Move the clock and make a new slot."""
        self.now += seconds
        self.slot += 1
        clock = self.svm.get_clock()
        self.svm.set_clock(
            Clock(self.slot, clock.epoch_start_timestamp, clock.epoch, clock.leader_schedule_epoch, self.now)
        )
        newest = Hash(hashlib.sha256(str(self.slot).encode()).digest())
        self.svm.set_slot_hashes([(self.slot, newest), (self.slot - 1, Hash.default())])

    def send(self, instructions: list[Instruction] | Instruction, *signers: Keypair) -> Receipt:
        """Send; the first signer pays, or the rich one.

        Raises:
            Refused: by a program or the runtime.
        """
        if isinstance(instructions, Instruction):
            instructions = [instructions]
        instructions = [*self.budget, *instructions]
        self.svm.expire_blockhash()
        keys = [self.rich, *dict.fromkeys(k for k in signers if k != self.rich)]
        blockhash = self.svm.latest_blockhash()
        message = Message.new_with_blockhash(instructions, self.rich.pubkey(), blockhash)
        tx = Transaction(keys, message, blockhash)
        result = self.svm.send_transaction(tx)
        failed = isinstance(result, FailedTransactionMetadata)
        meta = result.meta() if failed else result
        if failed:
            raise Refused(error_name(result, meta.logs()), meta.logs())
        events = [e for idl in (COORDINATOR, AUTHORIZER, TREASURER) for e in idl.decode_events(meta.logs())]
        return Receipt(meta.compute_units_consumed(), meta.logs(), len(bytes(tx)), events)

    def data(self, key: Pubkey) -> bytes | None:
        account = self.svm.get_account(key)
        return None if account is None or account.lamports == 0 else bytes(account.data)

    def lamports(self, key: Pubkey) -> int:
        return self.svm.get_balance(key) or 0

    def mint(
        self, authority: Keypair, program: Pubkey = TOKEN, extension: bytes = b"", space: int = 82
    ) -> Pubkey:
        """A new mint with 6 decimals; `extension` is one instruction that comes before the initialisation."""
        key = self.fresh_key()
        rent = self.svm.minimum_balance_for_rent_exemption(space)
        account = CreateAccountParams(
            from_pubkey=self.rich.pubkey(), to_pubkey=key.pubkey(), lamports=rent, space=space, owner=program
        )
        meta = [AccountMeta(key.pubkey(), False, True)]
        before = [Instruction(program, extension, meta)] if extension else []
        init = Instruction(
            program, bytes([20, 6]) + bytes(authority.pubkey()) + b"\1" + bytes(authority.pubkey()), meta
        )
        self.send([create_account(account), *before, init], key)
        return key.pubkey()

    def mint_to(
        self, mint: Pubkey, authority: Keypair, to: Pubkey, amount: int, program: Pubkey = TOKEN
    ) -> None:
        metas = [
            AccountMeta(mint, False, True),
            AccountMeta(to, False, True),
            AccountMeta(authority.pubkey(), True, False),
        ]
        self.send(Instruction(program, b"\x07" + amount.to_bytes(8, "little"), metas), authority)

    def token_account(self, mint: Pubkey, owner: Pubkey, program: Pubkey = TOKEN) -> Pubkey:
        key = get_associated_token_address(owner, mint, program)
        metas = [
            AccountMeta(self.rich.pubkey(), True, True),
            AccountMeta(key, False, True),
            AccountMeta(owner, False, False),
            AccountMeta(mint, False, False),
            AccountMeta(SYSTEM, False, False),
            AccountMeta(program, False, False),
        ]
        self.send(Instruction(ASSOCIATED, b"\x01", metas))
        return key

    def tokens(self, key: Pubkey) -> int:
        data = self.data(key)
        return 0 if data is None else int.from_bytes(data[64:72], "little")


def failing_program(logs: list[str]) -> str:
    """The address of the program that failed first, by an error of its own; empty if none did."""
    return next((line.split()[1] for line in logs if " failed: custom program error" in line), "")


def error_name(result: FailedTransactionMetadata, logs: list[str]) -> str:
    """The name of a program's error, by the program that failed first; otherwise the runtime's words."""
    cause = getattr(result.err(), "err", None)
    if not isinstance(cause, InstructionErrorCustom):
        return str(result.err())
    code = cause.code
    failing = failing_program(logs)
    for idl in (COORDINATOR, AUTHORIZER, TREASURER):
        if failing == str(idl.program):
            return idl.errors.get(code) or ANCHOR_ERRORS.get(code, str(code))
    return f"{failing}: {code}"


def config(**changes: Any) -> dict[str, Any]:
    """Rules for three members and short waits."""
    values: dict[str, Any] = {
        "warmup_time": 60,
        "cooldown_time": 60,
        "max_round_train_time": 60,
        "round_witness_time": 30,
        "epoch_time": 10_000,
        "waiting_for_members_extra_time": 0,
        "global_batch_size_warmup_tokens": 0,
        "total_steps": 4,
        "global_batch_size_start": 8,
        "global_batch_size_end": 8,
        "max_seq_len": 16,
        "pay_per_tier": [1, 1, 1, 1],
        "init_min_clients": 3,
        "min_clients": 1,
        "min_full_members": 1,
        "witness_nodes": 0,
        "max_missed": 3,
        "max_failed_warmups": 3,
        "max_tier": 1,
    }
    assert not set(changes) - set(values)
    return values | changes


@dataclass
class Member:
    """A wallet with its own hot key."""

    wallet: Keypair
    hot_key: Keypair
    p2p_key: bytes
    tier: int = 0
    weight: int = 1
    slot: int = -1
    authorization: Pubkey | None = None


@dataclass
class Run:
    """A run and whoever may steer it: its creator, straight or through a pool."""

    chain: Chain
    run_id: str = "llama-20m"
    capacity: int = 16
    join_authority: Pubkey = OPEN
    spec: bytes = SPEC
    mint: Pubkey | None = None
    creator: Keypair = None  # type: ignore[assignment]
    log: Keypair = None  # type: ignore[assignment]
    token_program: Pubkey = TOKEN

    def __post_init__(self) -> None:
        self.creator = self.creator or self.chain.fresh_key()
        self.log = self.log or self.chain.fresh_key()
        self.chain.airdrop(self.creator.pubkey(), 100)

    @property
    def key(self) -> Pubkey:
        return seed(b"run", self.creator.pubkey(), self.run_id.encode(), idl=COORDINATOR)

    @property
    def spec_key(self) -> Pubkey:
        return seed(b"spec", self.key, idl=COORDINATOR)

    @property
    def pool(self) -> Pubkey:
        return seed(b"pool", self.log.pubkey(), idl=TREASURER)

    @property
    def vault(self) -> Pubkey:
        assert self.mint is not None
        return get_associated_token_address(self.pool, self.mint, self.token_program)

    @property
    def accounts(self) -> dict[str, Pubkey | None]:
        """Every account that an instruction may name, but the members'."""
        named: dict[str, Pubkey | None] = {
            "payer": self.chain.rich.pubkey(),
            "creator": self.creator.pubkey(),
            "authority": self.creator.pubkey(),
            "recipient": self.creator.pubkey(),
            "run": self.key,
            "run_state": self.log.pubkey(),
            "spec": self.spec_key,
            "slot_hashes": SLOT_HASHES,
            "instructions": INSTRUCTIONS,
            "system_program": SYSTEM,
            "coordinator_program": COORDINATOR.program,
            "token_program": self.token_program,
            "associated_token_program": ASSOCIATED,
        }
        if self.mint is not None:
            own = get_associated_token_address(self.creator.pubkey(), self.mint, self.token_program)
            named |= {"pool": self.pool, "mint": self.mint, "vault": self.vault, "authority_token": own}
        return named

    def member_accounts(self, member: Member) -> dict[str, Pubkey | None]:
        wallet = member.wallet.pubkey()
        named = self.accounts | {
            "wallet": wallet,
            "signer": member.hot_key.pubkey(),
            "membership": self.membership(wallet),
            "authorization": member.authorization,
        }
        if self.mint is not None:
            named["claim"] = seed(b"claim", self.pool, wallet, idl=TREASURER)
            named["wallet_token"] = get_associated_token_address(wallet, self.mint, self.token_program)
        return named

    def membership(self, wallet: Pubkey) -> Pubkey:
        return seed(b"member", self.log.pubkey(), wallet, idl=COORDINATOR)

    # what the creator does

    def create(self, *, size: int | None = None, **changes: Any) -> Receipt:
        space = account_size(self.capacity) if size is None else size
        params = CreateAccountParams(
            from_pubkey=self.chain.rich.pubkey(),
            to_pubkey=self.log.pubkey(),
            lamports=self.chain.svm.minimum_balance_for_rent_exemption(space),
            space=space,
            owner=COORDINATOR.program,
        )
        ix = self.create_instruction(**changes)
        return self.chain.send([create_account(params), ix], self.creator, self.log)

    def create_instruction(self, **changes: Any) -> Instruction:
        """Of the coordinator or, with a mint, of the treasurer; the log's account must be there by then."""
        args = {
            "run_id": self.run_id,
            "name": "A run",
            "description": "Three members and a text",
            "authority": self.creator.pubkey(),
            "join_authority": self.join_authority,
            "min_client_version": "0.1.0",
            "spec_len": len(self.spec),
            "spec_sha256": hashlib.sha256(self.spec).digest(),
        } | changes
        idl, name = (COORDINATOR, "create_run") if self.mint is None else (TREASURER, "create_pool")
        return idl.instruction(name, self.accounts, args=args)

    def act(self, name: str, signer: Keypair | None = None, /, **args: Any) -> Receipt:
        """One of the authority's instructions, through the pool if there is one."""
        signer = signer or self.creator
        accounts = self.accounts | {"authority": signer.pubkey()}
        if self.mint is None or name in ("close_run", "close_pool"):
            idl = TREASURER if name == "close_pool" else COORDINATOR
            return self.chain.send(idl.instruction(name, accounts, **args), signer)
        variant = "".join(word.capitalize() for word in name.split("_"))
        return self.chain.send(TREASURER.instruction("update_pool", accounts, action=(variant, args)), signer)

    def write_spec(self, piece: int = 700) -> None:
        for at in range(0, len(self.spec), piece):
            self.act("write_spec", offset=at, bytes=self.spec[at : at + piece])

    def start(self, **changes: Any) -> None:
        """Create, write and seal, configure, resume."""
        self.create()
        self.write_spec()
        self.act("seal_spec")
        self.act("configure", config=config(**changes))
        self.act("set_paused", paused=False)

    # what members do

    def member(self, tier: int = 0, weight: int = 1) -> Member:
        wallet = self.chain.keypair()
        return Member(
            wallet, self.chain.fresh_key(), hashlib.sha256(bytes(wallet.pubkey())).digest(), tier, weight
        )

    def join_instruction(self, member: Member, **changes: Any) -> Instruction:
        args = {
            "hot_key": member.hot_key.pubkey(),
            "p2p_key": member.p2p_key,
            "tier": member.tier,
            "weight": member.weight,
            "contact": "/ip4/127.0.0.1/tcp/4001",
        } | changes
        return COORDINATOR.instruction("join", self.member_accounts(member), args=args)

    def join(self, member: Member, **changes: Any) -> Receipt:
        receipt = self.chain.send(self.join_instruction(member, **changes), member.wallet)
        member.slot = self.membership_of(member)["slot"]
        return receipt

    def duty(self, name: str, member: Member, signer: Keypair | None = None, **args: Any) -> Receipt:
        signer = signer or member.hot_key
        accounts = self.member_accounts(member) | {"signer": signer.pubkey()}
        args = {"slot": member.slot} | args
        return self.chain.send(COORDINATOR.instruction(name, accounts, **args), signer)

    def tick(self) -> Receipt:
        return self.chain.send(COORDINATOR.instruction("tick", self.accounts))

    def settle(self, member: Member) -> Receipt:
        return self.chain.send(COORDINATOR.instruction("settle", self.member_accounts(member)))

    def claim(self, member: Member) -> Receipt:
        return self.chain.send(TREASURER.instruction("claim", self.member_accounts(member)))

    # what anybody sees

    @property
    def state(self) -> View:
        data = self.chain.data(self.log.pubkey())
        assert data is not None
        return read(data)

    def membership_of(self, member: Member) -> dict[str, Any]:
        data = self.chain.data(self.membership(member.wallet.pubkey()))
        assert data is not None
        return COORDINATOR.decode_account("Membership", data)

    def account(self, name: str, key: Pubkey, idl: Idl = COORDINATOR) -> dict[str, Any]:
        data = self.chain.data(key)
        assert data is not None
        return idl.decode_account(name, data)

    # whole stretches

    def play_round(self, members: list[Member], seconds: int = 1) -> None:
        """Everyone commits, and attests every commitment of the round before; with 0 seconds all within one slot."""
        state = self.state
        assert state.phase == "RoundTrain", state.phase
        before = next((r for r in state.rounds if r.number == state.open.number - 1 and r.status == 2), None)
        for m in members:
            if before is not None and m.slot in before.witnesses:
                self.duty("witness", m, round=before.number, bitmap=bitmap(before.committed))
        for m in members:
            if m.slot in state.open.assigned:
                self.duty("commit", m, round=state.open.number, hash=commitment(m, state.open.number))
        if seconds:
            self.chain.pass_time(seconds)

    def play_epoch(self, members: list[Member], seconds: int = 1) -> None:
        """From Warmup to Cooldown."""
        for m in members:
            self.duty("ready", m)
        while self.state.phase == "RoundTrain":
            self.play_round(members, seconds)
        assert self.state.phase == "Cooldown", self.state.phase

    def attest(self, members: list[Member]) -> None:
        """Everyone attests the same weights."""
        step = self.state.step
        for m in members:
            digests = [hashlib.sha256(bytes([p])).digest() for p in range(2 - m.tier)]
            self.duty("attest_checkpoint", m, step=step, digests=digests)

    def agree(self, members: list[Member], uri: str = "hub://somebody/weights") -> None:
        """Everyone attests the same weights; the uploader records where they are."""
        uploader = next(m for m in members if m.slot == self.state.uploader)
        self.attest(members)
        self.duty("record_checkpoint", uploader, uri=uri)


def bitmap(slots: set[int]) -> bytes:
    return sum(1 << s for s in slots).to_bytes(32, "little")


def commitment(member: Member, number: int) -> bytes:
    return hashlib.sha256(bytes(member.wallet.pubkey()) + number.to_bytes(8, "little")).digest()


@dataclass
class Grant:
    """An authorization and its parties."""

    chain: Chain
    grantor: Keypair
    grantee: Keypair
    scope: bytes = JOIN_SCOPE

    @property
    def key(self) -> Pubkey:
        parts = (b"authorization", self.grantor.pubkey(), self.grantee.pubkey(), self.scope[:32])
        return seed(*parts, idl=AUTHORIZER)

    def act(self, name: str, signer: Keypair, **args: Any) -> Receipt:
        accounts: dict[str, Pubkey | None] = {
            "payer": self.chain.rich.pubkey(),
            "grantor": signer.pubkey(),
            "grantee": signer.pubkey(),
            "recipient": self.grantor.pubkey(),
            "authorization": self.key,
            "system_program": SYSTEM,
        }
        if name == "create":
            args = {
                "grantee": self.grantee.pubkey(),
                "scope": self.scope,
                "max_weight": 5,
                "min_tier": 0,
            } | args
            accounts.pop("grantee")
        return self.chain.send(AUTHORIZER.instruction(name, accounts, **args), signer)

    def create(self, **args: Any) -> Receipt:
        return self.act("create", self.grantor, **args)

    def set_active(self, active: bool) -> Receipt:
        return self.act("set_active", self.grantor, active=active)

    def read(self) -> dict[str, Any]:
        data = self.chain.data(self.key)
        assert data is not None
        return AUTHORIZER.decode_account("Authorization", data)
