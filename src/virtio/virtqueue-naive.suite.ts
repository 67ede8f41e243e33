/**
 * A second device side of the split virtqueue, written from the specification alone and in the
 * plainest way: one flat array of bytes, bigint addresses, lists of objects, nothing kept between
 * calls but positions. The fast one is compared with it. It can be given bugs on purpose, to show
 * that the comparison finds them.
 */
import type { QueueAreas, QueueFeatures } from "./virtqueue-layout.ts";

/** Mistakes that a device could make. */
export type PlantedBug =
  | "available-index-unchecked"
  | "head-wraps"
  | "next-wraps"
  | "loop-unbounded"
  | "memory-unchecked"
  | "order-unchecked"
  | "indirect-nested"
  | "indirect-length-rounded"
  | "descriptor-read-again"
  | "writes-readable"
  | "used-slot-unwrapped"
  | "notify-always"
  | "event-off-by-one";

interface Segment {
  readonly address: bigint;
  readonly length: bigint;
  readonly isWritable: boolean;
}

/** A chain as the plain device sees it. */
export interface NaiveChain {
  readonly head: number;
  readonly readable: number[];
  readonly writableBytes: number;
}

/** What a pop gave. */
export type NaivePop = NaiveChain | "empty" | "paused" | "broken";

/** Half-open stretches of the flat array that are memory. */
export type Spans = readonly (readonly [start: number, end: number])[];

/** The plain device. */
export class NaiveDevice {
  readonly bytes: Uint8Array;
  spans: Spans;
  position = 0;
  usedPosition = 0;
  isBroken = false;
  /** Descriptors looked at by the last pop. */
  steps = 0;
  readonly #areas: QueueAreas;
  readonly #features: QueueFeatures;
  readonly #bugs: ReadonlySet<PlantedBug>;
  readonly #view: DataView;
  #inFlight = 0;
  #signalled = 0;
  #segments: Segment[] = [];

