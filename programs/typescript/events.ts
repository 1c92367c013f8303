// Events of a program in a transaction's log lines, at whatever depth the program was called.
import type { PublicKey } from "@solana/web3.js";

export interface ProgramEvent {
  name: string;
  data: any;
}

/** What an Anchor program has as `program.coder.events`. */
export interface EventCoder {
  decode(log: string): { name: string; data: any } | null;
}

const INVOKED = /^Program ([1-9A-HJ-NP-Za-km-z]{32,44}) invoke \[(\d+)\]$/;
const ENDED = /^Program [1-9A-HJ-NP-Za-km-z]{32,44} (success$|failed)/;
const DATA = "Program data: ";

/**
 * The events that `program` emitted, in their order.
 *
 * `EventParser` of `@anchor-lang/core` does the same. That of `@coral-xyz/anchor` (0.32.1 and before) takes
 * every inner call for another program's, and so misses what the coordinator emits when the treasurer calls it.
 * A log that the validator cut off ("Log truncated") gives the events before the cut.
 */
export function parseEvents(program: PublicKey | string, coder: EventCoder, logs: readonly string[]): ProgramEvent[] {
  const wanted = program.toString();
  const stack: string[] = [];
  const found: ProgramEvent[] = [];
  for (const line of logs) {
    const invoked = INVOKED.exec(line);
    if (invoked) {
      stack.length = Number(invoked[2]) - 1;
      stack.push(invoked[1]!);
    } else if (ENDED.test(line)) {
      stack.pop();
    } else if (line.startsWith(DATA) && stack.at(-1) === wanted) {
      const event = coder.decode(line.slice(DATA.length));
      if (event) found.push(event);
    }
  }
  return found;
}
