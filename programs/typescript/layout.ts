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

export const DISCRIMINATOR = Uint8Array.of(196, 228, 198, 184, 77, 229, 44, 21);
export const VERSION = 1;
export const RING = 4;
export const MAX_CAPACITY = 256;
export const MAX_WITNESSES = 32;
export const NO_SLOT = 65535;
export const CONFIG_BYTES = 112;
export const INTERVAL_BYTES = 12;
export const CHECKPOINT_BYTES = 232;
export const ROUND_BYTES = 336;
export const SLOT_BYTES = 120;
export const HEADER_BYTES = 2192;

export interface Config {
  warmupTime: bigint;
  cooldownTime: bigint;
  maxRoundTrainTime: bigint;
  roundWitnessTime: bigint;
  epochTime: bigint;
  waitingForMembersExtraTime: bigint;
  globalBatchSizeWarmupTokens: bigint;
  totalSteps: bigint;
  globalBatchSizeStart: number;
  globalBatchSizeEnd: number;
  maxSeqLen: number;
  payPerTier: number[];
  initMinClients: number;
  minClients: number;
  minFullMembers: number;
  witnessNodes: number;
  maxMissed: number;
  maxFailedWarmups: number;
  maxTier: number;
}

export function readConfig(r: Reader, at: number): Config {
  return {
    warmupTime: r.u64(at + 0),
    cooldownTime: r.u64(at + 8),
    maxRoundTrainTime: r.u64(at + 16),
    roundWitnessTime: r.u64(at + 24),
    epochTime: r.u64(at + 32),
    waitingForMembersExtraTime: r.u64(at + 40),
    globalBatchSizeWarmupTokens: r.u64(at + 48),
    totalSteps: r.u64(at + 56),
    globalBatchSizeStart: r.u32(at + 64),
    globalBatchSizeEnd: r.u32(at + 68),
    maxSeqLen: r.u32(at + 72),
    payPerTier: list(4, (i) => r.u32(at + 76 + i * 4)),
    initMinClients: r.u16(at + 92),
    minClients: r.u16(at + 94),
    minFullMembers: r.u16(at + 96),
    witnessNodes: r.u16(at + 98),
    maxMissed: r.u16(at + 100),
    maxFailedWarmups: r.u16(at + 102),
    maxTier: r.u8(at + 104),
  };
}

export interface Interval {
  start: bigint;
  len: number;
}

export function readInterval(r: Reader, at: number): Interval {
  return {
    start: r.u64(at + 0),
    len: r.u32(at + 8),
  };
}

export interface Checkpoint {
  weightsHash: Uint8Array;
  history: Uint8Array;
  step: bigint;
  round: bigint;
  dataIndex: bigint;
  epoch: bigint;
  agreed: boolean;
  uri: string;
}

export function readCheckpoint(r: Reader, at: number): Checkpoint {
  return {
    weightsHash: r.raw(at + 0, 32),
    history: r.raw(at + 32, 32),
    step: r.u64(at + 64),
    round: r.u64(at + 72),
    dataIndex: r.u64(at + 80),
    epoch: r.u64(at + 88),
    agreed: r.u8(at + 98) !== 0,
    uri: r.text(at + 104, Math.min(r.u16(at + 96), 128)),
  };
}

export interface Round {
  number: bigint;
  step: bigint;
  epoch: bigint;
  dataIndex: bigint;
  openedAt: bigint;
  seed: Uint8Array;
  assigned: number[];
  committed: number[];
  witnesses: number[];
  attested: number[];
  accepted: number[];
  fills: Interval[];
  samples: number;
  numFills: number;
  trained: boolean;
  status: number;
}

export function readRound(r: Reader, at: number): Round {
  return {
    number: r.u64(at + 0),
    step: r.u64(at + 8),
    epoch: r.u64(at + 16),
    dataIndex: r.u64(at + 24),
    openedAt: r.i64(at + 32),
    seed: r.raw(at + 40, 32),
    assigned: r.set(at + 72),
    committed: r.set(at + 104),
    witnesses: r.set(at + 136),
    attested: r.set(at + 168),
    accepted: r.set(at + 200),
    fills: list(8, (i) => readInterval(r, at + 232 + i * 12)),
    samples: r.u32(at + 328),
    numFills: r.u16(at + 332),
    trained: r.u8(at + 334) !== 0,
    status: r.u8(at + 335),
  };
}

export interface Slot {
  wallet: PublicKey;
  hotKey: PublicKey;
  p2pKey: Uint8Array;
  earned: bigint;
  lastEpoch: number;
  weight: number;
  nextWeight: number;
  missed: number;
  missedWarmups: number;
  status: number;
  flags: number;
  tier: number;
  nextTier: number;
}

export function readSlot(r: Reader, at: number): Slot {
  return {
    wallet: r.key(at + 0),
    hotKey: r.key(at + 32),
    p2pKey: r.raw(at + 64, 32),
    earned: r.u64(at + 96),
    lastEpoch: r.u32(at + 104),
    weight: r.u16(at + 108),
    nextWeight: r.u16(at + 110),
    missed: r.u16(at + 112),
    missedWarmups: r.u16(at + 114),
    status: r.u8(at + 116),
    flags: r.u8(at + 117),
    tier: r.u8(at + 118),
    nextTier: r.u8(at + 119),
  };
}

export interface Header {
  version: bigint;
  nonce: bigint;
  run: PublicKey;
  specHash: Uint8Array;
  history: Uint8Array;
  seed: Uint8Array;
  config: Config;
  roundRate: bigint;
  nextRoundRate: bigint;
  payCarry: bigint;
  epoch: bigint;
  step: bigint;
  dataIndex: bigint;
  nextRound: bigint;
  phaseStart: bigint;
  epochStart: bigint;
  lostSamples: bigint;
  fillsSinceCheckpoint: bigint;
  lostSinceCheckpoint: bigint;
  totalEarned: bigint;
  createdSlot: bigint;
  capacity: number;
  returnedLen: number;
  failedWarmups: number;
  uploader: number;
  phase: number;
  flags: number;
  open: number;
  checkpoint: Checkpoint;
  pending: Checkpoint;
  rounds: Round[];
}

export function readHeader(r: Reader, at: number): Header {
  return {
    version: r.u64(at + 0),
    nonce: r.u64(at + 8),
    run: r.key(at + 16),
    specHash: r.raw(at + 48, 32),
    history: r.raw(at + 80, 32),
    seed: r.raw(at + 112, 32),
    config: readConfig(r, at + 144),
    roundRate: r.u64(at + 256),
    nextRoundRate: r.u64(at + 264),
    payCarry: r.u64(at + 272),
    epoch: r.u64(at + 280),
    step: r.u64(at + 288),
    dataIndex: r.u64(at + 296),
    nextRound: r.u64(at + 304),
    phaseStart: r.i64(at + 312),
    epochStart: r.i64(at + 320),
    lostSamples: r.u64(at + 328),
    fillsSinceCheckpoint: r.u64(at + 336),
    lostSinceCheckpoint: r.u64(at + 344),
    totalEarned: r.u64(at + 352),
    createdSlot: r.u64(at + 360),
    capacity: r.u16(at + 368),
    returnedLen: r.u16(at + 370),
    failedWarmups: r.u16(at + 372),
    uploader: r.u16(at + 374),
    phase: r.u8(at + 376),
    flags: r.u8(at + 377),
    open: r.u8(at + 378),
    checkpoint: readCheckpoint(r, at + 384),
    pending: readCheckpoint(r, at + 616),
    rounds: list(4, (i) => readRound(r, at + 848 + i * 336)),
  };
}
