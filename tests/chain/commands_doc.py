"""Writes docs/commands.md: every command of `psyche-chain` with what it really printed on an embedded chain.

    python -m tests.chain.commands_doc          # write the page
    python -m tests.chain.commands_doc --check  # compare it; exit status 1 if it differs

Keys are fixed, so that addresses stay; what time and chance decide is replaced (`_stable`).
"""

import contextlib
import hashlib
import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

from solders.keypair import Keypair

from localnet.chain.process import ChainProcess
from localnet.deploy.programs import deploy_all, find_programs
from localnet.deploy.rpc import Rpc
from psyche_chain.cli.main import main
from psyche_train.spec import TrainSpec
from tests.chain import commands_page
from tests.chain.members import join_all, take_part
from tests.commands_page import ROOT, Shown, output_of, write_or_check

PAGE = ROOT / "docs/commands.md"
SHOWN_URL = "http://127.0.0.1:8899"
SMOKE = (ROOT / "config/smoke.toml").read_text()


def fixed_key(name: str) -> Keypair:
    """The same key in every session."""
    return Keypair.from_seed(hashlib.sha256(f"commands page {name}".encode()).digest())


class Session:
    """A user at a terminal, in a folder of their own, with a chain of their own."""

    def __init__(self, chain: ChainProcess, folder: Path) -> None:
        self.chain = chain
        self.folder = folder
        self.shown: dict[str, list[Shown]] = {}
        self._pending = ""
        self.run_key = ""
        for name in ("operator", "alice", "bob", "carol"):
            self.key_file(name)

    def key_file(self, name: str) -> Path:
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(list(bytes(fixed_key(name)))))
        path.chmod(0o600)
        return path

    def quiet(self, line: str) -> str:
        """Run a command line that the page does not show; it must succeed."""
        output, status = self._run(line)
        assert status == 0, (line, output)
        return output

    def show(self, line: str, *, status: int = 0) -> None:
        """Run a command line and put it on the page, under its command."""
        output, found = self._run(line)
        assert found == status, (line, found, output)
        words = line.split()
        name = " ".join(words[:2]) if words[0] == "wallet" else words[0]
        self.shown.setdefault(name, []).append(Shown(line, self._stable(output), found))

    def _run(self, line: str) -> tuple[str, int]:
        return output_of(main, shlex.split(line))

    def _stable(self, text: str) -> str:
        """Without what differs from session to session."""
        text = text.replace(self.chain.url, SHOWN_URL).replace(str(self.folder) + "/", "")
        text = text.replace(self.chain.url.removeprefix("http://"), SHOWN_URL.removeprefix("http://"))
        text = re.sub(r"\b[1-9A-HJ-NP-Za-km-z]{86,88}\b", "SIGNATURE", text)
        text = re.sub(r'("(?:history|weights_sha256)": |weights )"?[0-9a-f]{16,64}"?', r"\1HASH", text)
        text = re.sub(r"(history +)[0-9a-f]{64}", r"\1HASH", text)
        text = re.sub(r"(created_slot +)\d+", r"\g<1>0", text)
        text = re.sub(r"at most \d+ s left", "at most 20 s left", text)
        text = re.sub(r"(genesis +)\w{32,44}", r"\1GENESIS", text)
        return re.sub(r'("(?:seconds_left|chain_time|nonce|created_slot)": )\d+', r"\g<1>0", text)


