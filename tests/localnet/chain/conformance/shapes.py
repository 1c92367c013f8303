"""What two chains' answers are compared by: the keys and types of an answer, and the values that say what it means."""

from __future__ import annotations

import json
import re
from typing import Any

Json = Any
EXACT = frozenset(
    [
        "apiVersion",
        "code",
        "computeUnitsConsumed",
        "confirmationStatus",
        "err",
        "encoding",
        "extension",
        "fee",
        "jsonrpc",
        "loadedAccountsDataSize",
        "message",
        "method",
        "owner-kind",
        "program",
        "solana-core",
        "source",
        "state",
        "status",
        "type",
        "unitsConsumed",
        "version",
        "costUnits",
    ]
)
"""Fields whose values are the same on every chain; of others only the type counts."""
_KEY = re.compile(r"\b[1-9A-HJ-NP-Za-km-z]{32,88}\b")
_KNOWN = re.compile(r"^(?:[A-Za-z0-9]*1{9,}[A-Za-z0-9]*|Token\w+|AToken\w+|Memo\w+)$")
_LAMPORTS = re.compile(r"insufficient lamports \d+")
_SLOT = re.compile(r"\b(slot|block:|lastSlot,) \d+", re.IGNORECASE)


def masked(text: str) -> str:
    """A sentence without the addresses and slots that differ from chain to chain."""
    text = _KEY.sub(lambda found: found[0] if _KNOWN.match(found[0]) else "<key>", text)
    text = _LAMPORTS.sub("insufficient lamports <n>", text)
    return _SLOT.sub(lambda found: f"{found[1]} <n>", text)


def shape(value: Json, name: str = "") -> Json:
    """Keys and types, recursively; the values of `EXACT` fields and of log lines stay."""
    if isinstance(value, dict):
        return {masked(key): shape(item, key) for key, item in sorted(value.items())}
    if isinstance(value, list):
        if name in ("logs", "logMessages"):
            return [masked(line) for line in value]
        if name in EXACT:
            return [shape(item, name) for item in value]
        if len(value) == 2 and value[1] in ("base58", "base64", "base64+zstd"):
            return ["<data>", value[1]]
        plain = {type(item): item for item in value if not isinstance(item, (dict, list))}
        nested = [item for item in value if isinstance(item, (dict, list))]
        items = {json.dumps(shape(item), sort_keys=True) for item in (*plain.values(), *nested)}
        return {"each": [json.loads(item) for item in sorted(items)]}
    if name in EXACT and not isinstance(value, dict):
        return masked(value) if isinstance(value, str) else value
    if value is None:
        return None
    return {bool: "bool", int: "int", float: "float", str: "string"}[type(value)]


def differences(expected: Json, found: Json, path: str = "") -> list[str]:
    """Where two shapes differ, as `path: what the reference has -> what this has`."""
    if isinstance(expected, dict) and isinstance(found, dict):
        lines = []
        for key in sorted({*expected, *found}):
            inner = f"{path}.{key}" if path else key
            if key not in found:
                lines.append(f"{inner}: {_short(expected[key])} -> missing")
            elif key not in expected:
                lines.append(f"{inner}: missing -> {_short(found[key])}")
            else:
                lines += differences(expected[key], found[key], inner)
        return lines
    return [] if expected == found else [f"{path}: {_short(expected)} -> {_short(found)}"]


def _short(value: Json) -> str:
    shown = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return shown if len(shown) <= 600 else shown[:600] + "…"
