// `RunState`, the log of a run. It is zero-copy with arrays sized by its capacity, which an IDL cannot describe.
import { PublicKey } from "@solana/web3.js";
import {
  DISCRIMINATOR, HEADER_BYTES, INTERVAL_BYTES, MAX_CAPACITY, MAX_WITNESSES, NO_SLOT, RING, SLOT_BYTES,
  VERSION, Header, Interval, Reader, Round, Slot, list, readHeader, readInterval, readSlot,
} from "./layout.js";

export type { Checkpoint, Config, Header, Interval, Round, Slot } from "./layout.js";

export enum Phase {
  Uninitialized, WaitingForMembers, Warmup, RoundTrain, RoundWitness, Cooldown, Finished, Paused,
}
export enum SlotStatus { Free, Waiting, Active, Departed }
export enum RoundStatus { Empty, Open, Committed, Closed }

export interface RunState extends Header {
  phase: Phase;
  /** One for each place in the run, free ones too; the index is the number that the sets of a round hold. */
  slots: Slot[];
  /** The hashes that the members committed: `commitments[round % 4][slot]`. */
  commitments: Uint8Array[][];
  /** What each drawn witness saw of the round before: slots. */
  attestations: number[][];
  /** Samples that nobody trained, given out again first. */
  returned: Interval[];
}

const AFTER_HEADER = 8 + HEADER_BYTES;
const PER_SLOT = SLOT_BYTES + RING * 32 + INTERVAL_BYTES;
const ATTESTATIONS = MAX_WITNESSES * 32;

/** Bytes of an account for so many slots, as `create_run` wants it. */
export function runStateSize(capacity: number): number {
  return AFTER_HEADER + capacity * PER_SLOT + ATTESTATIONS;
}

/**
 * Decode an account's data, which `connection.getAccountInfo(run.runState)` and `onAccountChange` give.
 * The caller checks that the account's owner is the coordinator.
 *
 * @throws Error where the data are not a `RunState` of the version that this file reads.
 */
export function decodeRunState(data: Uint8Array): RunState {
  if (data.length < AFTER_HEADER || DISCRIMINATOR.some((byte, index) => data[index] !== byte)) {
    throw new Error(`these ${data.length} bytes are no RunState`);
  }
  const r = new Reader(data);
  const header = readHeader(r, 8);
  const { capacity } = header;
  if (header.version !== BigInt(VERSION)) {
    throw new Error(`RunState has version ${header.version}, this file reads ${VERSION}`);
  }
  if (capacity < 1 || capacity > MAX_CAPACITY || data.length !== runStateSize(capacity)) {
    throw new Error(`RunState holds ${data.length} bytes, which is wrong for ${capacity} slots`);
  }
  const commitments = AFTER_HEADER + capacity * SLOT_BYTES;
  const attestations = commitments + RING * capacity * 32;
  const returned = attestations + ATTESTATIONS;
  return {
    ...header,
    slots: list(capacity, (i) => readSlot(r, AFTER_HEADER + i * SLOT_BYTES)),
    commitments: list(RING, (ring) => list(capacity, (i) => r.raw(commitments + (ring * capacity + i) * 32, 32))),
    attestations: list(MAX_WITNESSES, (i) => r.set(attestations + i * 32)),
    returned: list(Math.min(header.returnedLen, capacity), (i) => readInterval(r, returned + i * INTERVAL_BYTES)),
  };
}

/** The rounds that the ring holds now, oldest first. */
export function rounds(state: RunState): Round[] {
  return state.rounds
    .filter((round) => round.status !== RoundStatus.Empty)
    .sort((a, b) => (a.number < b.number ? -1 : 1));
}

/** Slots with somebody in them, by number. */
export function members(state: RunState): Map<number, Slot> {
  return new Map([...state.slots.entries()].filter(([, slot]) => slot.status !== SlotStatus.Free));
}

/** The slot of a wallet, or undefined. */
export function slotOf(state: RunState, wallet: PublicKey): number | undefined {
  return [...members(state)].find(([, slot]) => slot.wallet.equals(wallet))?.[0];
}

/** Who records the checkpoint's address in this cooldown, or undefined. */
export function uploader(state: RunState): number | undefined {
  return state.uploader === NO_SLOT ? undefined : state.uploader;
}
