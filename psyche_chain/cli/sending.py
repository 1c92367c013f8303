"""How commands that send transactions run: checked programs, a result as text or JSON, and what it cost."""

import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from psyche_chain.admin.cluster import on_our_programs
from psyche_chain.admin.costs import Cost, measure
from psyche_chain.admin.session import Session, open_session
from psyche_chain.cli import exit_codes
from psyche_chain.cli.options import (
    DEFAULT_MAX_FEE,
    JsonOpt,
    KeypairOpt,
    MaxFeeOpt,
    PriorityFeeOpt,
    RpcOpt,
    endpoints,
    fee_policy,
    wallet,
)
from psyche_chain.errors import PsycheError
from psyche_train.cli import output
from psyche_train.cli.shell import first_error


@dataclass(frozen=True, slots=True)
class Result:
    """What a command did."""

    text: str
    """For people; goes to stdout."""
    values: dict[str, Any] = field(default_factory=dict)
    """For `--json`; `cost` is added."""
    if_nothing: str = ""
    """What to tell where nothing was sent, instead of "nothing to do"."""


@dataclass(frozen=True, slots=True)
class Sending:
    """The options that all sending commands share."""

    json: JsonOpt = False
    rpc: RpcOpt = None
    keypair: KeypairOpt = None
    priority_fee: PriorityFeeOpt = "auto"
    max_fee: MaxFeeOpt = DEFAULT_MAX_FEE

    def run(self, action: Callable[[Session], Awaitable[Result]]) -> None:
        """Run `action` and print its result, then what it cost.

        Where `action` fails after it has sent something, the cost so far is told before the error.
        """
        policy = fee_policy(self.priority_fee, self.max_fee)
        urls, signer = endpoints(self.rpc), wallet(self.keypair)

        async def run() -> tuple[Result, Cost]:
            async with open_session(urls, signer, policy) as session:
                try:
                    async with on_our_programs(session.rpc):
                        result = await action(session)
                except PsycheError:
                    if session.sender.landed:
                        _tell(await measure(session.rpc, session.sender.landed))
                    raise
                return result, await measure(session.rpc, session.sender.landed)

        try:
            result, cost = trio.run(run)
        except BaseException as exc:
            if isinstance(first_error(exc), KeyboardInterrupt):
                output.note(
                    "interrupted; what was sent may still land: see `psyche-chain show`, then run this again"
                )
            raise
        try:
            if self.json:
                output.data_json({**result.values, "cost": cost.as_dict()})
                return
            if result.text:
                output.data(result.text)
        except PsycheError:  # it was sent and paid all the same
            _tell(cost)
            raise
        if cost.signatures:
            _tell(cost)
        else:
            output.note(result.if_nothing or "nothing to do: no transaction was sent")


def sends(command: Callable[..., None]) -> Callable[..., None]:
    """Make a command of a function with a parameter `sending`: on the command line that is the options of `Sending`."""
    own = [p for p in inspect.signature(command).parameters.values() if p.name != "sending"]
    shared = list(inspect.signature(Sending).parameters.values())

    @functools.wraps(command)
    def run(**values: Any) -> None:
        sending = Sending(**{option.name: values.pop(option.name) for option in shared})
        command(**values, sending=sending)

    run.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in (*own, *shared)}
    return run


def _tell(cost: Cost) -> None:
    for line in cost.lines():
        output.note(line)


def confirm(question: str, yes: bool) -> None:
    """Ask before something that cannot be taken back.

    Raises:
        PsycheError: the answer is no, or there is nobody to ask.
    """
    if yes:
        return
    if not output.asks():
        raise PsycheError(
            f"{question} This needs a confirmation, and there is no terminal to ask on",
            "add --yes to confirm",
            exit_codes.USAGE,
        )
    if not output.ask(question):
        raise PsycheError("not confirmed; nothing was sent", "", exit_codes.ERROR)
