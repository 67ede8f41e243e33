/**
 * What a controller is built from, and what follows from that: its size in blocks, its identity.
 */
import type { BlockStore } from "../block/block-store.ts";
import { assert } from "../errors.ts";
import type { DeviceMemory } from "../memory/device-memory.ts";
import type { InterruptSink } from "../pci/function.ts";
import { Random } from "../random.ts";
import { journalWords, type NvmeJournal } from "./journal.ts";

/** What a controller is built from. */
export interface NvmeSettings {
  readonly memory: DeviceMemory;
  /** The namespace. Its blocks of 512 or 4096 bytes are the logical blocks. */
  readonly store: BlockStore;
  readonly interrupts: InterruptSink;
  /** I/O queue pairs, 1 … 64; each has an interrupt vector, and the admin queue one more. */
  readonly queues?: number;
  /** Where state goes that must outlive the process; nowhere when left out. */
  readonly journal?: NvmeJournal;
}

/** The settings with everything filled in. */
export interface NvmeConfig {
  readonly memory: DeviceMemory;
  readonly store: BlockStore;
  readonly interrupts: InterruptSink;
  readonly queues: number;
  readonly vectors: number;
  readonly journal: NvmeJournal;
  /** Logical blocks of the namespace. */
  readonly blocks: number;
  readonly blockBytes: number;
  readonly serial: string;
  /** Identity of the namespace and the subsystem: the same for the same serial number. */
  readonly uuid: Uint8Array;
}

const QUEUES_DEFAULT = 8;
const QUEUES_MAX = 64;

/** Fills the settings in. */
export function completeSettings(settings: NvmeSettings): NvmeConfig {
  const { store, queues = QUEUES_DEFAULT } = settings;
  assert(Number.isInteger(queues) && queues >= 1, "a controller has an I/O queue");
  assert(queues <= QUEUES_MAX, `a controller has at most ${QUEUES_MAX} I/O queues`);
  assert(store.blockBytes === 512 || store.blockBytes === 4096, "blocks have 512 or 4096 bytes");
  const words = new Uint32Array(settings.journal === undefined ? journalWords(queues) : 0);
  return {
    memory: settings.memory,
    store,
    interrupts: settings.interrupts,
    queues,
    vectors: queues + 1,
    journal: settings.journal ?? { words, keep: () => {} },
    blocks: Math.floor(store.bytes / store.blockBytes),
    blockBytes: store.blockBytes,
    serial: store.id,
    uuid: uuidOf(store.id),
  };
}

/** A UUID of version 8 (RFC 9562), made of a serial number. */
function uuidOf(serial: string): Uint8Array {
  const random = new Random(0).fork(serial);
  const bytes = Uint8Array.from({ length: 16 }, () => random.bits32() & 0xff);
  bytes[6] = (bytes[6]! & 0x0f) | 0x80;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  return bytes;
}

/** A UUID in its usual spelling. */
export function uuidText(uuid: Uint8Array): string {
  const digits = [...uuid].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
