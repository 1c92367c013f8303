// node state.js RPC_URL RUN_STATE: decodeRunState as JSON; bytes in hex, addresses in base58, 64-bit numbers as text.
import { Connection, PublicKey } from "@solana/web3.js";
import assert from "node:assert/strict";
import { decodeRunState, runStateSize, slotOf, uploader } from "./psyche/run-state.js";

const [url, address] = process.argv.slice(2) as [string, string];
const account = await new Connection(url, "confirmed").getAccountInfo(new PublicKey(address));
const data = account!.data;
const state = decodeRunState(data);
assert.equal(data.length, runStateSize(state.capacity));
assert.equal(uploader({ ...state, uploader: 0xffff }), undefined);
assert.equal(slotOf(state, state.slots[1]!.wallet), 1);
assert.equal(slotOf(state, PublicKey.unique()), undefined);

// Bytes that are no RunState are refused.
const changed = (at: number, byte: number) => { const copy = Buffer.from(data); copy[at] = byte; return copy; };
for (const wrong of [new Uint8Array(0), data.subarray(0, 100), data.subarray(1), data.subarray(0, data.length - 1),
  Buffer.concat([data, Buffer.of(0)]), changed(0, 0), changed(8, 77)]) {
  assert.throws(() => decodeRunState(wrong), /RunState/);
}
// A view into a larger buffer decodes alike.
const inside = Buffer.concat([Buffer.alloc(3), data, Buffer.alloc(9)]).subarray(3, 3 + data.length);
assert.deepEqual(decodeRunState(inside), state);

console.log(JSON.stringify(state, (_, value) => {
  if (typeof value === "bigint") return value.toString();
  if (value instanceof Uint8Array) return Buffer.from(value).toString("hex");
  return value;
}));
process.exit(0);
