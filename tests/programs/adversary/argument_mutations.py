"""Arguments at and beyond their limits, by the types in the IDL; and instruction data that is none."""

from collections.abc import Callable, Iterator
from typing import Any

from tests.programs.adversary.call import Call, Leaf
from tests.programs.adversary.lookalikes import FORGED
from tests.programs.adversary.mutation import Mutation, Mutations
from tests.programs.adversary.scenes import Scene

INTEGERS = {"u8": (1, False), "u16": (2, False), "u32": (4, False), "u64": (8, False), "i64": (8, True)}
Derive = Callable[[Call], Call]
LENGTHS = (0, 1, 2, 16, 31, 32, 33, 63, 64, 65, 127, 128, 129, 256, 279, 280, 281, 700, 5000)
"""Around every limit of a text; 5000 bytes fit only into a call by another program, which LiteSVM allows here too."""
COUNTS = (0, 1, 2, 3, 4, 5, 16, 29, 62, 63, 64, 65, 150)
LIES = (1, 2**16, 2**31, 2**32 - 1)


def argument_mutations(scene: Scene, derive: Derive | None) -> Mutations:
    """All of them; where addresses depend on arguments, with the old addresses and with those that `derive` finds."""
    call = scene.call
    for n, leaf in enumerate(call.leaves):
        for (kind, detail), data in leaf_values(leaf):
            if data == leaf.data:
                continue
            changed = call.with_leaf(n, data)
            yield Mutation(call.scene, leaf.path, kind, detail, changed.instruction())
            derived = derive(changed) if derive and kind == "other value" else changed
            if derived != changed:
                yield Mutation(call.scene, leaf.path, f"{kind}, moved", detail, derived.instruction())
    yield from no_instruction(call)


def leaf_values(leaf: Leaf) -> Iterator[tuple[tuple[str, str], bytes]]:
    kind: Any = leaf.kind
    if isinstance(kind, str) and kind in INTEGERS:
        yield from integers(leaf)
    elif kind == "bool":
        for byte in (0, 1):
            yield ("other value", str(bool(byte))), bytes([byte])
        for byte in (2, 128, 255):
            yield ("invalid", f"bool {byte}"), bytes([byte])
    elif kind == "pubkey":
        for name, key in (("zero key", bytes(32)), ("a stranger", bytes(FORGED)), ("ones", b"\xff" * 32)):
            yield ("other value", name), key
    elif kind in ("string", "bytes"):
        yield from texts(kind)
    elif "enum" in kind:
        for number in (kind["enum"], 127, 255):
            yield ("invalid", f"variant {number}"), bytes([number])
    elif "array" in kind:
        for byte in (0, 1, 255):
            yield ("other value", f"all {byte}"), bytes([byte]) * len(leaf.data)
    else:
        yield from vectors(leaf)


def integers(leaf: Leaf) -> Iterator[tuple[tuple[str, str], bytes]]:
    size, signed = INTEGERS[leaf.kind]
    bits = 8 * size
    least, most = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    now = int.from_bytes(leaf.data, "little", signed=signed)
    powers = [1 << (bits // 2), 1 << (bits - 2)]
    for value in sorted({least, least + 1, 1, now - 1, now + 1, *powers, most - 1, most}):
        if least <= value <= most:
            yield ("other value", str(value)), value.to_bytes(size, "little", signed=signed)


def texts(kind: str) -> Iterator[tuple[tuple[str, str], bytes]]:
    for length in LENGTHS:
        yield ("other value", f"{length} bytes"), length.to_bytes(4, "little") + b"a" * length
    odd = {"NUL": b"a\0b", "not ASCII": "ü".encode(), "spaces": b" a b "}
    for name, body in odd.items():
        yield ("other value", name), len(body).to_bytes(4, "little") + body
    invalid = {
        "a lone byte": b"\xff",
        "cut off": b"\xc3",
        "overlong": b"\xc0\x80",
        "a surrogate": b"\xed\xa0\x80",
    }
    for name, body in invalid.items():
        data = len(body).to_bytes(4, "little") + body
        yield ("invalid UTF-8" if kind == "string" else "other value", name), data
    for lie in LIES:
        yield ("invalid", f"length {lie}, without a body"), lie.to_bytes(4, "little")


def vectors(leaf: Leaf) -> Iterator[tuple[tuple[str, str], bytes]]:
    """Other counts of elements of 32 bytes, which is all that there are; equal and different ones."""
    assert leaf.kind in ({"vec": "pubkey"}, {"vec": {"array": ["u8", 32]}}), f"no values for {leaf.kind}"
    for count in COUNTS:
        head = count.to_bytes(4, "little")
        yield (
            ("other value", f"{count} different"),
            head + b"".join(i.to_bytes(32, "big") for i in range(count)),
        )
        if count > 1:
            yield ("other value", f"{count} equal"), head + bytes(FORGED) * count
    for lie in LIES:
        yield ("invalid", f"length {lie}, without a body"), lie.to_bytes(4, "little")


def no_instruction(call: Call) -> Mutations:
    """Data that is cut off, goes on, or belongs to another instruction."""

    def mutation(target: str, kind: str, detail: str, data: bytes) -> Mutation:
        return Mutation(call.scene, target, kind, detail, call.instruction(data=data))

    data = call.data
    ends = {0, 1, 7, len(data) - 1}
    at = 8
    for leaf in call.leaves:
        ends |= {at, at + 1}
        at += len(leaf.data)
    for end in sorted(end for end in ends if 0 <= end < len(data)):
        yield mutation("data", "cut off", f"after {end} of {len(data)} bytes", data[:end])
    for more in (b"\0", b"\xff" * 32):
        yield mutation("data", "goes on", f"with {len(more)} bytes", data + more)
    wrong = {"zero": bytes(8), "ones": b"\xff" * 8, "one bit": bytes([data[0] ^ 1]) + data[1:8]}
    for name, discriminator in wrong.items():
        yield mutation("discriminator", "unknown", name, discriminator + data[8:])
    for name, other in call.idl.instructions.items():
        if name != call.name:
            yield mutation("discriminator", "of another", name, bytes(other["discriminator"]) + data[8:])
