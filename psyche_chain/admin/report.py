"""The shape of `show --json`: documented, and stable within a `schema_version`.

Fields are only ever added; a field that changes its meaning or goes away raises `schema_version`.
"""

from collections.abc import Mapping
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION: Final = 1


class Part(BaseModel):
    """A JSON object with exactly these keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def pick(cls, values: Mapping[str, Any]) -> Self:
        """Take this part's keys out of a larger mapping."""
        return cls(**{name: values[name] for name in cls.model_fields})


def _key(text: str) -> Any:
    return Field(description=text, pattern=r"^[1-9A-HJ-NP-Za-km-z]{32,44}$")


def _hex(text: str, size: int = 32) -> Any:
    return Field(description=text, pattern=rf"^[0-9a-f]{{{2 * size}}}$")


class RunPart(Part):
    key: str = _key("the run's address")
    version: int = Field(description="of the account's layout")
    creator: str = _key("wallet in whose name the id is taken")
    authority: str = _key("who may change the run on chain: a wallet, or the pool")
    join_authority: str = _key("whose authorizations admit members; 111...1 in an open run")
    run_state: str = _key("the log's account")
    spec_len: int = Field(description="bytes of the announced specification")
    spec_sha256: str = _hex("of the announced specification")
    run_id: str = Field(description="unique among the creator's runs")
    name: str = Field(description="for people")
    description: str = Field(description="for people")
    min_client_version: str = Field(description="oldest client that may join; empty: any")


class SlotPart(Part):
    slot: int = Field(description="number of the slot")
    wallet: str = _key("who holds it")
    tier: int = Field(description="of this epoch, or declared for the next")
    weight: int = Field(description="of this epoch, or declared for the next")
    state: str = Field(description="waiting, active, not ready, training, committed or departed")
    missed: int = Field(description="rounds in a row without an accepted update")
    earned_in_slot: int = Field(description="points not settled yet")


class StatusPart(Part):
    run: str = _key("the run's address")
    run_id: str = Field(description="its id")
    name: str = Field(description="for people")
    phase: str = Field(description="Uninitialized, WaitingForMembers, Warmup, RoundTrain, ...")
    seconds_left: int | None = Field(description="until the phase ends at the latest")
    epoch: int = Field(description="number of the epoch")
    step: int = Field(description="trained rounds opened so far")
    total_steps: int = Field(description="trained rounds after which the run is finished")
    round: int | None = Field(description="number of the newest round")
    draining: bool = Field(description="the newest round only closes the one before")
    pause_requested: bool = Field(description="pauses at the end of the epoch")
    members: int = Field(description="present")
    needed: int = Field(description="members that start an epoch")
    capacity: int = Field(description="slots")
    checkpoint_step: int | None = Field(description="step of the last agreed checkpoint")
    weights_sha256: str | None = Field(description="hash of its weights")
    checkpoint_uri: str | None = Field(description="where it was recorded to be")
    slots: list[SlotPart] = Field(description="those that somebody holds")


class ConfigPart(Part):
    warmup_time: int = Field(description="seconds")
    cooldown_time: int = Field(description="seconds")
    max_round_train_time: int = Field(description="seconds")
    round_witness_time: int = Field(description="seconds")
    epoch_time: int = Field(description="seconds")
    waiting_for_members_extra_time: int = Field(description="seconds")
    global_batch_size_warmup_tokens: int = Field(description="tokens over which the batch ramps")
    total_steps: int = Field(description="trained rounds")
    global_batch_size_start: int = Field(description="samples a round at the start")
    global_batch_size_end: int = Field(description="samples a round after the ramp")
    max_seq_len: int = Field(description="tokens of a sample")
    pay_per_tier: list[int] = Field(description="relative pay of a unit of weight")
    init_min_clients: int = Field(description="members that start an epoch")
    min_clients: int = Field(description="members that go on with it")
    min_full_members: int = Field(description="of tier 0, to start an epoch")
    witness_nodes: int = Field(description="witnesses a round; 0: everyone, up to 32")
    max_missed: int = Field(description="rounds in a row before a member is out")
    max_failed_warmups: int = Field(description="in a row before the run rewinds")
    max_tier: int = Field(description="highest tier that may join")


class RoundPart(Part):
    number: int = Field(description="of the round; never restarts")
    step: int = Field(description="of the training")
    epoch: int = Field(description="of the round")
    trained: bool = Field(description="false: a round that only drains")
    samples: int = Field(description="assigned in all")
    status: str = Field(description="open, committed or closed")
    assigned: list[int] = Field(description="slots")
    committed: list[int] = Field(description="slots")
    witnesses: list[int] = Field(description="slots")
    attested: list[int] = Field(description="slots")
    accepted: list[int] = Field(description="slots")


class MembershipPart(Part):
    key: str = _key("of the account")
    run_state: str = _key("the log's account")
    wallet: str = _key("the member")
    hot_key: str = _key("what signs its duties")
    p2p_key: str = _hex("its libp2p key")
    tier: int = Field(description="declared")
    weight: int = Field(description="declared")
    slot: int = Field(description="the last slot it had")
    earned: int = Field(description="points settled so far")
    last_epoch: int = Field(description="the last one it took part in")
    contact: str = Field(description="addresses, separated by commas")
    authorization: str = _key("what admitted it; 111...1 if the run was open then")
    created_slot: int = Field(description="slot of the creation of the run that was joined")


class PoolPart(Part):
    key: str = _key("of the account")
    run_state: str = _key("the log's account")
    run: str = _key("the run's address")
    authority: str = _key("the wallet that may change run and pool")
    mint: str = _key("of the tokens it pays")
    vault: str = _key("holds the tokens")
    paid: int = Field(description="base units, to members")
    withdrawn: int = Field(description="base units, to the authority")
    created_slot: int = Field(description="slot of the run's creation")
    total_earned: int = Field(description="base units, kept when the run is closed; 0 before")


class ShowReport(Part):
    """Everything that the chain knows of a run."""

    schema_version: int = Field(description="of this document")
    run: RunPart = Field(description="the account `Run`")
    status: StatusPart = Field(description="as `status --json`")
    config: ConfigPart = Field(description="the rules on chain; zeros before they were set")
    spec: str | None = Field(description="the specification: a JSON text; null before it was written")
    spec_sealed: bool = Field(description="its hash was checked")
    history: str = _hex("hash over all closed rounds")
    nonce: int = Field(description="grows with every change of the log")
    round_rate: int = Field(description="points of a trained round in this epoch")
    next_round_rate: int = Field(description="from the next epoch on")
    lost_samples: int = Field(description="that no member trained")
    rounds: list[RoundPart] = Field(description="the last ones, oldest first")
    memberships: list[MembershipPart] = Field(description="of everybody who ever joined")
    pool: PoolPart | None = Field(description="null in a run that pays nothing")
    chain_time: int = Field(description="the chain's clock, Unix seconds")
