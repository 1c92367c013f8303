// node events.js RPC_URL POOL: the coordinator's events in all transactions of a pool, by parseEvents and by EventParser.
import assert from "node:assert/strict";
import { AnchorProvider, EventParser, Program } from "@anchor-lang/core";
import { Connection, PublicKey } from "@solana/web3.js";
import coordinatorIdl from "./psyche/coordinator.json" with { type: "json" };
import type { Coordinator } from "./psyche/coordinator.js";
import { parseEvents } from "./psyche/events.js";

const [url, pool] = process.argv.slice(2) as [string, string];
const connection = new Connection(url, "confirmed");
const { programId: program, coder } = new Program<Coordinator>(coordinatorIdl, { connection } as AnchorProvider);
const parser = new EventParser(program, coder);

// Made-up logs: the data line is decoded only where the coordinator itself runs, at whatever depth.
const other = "11111111111111111111111111111111";
const us = program.toBase58();
const echo = { decode: (log: string) => ({ name: log, data: null }) };
const names = (...logs: string[]) => parseEvents(us, echo, logs).map((event) => event.name);
assert.deepEqual(names(), []);
assert.deepEqual(names(`Program ${other} invoke [1]`, "Program data: a", `Program ${us} invoke [2]`, "Program data: b",
  `Program ${other} invoke [3]`, "Program data: c", `Program ${other} success`, "Program data: d",
  `Program ${us} success`, "Program data: e", `Program ${other} success`, `Program ${us} invoke [1]`,
  "Program log: Program data: x", "Program data: f", `Program ${us} consumed 5 of 9 compute units`,
  `Program ${us} failed: custom program error: 0x1`), ["b", "d", "f"]);
assert.deepEqual(names(`Program ${us} invoke [1]`, "Program data: a", "Log truncated"), ["a"]);
assert.deepEqual(names("Program data: a", `Program ${us} success`, "Program data: b"), []);

const entries = await connection.getSignaturesForAddress(new PublicKey(pool));
for (const { signature } of entries.reverse()) {
  const transaction = await connection.getTransaction(signature, { maxSupportedTransactionVersion: 0 });
  const logs = transaction!.meta!.logMessages!;
  const ours = parseEvents(program, coder.events, logs).map((event) => event.name);
  const theirs = [...parser.parseLogs(logs)].map((event) => event.name);
  console.log(JSON.stringify({ signature, ours, theirs }));
}
