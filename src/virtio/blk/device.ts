/**
 * The virtio-blk device: a block store as a virtio device.
 *
 * Source: virtio specification 1.3, "Block Device".
 */
import type { BlockStore } from "../../block/block-store.ts";
import { assert } from "../../errors.ts";
import { SavedState } from "../../pci/saved-state.ts";
import { log2Floor } from "../../units.ts";
import { CommonFeature } from "../features.ts";
import type { VirtioDevice, VirtioHost, WorkOutcome } from "../pci/virtio-device.ts";
import {
  BLOCK_CLASS,
  BlockConfig,
  blockFeatures,
  SECTOR_BYTES,
  VIRTIO_ID_BLOCK,
} from "./protocol.ts";
import {
  type BlockDeviceView,
  RANGE_SECTORS_MAX,
  RANGES_MAX,
  RequestQueue,
} from "./request-queue.ts";

/** Header and status take two descriptors of a queue. */
const OTHER_SEGMENTS = 2;
/** Longest segment that a driver may use. */
const SEGMENT_BYTES_MAX = 2 ** 20;
const PHYSICAL_BYTES = 4096;
const FLUSH_BIT = blockFeatures("FLUSH");
const CONFIG_WCE_BIT = blockFeatures("CONFIG_WCE");
const DISCARD_BIT = blockFeatures("DISCARD");
const WRITE_ZEROES_BIT = blockFeatures("WRITE_ZEROES");

/** How a device is made. */
export interface VirtioBlkSettings {
  readonly store: BlockStore;
  /** Request queues, 1 when left out. */
  readonly queueCount?: number;
  /** Largest size of each, a power of two; 256 when left out. */
  readonly queueSize?: number;
  /** Whether INDIRECT_DESC and EVENT_IDX are offered; they are when left out. */
  readonly hasIndirect?: boolean;
  readonly hasEventIndex?: boolean;
}

/** The device. */
export class VirtioBlk implements VirtioDevice, BlockDeviceView {
  readonly type = VIRTIO_ID_BLOCK;
  readonly classCode = BLOCK_CLASS;
  readonly configBytes = BlockConfig.bytes;
  readonly featuresLow: number;
  readonly featuresHigh = 0;
  readonly queueSizes: readonly number[];
  readonly store: BlockStore;
  revision = 0;
  readonly #config: Uint8Array;
  #queues: readonly RequestQueue[] = [];
  #host: VirtioHost | null = null;
  #accepted = 0;
  #hasCache = true;

  constructor(settings: VirtioBlkSettings) {
    const { store, queueCount = 1, queueSize = 256 } = settings;
    assert(store.bytes % SECTOR_BYTES === 0, "a disk has whole sectors");
    assert(queueCount >= 1 && queueSize > OTHER_SEGMENTS, "a disk has queues");
    this.store = store;
    this.queueSizes = new Array(queueCount).fill(queueSize);
    this.featuresLow =
      blockFeatures("SIZE_MAX", "SEG_MAX", "BLK_SIZE", "FLUSH", "TOPOLOGY", "CONFIG_WCE") |
      blockFeatures("MQ", ...(store.isReadOnly ? (["RO"] as const) : WRITABLE)) |
      (settings.hasIndirect === false ? 0 : CommonFeature.INDIRECT_DESC) |
      (settings.hasEventIndex === false ? 0 : CommonFeature.EVENT_IDX);
    this.#config = configOf(store, queueCount, queueSize);
  }

  /** Without FLUSH, or with the cache switched off, what is complete is durable. */
  get isWriteBack(): boolean {
    return (this.#accepted & FLUSH_BIT) !== 0 && this.#hasCache;
  }

  get hasDiscard(): boolean {
    return (this.#accepted & DISCARD_BIT) !== 0;
  }

  get hasWriteZeroes(): boolean {
    return (this.#accepted & WRITE_ZEROES_BIT) !== 0;
  }

  attach(host: VirtioHost): void {
    this.#host = host;
    this.#queues = host.queues.queues.map((queue, index) => new RequestQueue(index, queue, this));
  }

  acceptFeatures(low: number): boolean {
    this.#accepted = low;
    this.revision += 1;
    return true;
  }

  readConfig(offset: number): number {
    if (offset === BlockConfig.at.writeback) return this.#hasCache ? 1 : 0;
    return this.#config[offset]!;
  }

  /** The driver may switch the write cache off, if CONFIG_WCE is agreed on; nothing else. */
  writeConfig(offset: number, bytes: Uint8Array): void {
    if (offset !== BlockConfig.at.writeback || bytes.length !== 1) return;
    if ((this.#accepted & CONFIG_WCE_BIT) === 0 || bytes[0]! > 1) return;
    this.#hasCache = bytes[0] === 1;
    this.revision += 1;
  }

  work(queueIndex: number): WorkOutcome {
    return this.#queues[queueIndex]!.work();
  }

  finished(queueIndex: number): void {
    this.#host!.completed(queueIndex);
    this.#host!.wake(queueIndex);
  }

  resetQueue(queueIndex: number): void {
    this.#queues[queueIndex]!.reset();
  }

  reset(): void {
    for (const queue of this.#queues) queue.reset();
    this.#accepted = 0;
    this.#hasCache = true;
    this.revision += 1;
  }

  systemReset(): void {
    this.reset();
  }

  save(): unknown {
    return { hasCache: this.#hasCache };
  }

  restore(state: unknown): void {
    this.#hasCache = new SavedState("a virtio-blk device", state).flag("hasCache");
  }
}

const WRITABLE = ["DISCARD", "WRITE_ZEROES"] as const;

function configOf(store: BlockStore, queueCount: number, queueSize: number): Uint8Array {
  const { blockBytes, isReadOnly } = store;
  return BlockConfig.bytesOf({
    capacity: BigInt(store.bytes / SECTOR_BYTES),
    sizeMax: SEGMENT_BYTES_MAX,
    segMax: queueSize - OTHER_SEGMENTS,
    cylinders: 0,
    heads: 0,
    sectors: 0,
    blockBytes,
    physicalBlockExponent: Math.max(0, log2Floor(PHYSICAL_BYTES) - log2Floor(blockBytes)),
    alignmentOffset: 0,
    minimumBlocks: Math.max(1, PHYSICAL_BYTES / blockBytes),
    optimalBlocks: 0,
    writeback: 1,
    queueCount,
    discardSectorsMax: isReadOnly ? 0 : RANGE_SECTORS_MAX,
    discardSegmentsMax: isReadOnly ? 0 : RANGES_MAX,
    discardAlignment: blockBytes / SECTOR_BYTES,
    zeroesSectorsMax: isReadOnly ? 0 : RANGE_SECTORS_MAX,
    zeroesSegmentsMax: isReadOnly ? 0 : RANGES_MAX,
    zeroesMayUnmap: 1,
  });
}
