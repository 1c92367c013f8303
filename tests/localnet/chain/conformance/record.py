"""Ask a chain everything and keep the shapes of its answers.

`python -m tests.localnet.chain.conformance.record` starts the installed `solana-test-validator` and writes
`golden.json`; `--url` and `--ws` ask a chain that runs already, `--out` writes elsewhere.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from . import world
from .node import Rpc, validator
from .questions import questions
from .shapes import shape
from .sockets import socket_answers

GOLDEN = Path(__file__).with_name("golden.json")


def answers(rpc: Rpc) -> dict[str, Any]:
    """The shape of each answer by its question's name."""
    made = world.build(rpc)
    found = {question.name: shape(question.ask(made)) for question in questions(made)}
    return {**found, **{name: shape(value) for name, value in socket_answers(made).items()}}


def document(rpc: Rpc) -> dict[str, Any]:
    """What the golden file holds: which validator was asked, and what it said."""
    return {"version": rpc.result("getVersion")["solana-core"], "answers": answers(rpc)}


def write(path: Path, content: dict[str, Any]) -> None:
    """One question a line, so that a change is read as one."""
    lines = [
        f"  {json.dumps(name)}: {json.dumps(value, sort_keys=True, ensure_ascii=False)}"
        for name, value in sorted(content["answers"].items())
    ]
    head = json.dumps(content["version"])
    path.write_text(f'{{\n "version": {head},\n "answers": {{\n' + ",\n".join(lines) + "\n }\n}\n")


def main() -> None:
    """Write the golden file from a validator."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="ask this chain instead of starting one")
    parser.add_argument("--ws", help="its websocket")
    parser.add_argument("--out", type=Path, default=GOLDEN)
    args = parser.parse_args()
    if args.url:
        write(args.out, document(Rpc(args.url, args.ws)))
        return
    with tempfile.TemporaryDirectory() as folder, validator(Path(folder)) as rpc:
        write(args.out, document(rpc))


if __name__ == "__main__":
    main()
