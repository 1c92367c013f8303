"""A run's configuration file: Psyche's sections and names, and `[rewards]`, `[network]`, `[join]` of our own.

Rules mirror the coordinator's, so that a mistake is told before any transaction is sent.
"""

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Self

import semver
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator
from solders.pubkey import Pubkey

from psyche_chain.amounts import to_base_units
from psyche_chain.chain.layout import MAX_CAPACITY, MAX_WITNESSES
from psyche_chain.chain.state import ChainConfig
from psyche_chain.errors import ConfigError
from psyche_train.spec import TrainSpec
from psyche_train.toml_files import adapt, floats, read_toml, validate

__all__ = [
    "ConfigTable",
    "JoinTable",
    "NetworkTable",
    "RewardsTable",
    "RunConfig",
    "check_model",
    "load_config",
]

MAX_SECONDS = 315_360_000
"""Ten years: the longest time that the coordinator takes."""
MAX_BATCH = 16_777_216
MAX_PAY = 1_000_000

Seconds = Annotated[int, Field(ge=1, le=MAX_SECONDS)]
Count = Annotated[int, Field(ge=1, le=65_535)]


class Table(BaseModel):
    """A section of the file: immutable, no unknown keys, no conversions between types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ConfigTable(Table):
    """`[config]`: the rules of the run that the coordinator enforces. Times in whole seconds."""

    warmup_time: Seconds
    """Longest wait for members to get the weights and say ready."""
    cooldown_time: Seconds
    """Longest wait for a checkpoint to be agreed and uploaded."""
    epoch_time: Seconds
    max_round_train_time: Seconds
    round_witness_time: Seconds
    waiting_for_members_extra_time: int = Field(default=0, ge=0, le=MAX_SECONDS)
    """Wait for late comers once enough members are there."""
    init_min_clients: Count
    """Members needed to start an epoch."""
    min_clients: Count
    """Members needed to go on with it."""
    min_full_members: Count = 1
    """Members of tier 0 needed to start an epoch."""
    witness_nodes: int = Field(default=0, ge=0, le=MAX_WITNESSES)
    """Witnesses drawn per round; 0: everyone, up to 32."""
    global_batch_size_start: int = Field(ge=1, le=MAX_BATCH)
    """Samples per round at the start."""
    global_batch_size_end: int = Field(ge=1, le=MAX_BATCH)
    """Samples per round once `global_batch_size_warmup_tokens` were seen."""
    global_batch_size_warmup_tokens: int = Field(default=0, ge=0, lt=2**63)
    total_steps: int = Field(ge=1, lt=2**63)
    max_missed: Count = 3
    """Rounds in a row that a member may miss before it is out of the epoch."""
    max_failed_warmups: Count = 3
    """Warmups in a row that may fail before the run goes back to its last checkpoint."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for low, high in (
            ("global_batch_size_start", "global_batch_size_end"),
            ("min_clients", "init_min_clients"),
            ("min_full_members", "init_min_clients"),
        ):
            a, b = getattr(self, low), getattr(self, high)
            if a > b:
                raise ValueError(f"{low} = {a}, it must be at most {high} = {b}")
        return self