  constructor(
    bytes: Uint8Array,
    spans: Spans,
    areas: QueueAreas,
    features: QueueFeatures,
    bugs: readonly PlantedBug[] = [],
  ) {
    this.bytes = bytes;
    this.spans = spans;
    this.#areas = areas;
    this.#features = features;
    this.#bugs = new Set(bugs);
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  pop(readableMax: number): NaivePop {
    this.steps = 0;
    const size = this.#areas.size;
    if (this.isBroken) return "broken";
    if (!this.#ringsAreMapped()) return "paused";
    const available = this.#u16(this.#areas.driver + 2);
    const pending = (available - this.position + 65_536) % 65_536;
    if (pending === 0) return "empty";
    if (pending > size && !this.#has("available-index-unchecked")) return this.#break();
    if (this.#inFlight >= size) return this.#break();
    let head = this.#u16(this.#areas.driver + 4 + 2 * (this.position % size));
    if (head >= size) {
      if (!this.#has("head-wraps")) return this.#break();
      head %= size;
    }
    const segments = this.#segmentsOf(BigInt(this.#areas.descriptor), size, head, 0);
    if (segments === null) return this.#break();
    this.#segments = segments.filter((segment) => segment.length > 0n);
    const readable: number[] = [];
    let writableBytes = 0;
    for (const { address, length, isWritable } of this.#segments) {
      if (isWritable) writableBytes += Number(length);
      for (let at = 0n; at < length && !isWritable && readable.length < readableMax; at += 1n)
        readable.push(this.#byte(address + at));
    }
    this.position = (this.position + 1) % 65_536;
    this.#inFlight += 1;
    return { head, readable, writableBytes };
  }

  /** Answers the chain popped last. */
  reply(head: number, reply: readonly number[]): void {
    let segments = this.#segments;
    if (this.#has("descriptor-read-again")) {
      const table = BigInt(this.#areas.descriptor);
      segments = this.#segmentsOf(table, this.#areas.size, head, 0) ?? segments;
    }
    let left = [...reply];
    for (const { address, length, isWritable } of segments) {
      if (!isWritable && !this.#has("writes-readable")) continue;
      const count = Math.min(left.length, Number(length));
      for (let at = 0; at < count; at += 1) this.bytes[Number(address) + at] = left[at]!;
      left = left.slice(count);
    }
    const size = this.#areas.size;
    const slot = this.#has("used-slot-unwrapped")
      ? Math.min(this.usedPosition, size)
      : this.usedPosition % size;
    this.#view.setUint32(this.#areas.device + 4 + 8 * slot, head, true);
    this.#view.setUint32(this.#areas.device + 8 + 8 * slot, reply.length, true);
    this.usedPosition = (this.usedPosition + 1) % 65_536;
    this.#view.setUint16(this.#areas.device + 2, this.usedPosition, true);
    this.#inFlight -= 1;
  }

  /** Whether the driver is to be told, by walking over every entry since it was last asked. */
  shouldNotify(): boolean {
    if (!this.#ringsAreMapped()) return false;
    const from = this.#signalled;
    this.#signalled = this.usedPosition;
    const written: number[] = [];
    for (let at = from; at !== this.usedPosition; at = (at + 1) % 65_536) written.push(at);
    if (this.#has("notify-always")) return true;
    if (!this.#features.eventIndex)
      return written.length > 0 && (this.#u16(this.#areas.driver) & 1) === 0;
    const shift = this.#has("event-off-by-one") ? 1 : 0;
    const event = this.#u16(this.#areas.driver + 4 + 2 * this.#areas.size);
    return written.includes((event + shift) % 65_536);
  }

  #has(bug: PlantedBug): boolean {
    return this.#bugs.has(bug);
  }

  #break(): "broken" {
    this.isBroken = true;
    return "broken";
  }

  /** The segments of a chain, or null where it breaks a rule. */
  #segmentsOf(table: bigint, count: number, first: number, taken: number): Segment[] | null {
    const segments: Segment[] = [];
    let index = first;
    for (;;) {
      const at = Number(table) + 16 * index;
      const low = this.#view.getBigUint64(at, true);
      const length = this.#view.getUint32(at + 8, true);
      const flags = this.#u16(at + 12);
      const next = this.#u16(at + 14);
      this.steps += 1;
      if (this.steps > 100_000) return null;
      if ((flags & 4) !== 0) {
        const more = this.#indirect(low, length, flags, table, taken + segments.length);
        if (more === null) return null;
        segments.push(...more);
        return this.#isOrdered(segments) ? segments : null;
      }
      const isTooLong = taken + segments.length >= this.#areas.size;
      if (isTooLong && !this.#has("loop-unbounded")) return null;
      const segment = { address: low, length: BigInt(length), isWritable: (flags & 2) !== 0 };
      if (length > 0 && !this.#isMemory(low, BigInt(length))) return null;
      segments.push(segment);
      if ((flags & 1) === 0) return this.#isOrdered(segments) ? segments : null;
      if (next >= count && !this.#has("next-wraps")) return null;
      index = next % count;
    }
  }

  #indirect(
    address: bigint,
    length: number,
    flags: number,
    table: bigint,
    taken: number,
  ): Segment[] | null {
    const isNested = table !== BigInt(this.#areas.descriptor);
    if (!this.#features.indirect || (flags & 1) !== 0) return null;
    if (isNested && !this.#has("indirect-nested")) return null;
    if (length % 16 !== 0 && !this.#has("indirect-length-rounded")) return null;
    const entries = Math.floor(length / 16);
    if (entries === 0 || entries > this.#areas.size) return null;
    if (!this.#isMemory(address, BigInt(length))) return null;
    return this.#segmentsOf(address, entries, 0, taken);
  }

  #isOrdered(segments: readonly Segment[]): boolean {
    if (this.#has("order-unchecked")) return true;
    const full = segments.filter((segment) => segment.length > 0n || !segment.isWritable);
    const firstWritable = full.findIndex((segment) => segment.isWritable);
    return firstWritable < 0 || full.slice(firstWritable).every((segment) => segment.isWritable);
  }

  #isMemory(address: bigint, length: bigint): boolean {
    if (address + length > BigInt(this.bytes.length)) return false;
    if (this.#has("memory-unchecked")) return true;
    let from = Number(address);
    const end = from + Number(length);
    while (from < end) {
      const span = this.spans.find(([start, last]) => from >= start && from < last);
      if (span === undefined) return false;
      from = span[1];
    }
    return true;
  }

  #ringsAreMapped(): boolean {
    const { size, descriptor, driver, device } = this.#areas;
    return (
      this.#isMemory(BigInt(descriptor), BigInt(16 * size)) &&
      this.#isMemory(BigInt(driver), BigInt(6 + 2 * size)) &&
      this.#isMemory(BigInt(device), BigInt(6 + 8 * size))
    );
  }

  #byte(address: bigint): number {
    return this.bytes[Number(address)]!;
  }

  #u16(address: number): number {
    return this.#view.getUint16(address, true);
  }
}
