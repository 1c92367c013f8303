#!/usr/bin/env python3
"""Write layout.ts: readers of `RunState`'s structures for TypeScript, from the same table that Python decodes by.

Run it after a change of the layout (psyche_chain/chain/layout.py); a test fails until then.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from psyche_chain.chain import layout  # noqa: E402

OUTPUT = HERE / "layout.ts"
KEYS = {"run", "wallet", "hot_key"}
"""32 bytes that are a Solana address; all others are hashes and libp2p keys."""
FLAGS = {"trained", "agreed"}
INTEGERS = {
    "|u1": "number:u8",
    "<u2": "number:u16",
    "<u4": "number:u32",
    "<u8": "bigint:u64",
    "<i8": "bigint:i64",
}

HEAD = """\
// Written by programs/typescript/generate.py from psyche_chain/chain/layout.py; do not edit.
import { PublicKey } from "@solana/web3.js";

/** Reads little-endian values of an account. */
export class Reader {
  private readonly view: DataView;
  constructor(readonly bytes: Uint8Array) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }
  u8(at: number): number { return this.view.getUint8(at); }
  u16(at: number): number { return this.view.getUint16(at, true); }
  u32(at: number): number { return this.view.getUint32(at, true); }
  u64(at: number): bigint { return this.view.getBigUint64(at, true); }
  i64(at: number): bigint { return this.view.getBigInt64(at, true); }
  raw(at: number, size: number): Uint8Array { return Uint8Array.from(this.bytes.subarray(at, at + size)); }
  key(at: number): PublicKey { return new PublicKey(this.raw(at, 32)); }
  text(at: number, size: number): string { return new TextDecoder().decode(this.raw(at, size)); }
  /** Numbers of the bits that are set in 256 bits: slots, in rising order. */
  set(at: number): number[] {
    const found: number[] = [];
    for (let bit = 0; bit < 256; bit += 1) {
      if ((this.u8(at + (bit >> 3)) >> (bit & 7)) & 1) found.push(bit);
    }
    return found;
  }
}

export function list<T>(count: number, read: (index: number) => T): T[] {
  return Array.from({ length: count }, (_, index) => read(index));
}
"""


@dataclass(frozen=True, slots=True)
class Field:
    """A field as TypeScript sees it: its name, its type, and the expression that reads it."""

    name: str
    type: str
    read: str


def camel(name: str) -> str:
    """`weights_hash` as Anchor's TypeScript client writes it: `weightsHash`."""
    first, *rest = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


def struct_name(dtype: np.dtype[np.void]) -> str:
    return next(name for name, known in layout.STRUCTS.items() if known == dtype)


def fields(dtype: np.dtype[np.void]) -> Iterator[Field]:
    """The fields of a structure in their order, paddings left out."""
    assert dtype.fields is not None
    assert dtype.names is not None
    for name in dtype.names:
        kind, offset = dtype.fields[name][:2]
        at = f"at + {offset}"
        base, shape = kind.subdtype or (kind, ())
        if name.startswith("_") or name == "uri_len":
            continue
        if name == "uri":
            read = f"r.text({at}, Math.min(r.u16(at + {dtype.fields['uri_len'][1]}), {kind.itemsize}))"
            yield Field(name, "string", read)
        elif base.fields is not None:
            inner = struct_name(base)
            if shape:
                read = f"list({shape[0]}, (i) => read{inner}(r, {at} + i * {base.itemsize}))"
                yield Field(camel(name), f"{inner}[]", read)
            else:
                yield Field(camel(name), inner, f"read{inner}(r, {at})")
        elif base.str == "<u8" and shape == (4,):
            yield Field(camel(name), "number[]", f"r.set({at})")
        elif base.str == "<u4" and shape == (2,):  # 64 bits at an address that divides by four only
            yield Field(camel(name), "bigint", f"r.u64({at})")
        elif base.kind == "V":
            key = name in KEYS
            read = f"r.key({at})" if key else f"r.raw({at}, {base.itemsize})"
            yield Field(camel(name), "PublicKey" if key else "Uint8Array", read)
        elif name in FLAGS:
            yield Field(camel(name), "boolean", f"r.u8({at}) !== 0")
        else:
            type_, method = INTEGERS[base.str].split(":")
            if shape:
                read = f"list({shape[0]}, (i) => r.{method}({at} + i * {base.itemsize}))"
                yield Field(camel(name), f"{type_}[]", read)
            else:
                yield Field(camel(name), type_, f"r.{method}({at})")


def generate() -> str:
    """The whole file."""
    parts = [HEAD]
    constants = {
        "DISCRIMINATOR": f"Uint8Array.of({', '.join(map(str, layout.DISCRIMINATOR))})",
        "VERSION": layout.VERSION,
        "RING": layout.RING,
        "MAX_CAPACITY": layout.MAX_CAPACITY,
        "MAX_WITNESSES": layout.MAX_WITNESSES,
        "NO_SLOT": layout.NO_SLOT,
        **{f"{name.upper()}_BYTES": dtype.itemsize for name, dtype in layout.STRUCTS.items()},
    }
    parts.append("".join(f"export const {name} = {value};\n" for name, value in constants.items()))
    for name, dtype in layout.STRUCTS.items():
        rows = list(fields(dtype))
        members = "".join(f"  {row.name}: {row.type};\n" for row in rows)
        reads = "".join(f"    {row.name}: {row.read},\n" for row in rows)
        parts.append(
            f"export interface {name} {{\n{members}}}\n\n"
            f"export function read{name}(r: Reader, at: number): {name} {{\n  return {{\n{reads}  }};\n}}\n"
        )
    return "\n".join(parts)


def main() -> None:
    """Write the file, or compare it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare only; exit status 1 where it differs")
    if parser.parse_args().check:
        if not OUTPUT.is_file() or OUTPUT.read_text() != generate():
            sys.exit(f"{OUTPUT.name} is not what the layout gives: run programs/typescript/generate.py")
        return
    OUTPUT.write_text(generate())


if __name__ == "__main__":
    main()
