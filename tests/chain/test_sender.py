"""Sending against a scripted chain: lands once, or is known never to land."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.transaction import Transaction

from psyche_chain.chain import ids, instructions
from psyche_chain.chain.errors import FundsError, ProgramError, RpcUnavailable, TransactionExpired
from psyche_chain.chain.failure import explain
from psyche_chain.chain.programs import NAMES, describe_error, program
from psyche_chain.chain.sender import MAX_UNITS, Sender, SendPolicy
from tests.chain.support import A, B, Node, at, pool

PAYER = Keypair.from_seed(bytes(32))
STATE = Keypair.from_seed(bytes([1]) * 32).pubkey()
TICK = instructions.tick(run_state=STATE)


class Chain:
    """A chain whose height the test moves; `lands(n)` says whether the n-th send of a transaction lands."""

    def __init__(self, *, lands: Callable[[int], bool] = lambda n: True, err: Any = None) -> None:
        self.height = 100
        self.lands, self.err = lands, err
        self.fees: list[int] = []
        self.simulation: dict[str, Any] = {"err": None, "logs": [], "unitsConsumed": 10_000}
        self.landed_logs: list[str] = []
        self.sent: list[Transaction] = []
        self.landed: dict[str, int] = {}
        self.blockhashes = 0

    def __call__(self, method: str, params: list[Any]) -> dict[str, Any]:
        if method == "getLatestBlockhash":
            self.blockhashes += 1
            blockhash = str(Hash(bytes([self.blockhashes]) * 32))
            return at(self.height, {"blockhash": blockhash, "lastValidBlockHeight": self.height + 150})
        if method == "simulateTransaction":
            return at(self.height, self.simulation)
        if method == "getRecentPrioritizationFees":
            return {"result": [{"slot": 1, "prioritizationFee": f} for f in self.fees]}
        if method == "sendTransaction":
            transaction = Transaction.from_bytes(base64.b64decode(params[0]))
            self.sent.append(transaction)
            if self.lands(len(self.sent)):
                self.landed[str(transaction.signatures[0])] = self.height
            return {"result": str(transaction.signatures[0])}
        if method == "getSignatureStatuses":
            slots = [self.landed.get(s) for s in params[0]]
            status = [
                None if s is None else {"slot": s, "err": self.err, "confirmationStatus": "confirmed"}
                for s in slots
            ]
            return at(self.height, status)
        if method == "getEpochInfo":
            self.height += 40  # about 16 seconds between two looks
            return {"result": {"absoluteSlot": self.height, "blockHeight": self.height}}
        if method == "getTransaction":
            return {"result": {"meta": {"logMessages": self.landed_logs}}}
        raise AssertionError(method)


async def send(chain: Chain, **named: Any) -> Any:
    async with pool((A, Node(chain)), deadline_s=60) as rpc:
        return await Sender(rpc, PAYER, named.pop("policy", None)).send([TICK], label="tick", **named)


async def test_lands_once_with_units_from_the_simulation(autojump_clock: trio.testing.MockClock) -> None:
    chain = Chain()
    receipt = await send(chain)
    assert (receipt.slot, receipt.units) == (100, 10_000)
    assert len(chain.sent) == 1
    budget = chain.sent[0].message.instructions[0]
    assert bytes(budget.data) == b"\x02" + (2_000 + 12_000).to_bytes(4, "little")
    assert chain.sent[0].verify() is None


async def test_min_units_raise_the_limit(autojump_clock: trio.testing.MockClock) -> None:
    chain = Chain()
    await send(chain, min_units=200_000)
    assert bytes(chain.sent[0].message.instructions[0].data)[1:] == (200_000).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("fees", "paid"), [([], None), ([0, 0], None), ([1, 2, 3, 400], 400), ([10**9] * 4, 5_000)]
)
async def test_priority_fee_follows_recent_fees_up_to_the_cap(
    fees: list[int], paid: int | None, autojump_clock: trio.testing.MockClock
) -> None:
    chain = Chain()
    chain.fees = fees
    await send(chain, policy=SendPolicy(max_fee_micro_lamports=5_000))
    price = [bytes(i.data) for i in chain.sent[0].message.instructions if bytes(i.data)[:1] == b"\x03"]
    assert price == ([] if paid is None else [b"\x03" + paid.to_bytes(8, "little")])


async def test_same_bytes_are_sent_again_until_they_land(autojump_clock: trio.testing.MockClock) -> None:
    chain = Chain(lands=lambda n: n == 3)
    await send(chain)
    assert len(chain.sent) == 3
    assert len({bytes(t) for t in chain.sent}) == 1


async def test_rebuilt_only_after_the_blockhash_expired(autojump_clock: trio.testing.MockClock) -> None:
    chain = Chain(lands=lambda n: n >= 6)
    await send(chain)
    hashes = [str(t.message.recent_blockhash) for t in chain.sent]
    first = hashes.count(hashes[0])
    assert hashes == [hashes[0]] * first + [hashes[-1]] * (len(hashes) - first)
    assert first >= 4  # 150 blocks, 40 per look
    assert chain.blockhashes == 2


async def test_landing_at_the_last_moment_is_found_in_the_history(
    autojump_clock: trio.testing.MockClock,
) -> None:
    chain = Chain(lands=lambda n: False)
    answer = chain.__call__

    def late(method: str, params: list[Any]) -> dict[str, Any]:
        if method == "getSignatureStatuses" and params[1].get("searchTransactionHistory"):
            chain.landed[params[0][0]] = chain.height
        return answer(method, params)

    async with pool((A, Node(late)), deadline_s=60) as rpc:
        receipt = await Sender(rpc, PAYER).send([TICK], label="tick")
    assert receipt.slot == chain.height
    assert len({bytes(t) for t in chain.sent}) == 1


async def test_history_of_a_node_behind_is_not_believed(autojump_clock: trio.testing.MockClock) -> None:
    """The node that knows of the landing is down for a moment; the one behind says it never happened."""
    chain = Chain(lands=lambda n: True)
    behind = Chain(lands=lambda n: False)
    behind.height = 10
    asked = 0

    def ahead(method: str, params: list[Any]) -> dict[str, Any] | Exception:
        nonlocal asked
        if method == "getSignatureStatuses" and not params[1].get("searchTransactionHistory"):
            return at(chain.height, [None])
        if method == "getSignatureStatuses":
            asked += 1
            if asked == 1:
                return OSError("down")
        return chain(method, params)

    async with pool((A, Node(ahead)), (B, Node(behind)), deadline_s=60) as rpc:
        await Sender(rpc, PAYER).send([TICK], label="tick")
    assert asked == 2
    assert len({bytes(t) for t in chain.sent}) == 1


async def test_deadline_is_told_with_the_signature(autojump_clock: trio.testing.MockClock) -> None:
    chain = Chain(lands=lambda n: False)
    began = trio.current_time()
    with pytest.raises(
        TransactionExpired, match=r"tick: not confirmed within 20 s \(last signature \w{80,90}\)"
    ):
        await send(chain, deadline_s=20)
    assert trio.current_time() - began == pytest.approx(20, abs=0.5)


async def test_refusal_in_the_simulation_sends_nothing(autojump_clock: trio.testing.MockClock) -> None:
    code = next(c for c, (name, _) in program("coordinator").errors.items() if name == "NothingDue")
    chain = Chain()
    chain.simulation = {
        "err": {"InstructionError": [1, {"Custom": code}]},
        "logs": [f"Program {ids.COORDINATOR_ID} failed: custom program error: {code:#x}"],
        "unitsConsumed": 5,
    }
    with pytest.raises(ProgramError) as caught:
        await send(chain)
    assert (caught.value.program, caught.value.name, caught.value.code) == ("coordinator", "NothingDue", code)
    assert "wait for the phase to end" in caught.value.message
    assert chain.sent == []


async def test_failure_on_chain_is_named_from_its_logs(autojump_clock: trio.testing.MockClock) -> None:
    """Codes of different programs overlap: the log says which one failed inside the other."""
    chain = Chain(err={"InstructionError": [1, {"Custom": 6000}]})
    inner = program("treasurer")
    chain.landed_logs = [
        f"Program {ids.COORDINATOR_ID} invoke [1]",
        f"Program {inner.id} invoke [2]",
        f"Program {inner.id} failed: custom program error: 0x1770",
        f"Program {ids.COORDINATOR_ID} failed: custom program error: 0x1770",
    ]
    with pytest.raises(ProgramError) as caught:
        await send(chain)
    assert (caught.value.program, caught.value.name) == ("treasurer", inner.errors[6000][0])


async def test_unreachable_while_landing_is_not_called_expired(
    autojump_clock: trio.testing.MockClock,
) -> None:
    chain = Chain()

    def cut(method: str, params: list[Any]) -> dict[str, Any] | Exception:
        return (
            OSError("down")
            if method in ("sendTransaction", "getSignatureStatuses")
            else chain(method, params)
        )

    async with pool((A, Node(cut)), deadline_s=5) as rpc:
        with pytest.raises(RpcUnavailable):
            await Sender(rpc, PAYER).send([TICK], label="tick")


def test_fits_knows_the_limit_of_a_transaction() -> None:
    sender = Sender.__new__(Sender)
    sender.payer = PAYER
    small = Instruction(ids.TOKEN_ID, bytes(900), [AccountMeta(STATE, is_signer=False, is_writable=True)])
    large = Instruction(ids.TOKEN_ID, bytes(1200), [])
    assert sender.fits([small])
    assert not sender.fits([large])


@pytest.mark.parametrize("name", NAMES)
def test_every_error_of_the_programs_says_what_to_do(name: str) -> None:
    errors = program(name).errors
    assert errors
    for code, (error, message) in errors.items():
        assert describe_error(program(name).id, code)[:2] == (error, message)
        assert len(message.split()) >= 4, (name, error)


@pytest.mark.parametrize(
    ("err", "logs", "kind", "text"),
    [
        ("AccountNotFound", [], FundsError, "has no SOL"),
        ({"InsufficientFundsForRent": {"account_index": 0}}, [], FundsError, "has no SOL"),
        (
            {"InstructionError": [0, {"Custom": 1}]},
            ["Transfer: insufficient lamports 5, need 2000000000"],
            FundsError,
            "2.000000000 SOL is needed",
        ),
        (
            {"InstructionError": [0, {"Custom": 1}]},
            [f"Program {ids.TOKEN_ID} failed: custom program error: 0x1"],
            FundsError,
            "too few tokens",
        ),
        (
            {"InstructionError": [0, {"Custom": 2006}]},
            [],
            ProgramError,
            "coordinator refused with ConstraintSeeds",
        ),
        ({"InstructionError": [0, {"Custom": 77777}]}, [], ProgramError, "error 77777 (0x12fd1)"),
        (
            {"InstructionError": [0, "ComputationalBudgetExceeded"]},
            [],
            ProgramError,
            "ComputationalBudgetExceeded",
        ),
        ({"InstructionError": [9, {"Custom": 1}]}, [], ProgramError, "a program refused"),
        ("BlockhashNotFound", [], ProgramError, "BlockhashNotFound"),
        ({"Strange": [1, 2]}, [], ProgramError, "Strange"),
        (None, [], ProgramError, "None"),
        ([1], [], ProgramError, "[1]"),
    ],
)
def test_transaction_errors_are_explained(err: Any, logs: list[str], kind: type, text: str) -> None:
    found = explain(err, instructions=[TICK], logs=logs, label="doing", payer="WALLET")
    assert type(found) is kind
    assert text in found.message
    assert "doing" in found.message


def test_units_stay_within_the_runtime() -> None:
    assert MAX_UNITS == 1_400_000


async def test_liar_about_block_heights_does_not_make_a_transaction_run_twice(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The preferred endpoint says that the blockhash is over; the leader takes the transaction a minute later."""
    chain = Chain(lands=lambda n: n == 8)

    def lies(method: str, params: list[Any]) -> Any:
        if method == "getEpochInfo":
            return {"result": {"absoluteSlot": chain.height, "blockHeight": 10**9 + int(trio.current_time())}}
        if method == "getSignatureStatuses":
            return at(chain.height, [None])
        if method == "getLatestBlockhash":
            answer = chain(method, params)
            answer["result"]["value"]["lastValidBlockHeight"] = 1
            return answer
        if method == "sendTransaction":
            return OSError("dropped")
        return chain(method, params)

    def slow(method: str, params: list[Any]) -> Any:
        if method == "getEpochInfo":
            chain.height -= 30  # ten blocks between two looks
        return chain(method, params)

    async with pool((A, Node(lies)), (B, Node(slow)), deadline_s=60) as rpc:
        await Sender(rpc, PAYER).send([TICK], label="tick")
    assert len({bytes(t) for t in chain.sent}) == 1