class RewardsTable(Table):
    """`[rewards]`: the run pays its members through a pool. Amounts are in tokens."""

    mint: str | None = None
    """An existing SPL mint; one is created where this is absent."""
    decimals: int = Field(default=6, ge=0, le=9)
    """Of the mint that is created."""
    round_rate: Annotated[Decimal, Field(ge=0)]
    """Tokens shared by the members whose work in a round was accepted."""
    pay_per_tier: list[Annotated[int, Field(ge=0, le=MAX_PAY)]] = Field(
        default=[1, 1, 1, 1], min_length=1, max_length=4
    )
    """Relative pay of a unit of weight by tier; the last value stands for the tiers after it."""
    fund: Annotated[Decimal, Field(ge=0)] | None = None
    """Tokens that the vault is brought up to when the run is created."""

    @field_validator("mint")
    @classmethod
    def _is_key(cls, value: str | None) -> str | None:
        return None if value is None else _key(value)

    @field_validator("round_rate", "fund", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        return Decimal(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _whole_units(self) -> Self:
        if self.mint is None:
            for name in ("round_rate", "fund"):
                if (amount := getattr(self, name)) is not None:
                    try:
                        to_base_units(amount, self.decimals)
                    except ValueError as exc:
                        raise ValueError(f"{name}: {exc}") from None
        return self


class NetworkTable(Table):
    """`[network]`: defaults for members that are started from this file."""

    listen: str = Field(default="/ip4/127.0.0.1/tcp/0", pattern=r"^/(ip4|ip6)/[^/]+/tcp/[0-9]{1,5}$")
    """Address to accept peers on; port 0 lets the system choose."""


class JoinTable(Table):
    """`[join]`: who may take part."""

    authority: str = "open"
    """`"open"`: anybody; `"creator"`: whom the creating wallet authorizes; or the key that authorizes."""
    capacity: int = Field(default=16, ge=1, le=MAX_CAPACITY)
    """Slots of the run; the rent grows with them and they are fixed."""

    @field_validator("authority")
    @classmethod
    def _known(cls, value: str) -> str:
        return value if value in ("open", "creator") else _key(value)

    def key(self, creator: Pubkey) -> Pubkey:
        """The join authority on chain; the zero key for an open run."""
        if self.authority == "open":
            return Pubkey.default()
        return creator if self.authority == "creator" else Pubkey.from_string(self.authority)


class ModelTable(Table):
    """`[model]`: one model per run."""

    LLM: TrainSpec


class RunConfig(Table):
    """The whole file."""

    run_id: str = Field(pattern=r"^[a-z0-9-]{1,32}$")
    name: str = ""
    description: str = ""
    min_client_version: str = ""
    """Oldest client that may join, as a semantic version; empty: any."""
    config: ConfigTable
    model: ModelTable
    rewards: RewardsTable | None = None
    network: NetworkTable = Field(default_factory=NetworkTable)
    join: JoinTable = Field(default_factory=JoinTable)
    _warnings: tuple[str, ...] = PrivateAttr(())

    @property
    def warnings(self) -> tuple[str, ...]:
        """What in the file has no effect, and why."""
        return self._warnings

    @property
    def spec(self) -> TrainSpec:
        """The training specification, `[model.LLM]`."""
        return self.model.LLM

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for field, limit in (("name", 64), ("description", 280), ("min_client_version", 32)):
            if (length := len(getattr(self, field).encode())) > limit:
                raise ValueError(f"{field} has {length} bytes, at most {limit} are allowed")
        if self.min_client_version and not semver.Version.is_valid(self.min_client_version):
            raise ValueError(
                f'min_client_version = "{self.min_client_version}", a version such as "0.1.0" is needed'
            )
        if (least := self.config.init_min_clients) > self.join.capacity:
            raise ValueError(
                f"config.init_min_clients = {least}, join.capacity = {self.join.capacity} is too small"
            )
        return self

    def chain_config(self) -> ChainConfig:
        """The configuration that goes on chain."""
        pay = self.rewards.pay_per_tier if self.rewards is not None else [1]
        padded = (*pay, *[pay[-1]] * 4)[:4]
        return ChainConfig(
            **self.config.model_dump(),
            max_seq_len=self.spec.max_seq_len,
            max_tier=self.spec.matformer.max_tier,
            pay_per_tier=(padded[0], padded[1], padded[2], padded[3]),
        )


def _key(text: str) -> str:
    try:
        Pubkey.from_string(text)
    except ValueError:
        raise ValueError(f'"{text}" is not an address (a base58 public key)') from None
    return text


def _hints(config: RunConfig) -> list[str]:
    """What is allowed, and probably not meant."""
    sparse, rules = config.spec.optimizer.SparseLoCo, config.config
    share = rules.global_batch_size_start // rules.init_min_clients
    if sparse is not None and share < sparse.local_steps:
        return [
            f"model.LLM.optimizer.SparseLoCo.local_steps = {sparse.local_steps}, but of "
            f"config.global_batch_size_start = {rules.global_batch_size_start} samples each of "
            f"{rules.init_min_clients} members gets {share}: it takes one local step for each of those"
        ]
    return []


def check_model(config: RunConfig) -> None:
    """Check what needs the shapes of the model, as far as the file alone gives them.

    It takes seconds to import what knows shapes, so a model that is plainly small enough is left alone.

    Raises:
        ConfigError: there is no such model, or its updates are too long.
    """
    checkpoint = config.spec.checkpoint
    if checkpoint.Init is None or (checkpoint.Init.config is None and checkpoint.Init.is_small):
        return
    from psyche_train.resolve import schema_of
    from psyche_train.strategies.size import check_update_size

    try:
        check_update_size(config.spec, schema_of(config.spec))
    except ValueError as exc:
        raise ConfigError(f"model.LLM: {exc}") from exc


def load_config(path: Path | str, *, run_id: str | None = None) -> RunConfig:
    """Read and check a run's configuration.

    Args:
        path: a TOML file.
        run_id: instead of the file's.

    Raises:
        ConfigError: one sentence that names file, key path, what was found and what is allowed.
    """
    path = Path(path)
    tables = read_toml(path)
    warnings = adapt(tables)
    rewards = tables.pop("rewards", None)
    tables = floats(tables)
    if rewards is not None:
        tables["rewards"] = rewards
    if run_id is not None:
        tables["run_id"] = run_id
    config = validate(RunConfig, tables, path)
    try:
        config.spec.to_bytes()
    except ValueError as exc:
        raise ConfigError(f"{path}: model.LLM: {exc}") from exc
    config._warnings = (*warnings, *_hints(config))
    return config