@contextlib.contextmanager
def session() -> Iterator[Session]:
    """A fresh chain with the programs, fixed keys, and the environment that the page tells of."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with contextlib.ExitStack() as stack:
            chain = stack.enter_context(ChainProcess(folder / "chain", slot_ms=50))
            rpc = Rpc(chain.url)
            deploy_all(rpc, fixed_key("deployer"), find_programs())
            rpc.close()
            found = Session(chain, folder)
            environment = {"PSYCHE_RPC": chain.url, "PSYCHE_KEYPAIR": "operator.json", "NO_COLOR": "1"}
            stack.enter_context(mock.patch.dict(os.environ, environment))
            stack.enter_context(contextlib.chdir(folder))
            states = [fixed_key(f"state {n}") for n in range(10)]
            stack.enter_context(mock.patch("psyche_chain.admin.create.new_state_key", side_effect=states))
            # hashes of the data depend on the Python that runs this
            stack.enter_context(mock.patch.object(TrainSpec, "resolve", lambda self: self))
            stack.enter_context(mock.patch("psyche_chain.chain.sender.FIRST_POLL_S", 0.02))
            yield found


def write(folder: Path, name: str, *changes: tuple[str, str], tail: str = "") -> None:
    text = SMOKE + tail
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    (folder / name).write_text(text)


def play(s: Session) -> None:
    """The session of the page."""
    keys = {name: str(fixed_key(name).pubkey()) for name in ("operator", "alice", "bob", "carol")}
    base = [('run_id = "smoke"\nname = "Smoke"', 'run_id = "demo"\nname = "Demo"')]
    base += [("total_steps = 8", "total_steps = 1"), ("round_rate = 1.5", "round_rate = 300")]
    base += [("fund = 20", "fund = 400")]
    tail = '\n[join]\nauthority = "creator"\ncapacity = 4\n'
    write(s.folder, "demo.toml", *base, tail=tail)
    new = [("total_steps = 1", "total_steps = 2"), ("base_lr = 2.0e-3", "base_lr = 1.0e-3")]
    write(s.folder, "demo2.toml", *base, *new, ('name = "Demo"', 'name = "Second try"'), tail=tail)
    write(s.folder, "wrong.toml", ("total_steps", "total_step"))

    (s.folder / "operator.json").unlink()
    with mock.patch("psyche_chain.wallet.new_key", return_value=fixed_key("operator")):
        s.show("wallet new --keypair operator.json")
    s.show("wallet address")
    s.show("wallet airdrop 10")
    s.show("wallet balance")
    for name in ("alice", "bob", "carol"):
        s.quiet(f"wallet airdrop 5 --keypair {name}.json")
    s.show("doctor")
    s.show("validate-config demo.toml")
    s.show("validate-config wrong.toml", status=3)

    s.show("create-run demo.toml")
    s.run_key = s.quiet("create-run demo.toml").split()[0]
    s.show("create-run demo.toml")
    s.show("list-runs")
    s.show("update-run demo demo2.toml --dry-run")
    s.show("update-run demo demo2.toml", status=7)
    s.show("pause demo")
    s.show("update-run demo demo2.toml")
    s.show("update-run demo demo2.toml")
    s.quiet("update-run demo demo.toml")
    s.show("resume demo")
    s.show("set-rates demo 200")
    s.show("pause demo --keypair alice.json", status=7)
    s.show(f"set-authority demo {keys['carol']} --yes")
    s.show(f"set-authority demo {keys['operator']} --yes --keypair carol.json")
    s.quiet("set-rates demo 300")

    s.show(f"authorize {keys['alice']}")
    s.show(f"authorize {keys['bob']} --max-weight 4 --min-tier 1")
    s.show(f"delegate {keys['operator']} --add {keys['carol']} --keypair bob.json")
    s.show("list-authorizations")
    join_all(s.chain.url, s.run_key, [s.folder / "alice.json", s.folder / "bob.json"], [0, 1])
    s.show("identity demo --keypair alice.json")
    s.show("status demo")
    s.show("tick demo")
    take_part(s.chain.url, s.run_key, [s.folder / "alice.json", s.folder / "bob.json"], [0, 1], joined=True)
    s.show("replay demo", status=2)
    (s.folder / "alice").mkdir()
    s.show("replay demo --state-dir alice", status=4)  # these members train nothing and keep no records
    s.show("rewards demo")
    s.show(f"settle demo --for {keys['alice']}")
    s.show("settle demo")
    s.show("claim demo --keypair alice.json")
    s.show(f"claim demo --for {keys['bob']} --json")
    s.show("claim demo --all")
    s.show("fund demo 50 --mint")
    s.show("fund demo 50", status=5)
    s.show("leave demo --keypair alice.json")
    s.show(f"revoke {keys['bob']}")
    s.show("evict demo")
    s.show(f"delegate {keys['operator']} --clear --keypair bob.json")
    s.show(f"close-authorization {keys['bob']}")
    s.show("show demo")
    s.show("show demo --json")
    s.show("close-membership demo --keypair alice.json", status=7)
    s.show("close-run demo")
    s.show("close-run demo")
    state = str(fixed_key("state 0").pubkey())
    s.show(f"close-membership {state} --keypair alice.json")
    s.show("status demo", status=4)
    s.show("join demo --tier 1 --keypair alice.json", status=4)


def build() -> str:
    """The page as it should be."""
    with session() as s:
        play(s)
        return commands_page.render(s.shown)


def run(arguments: Sequence[str]) -> int:
    """Write or compare the page; the exit status."""
    return write_or_check(PAGE, build(), arguments)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