async def test_expired_transaction_whose_effect_is_there_is_not_sent_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It landed, and no endpoint remembers it; the simulation of the second one tells."""
    code = next(c for c, (name, _) in program("coordinator").errors.items() if name == "NothingDue")
    chain = Chain(lands=lambda n: False)

    def forgetful(method: str, params: list[Any]) -> Any:
        if method == "sendTransaction":
            chain.simulation = {"err": {"InstructionError": [1, {"Custom": code}]}, "logs": []}
        return chain(method, params)

    async with pool((A, Node(forgetful)), deadline_s=60) as rpc:
        with pytest.raises(ProgramError, match="NothingDue"):
            await Sender(rpc, PAYER).send([TICK], label="tick")
    assert len({bytes(t) for t in chain.sent}) == 1


async def test_every_endpoint_is_given_what_one_forgets(autojump_clock: trio.testing.MockClock) -> None:
    chain = Chain(lands=lambda n: True)

    def forgets(method: str, params: list[Any]) -> Any:
        return {"result": "signature"} if method == "sendTransaction" else chain(method, params)

    async with pool((A, Node(forgets)), (B, Node(chain)), deadline_s=60) as rpc:
        began = trio.current_time()
        await Sender(rpc, PAYER).send([TICK], label="tick")
        assert trio.current_time() - began < 4
    assert len(chain.sent) == 1


async def test_outage_while_landing_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    chain = Chain()

    def cut(method: str, params: list[Any]) -> Any:
        lost = method == "getSignatureStatuses" and trio.current_time() < back
        return OSError("down") if lost else chain(method, params)

    async with pool((A, Node(cut)), deadline_s=5) as rpc:
        back = trio.current_time() + 30
        await Sender(rpc, PAYER).send([TICK], label="tick")
    assert len({bytes(t) for t in chain.sent}) == 1
