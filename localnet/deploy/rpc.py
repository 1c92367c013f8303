"""The few RPC calls that a deployment needs, many in one request where that helps."""

from __future__ import annotations

import time
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any

import httpx
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import Transaction

_RETRIES = 5
_CONFIRM_S = 60.0
_BATCH = 24


class DeployError(Exception):
    """A deployment cannot go on; the text says why and what to do."""


class UnreachableError(DeployError):
    """No chain answers."""


class KeyFileError(DeployError):
    """A key file is missing or holds something else."""


class Rpc:
    """A chain's RPC.

    Args:
        url: where it listens.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(timeout=30.0)

    def close(self) -> None:
        self._client.close()

    def call(self, method: str, *params: Any) -> Any:
        """One call's result.

        Raises:
            DeployError: no answer after some tries, or an error.
        """
        return self._one(self._post({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}))

    def _one(self, answer: Any) -> Any:
        if "error" in answer:
            error = answer["error"]
            logs = (error.get("data") or {}).get("logs") or []
            detail = f" ({logs[-1]})" if logs else ""
            raise DeployError(f"{self.url} refused: {error.get('message')}{detail}")
        return answer["result"]

    def _post(self, body: Any) -> Any:
        for attempt in range(_RETRIES):
            try:
                answer = self._client.post(self.url, json=body)
                if answer.status_code == 429 or answer.status_code >= 500:
                    raise httpx.HTTPStatusError("busy", request=answer.request, response=answer)
                return answer.json()
            except (httpx.HTTPError, ValueError) as exc:
                if attempt == _RETRIES - 1:
                    raise UnreachableError(
                        f"{self.url} does not answer ({exc}): start the chain with `psyche-localnet up`, or "
                        "name another with --rpc"
                    ) from None
                time.sleep(0.2 * 2**attempt)
        raise AssertionError

    def account(self, key: Pubkey) -> tuple[int, str, bytes, bool] | None:
        """(lamports, owner, data, executable), or None."""
        value = self.call("getAccountInfo", str(key), {"encoding": "base64", "commitment": "confirmed"})[
            "value"
        ]
        if value is None:
            return None
        return value["lamports"], value["owner"], b64decode(value["data"][0]), value["executable"]

    def balance(self, key: Pubkey) -> int:
        return int(self.call("getBalance", str(key), {"commitment": "confirmed"})["value"])

    def rent(self, size: int) -> int:
        return int(self.call("getMinimumBalanceForRentExemption", size))

    def blockhash(self) -> Hash:
        value = self.call("getLatestBlockhash", {"commitment": "confirmed"})["value"]
        return Hash.from_string(value["blockhash"])

    def airdrop(self, key: Pubkey, lamports: int) -> None:
        """Ask the faucet and wait for it."""
        self.wait([self.call("requestAirdrop", str(key), lamports)])

    def send(self, instructions: Sequence[Instruction], payer: Keypair, *signers: Keypair) -> None:
        """Send one transaction with preflight and wait until it is confirmed."""
        keys = [payer, *(signer for signer in signers if signer != payer)]
        message = Message(list(instructions), payer.pubkey())
        tx = Transaction(keys, message, self.blockhash())
        options = {"encoding": "base64", "preflightCommitment": "confirmed"}
        self.wait([self.call("sendTransaction", b64encode(bytes(tx)).decode(), options)])

    def wait(self, signatures: Sequence[str]) -> None:
        """Wait until all are confirmed.

        Raises:
            DeployError: one failed, or is not there in time.
        """
        end = time.monotonic() + _CONFIRM_S
        while True:
            missing = self.unconfirmed(signatures)
            if not missing:
                return
            if time.monotonic() > end:
                raise DeployError(
                    f"transaction {missing[0]} was not confirmed in {_CONFIRM_S:.0f} s: run it again"
                )
            time.sleep(0.1)

    def unconfirmed(self, signatures: Sequence[str]) -> list[str]:
        """Those that are not confirmed yet; raises DeployError for one that failed."""
        missing: list[str] = []
        for first in range(0, len(signatures), 256):
            part = list(signatures[first : first + 256])
            for signature, status in zip(part, self.call("getSignatureStatuses", part)["value"], strict=True):
                if status is None or status["confirmationStatus"] == "processed":
                    missing.append(signature)
                elif status["err"] is not None:
                    raise DeployError(f"transaction {signature} failed: {status['err']}")
        return missing

    def send_many(self, transactions: Sequence[Transaction]) -> list[str]:
        """Send transactions without preflight, several in a request; nothing is waited for."""
        options = {"encoding": "base64", "skipPreflight": True}
        signatures: list[str] = []
        for first in range(0, len(transactions), _BATCH):
            part = transactions[first : first + _BATCH]
            body = [
                {
                    "jsonrpc": "2.0",
                    "id": index,
                    "method": "sendTransaction",
                    "params": [b64encode(bytes(tx)).decode(), options],
                }
                for index, tx in enumerate(part)
            ]
            answers = self._post(body)
            for answer in answers if isinstance(answers, list) else [answers]:
                signatures.append(self._one(answer))
        return signatures
