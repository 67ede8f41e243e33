/** A block store that counts its operations and their times. */
import type { BlockStore, Done } from "../../block/block-store.ts";
import type { Segment } from "../../memory/device-memory.ts";
import type { Counter, LatencyHistogram, MetricMemory } from "../metrics/metric-memory.ts";

/** The store, in front of another. */
export class MeteredStore implements BlockStore {
  readonly #store: BlockStore;
  readonly #now: () => number;
  readonly #counts: Readonly<Record<"read" | "write" | "flush" | "discard" | "zero", Counter>>;
  readonly #readBytes: Counter;
  readonly #writeBytes: Counter;
  readonly #errors: Counter;
  readonly #times: LatencyHistogram;

  /** @param now - a clock in microseconds */
  constructor(store: BlockStore, metrics: MetricMemory, device: string, now: () => number) {
    this.#store = store;
    this.#now = now;
    const count = (direction: string) => metrics.counter("iommukit_io", device, direction);
    this.#counts = {
      read: count("read"),
      write: count("write"),
      flush: count("flush"),
      discard: count("discard"),
      zero: count("zero"),
    };
    this.#readBytes = metrics.counter("iommukit_io_bytes", device, "read");
    this.#writeBytes = metrics.counter("iommukit_io_bytes", device, "write");
    this.#errors = metrics.counter("iommukit_io_errors", device);
    this.#times = metrics.histogram("iommukit_io_seconds", device);
  }

  get bytes(): number {
    return this.#store.bytes;
  }

  get blockBytes(): number {
    return this.#store.blockBytes;
  }

  get isReadOnly(): boolean {
    return this.#store.isReadOnly;
  }

  get id(): string {
    return this.#store.id;
  }

  read(at: number, segments: readonly Segment[], done: Done): void {
    this.#count("read");
    this.#readBytes.add(bytesOf(segments));
    this.#store.read(at, segments, this.#timed(done));
  }

  write(at: number, segments: readonly Segment[], done: Done): void {
    this.#count("write");
    this.#writeBytes.add(bytesOf(segments));
    this.#store.write(at, segments, this.#timed(done));
  }

  flush(done: Done): void {
    this.#count("flush");
    this.#store.flush(this.#timed(done));
  }

  discard(at: number, bytes: number, done: Done): void {
    this.#count("discard");
    this.#store.discard(at, bytes, this.#timed(done));
  }

  writeZeroes(at: number, bytes: number, mayUnmap: boolean, done: Done): void {
    this.#count("zero");
    this.#store.writeZeroes(at, bytes, mayUnmap, this.#timed(done));
  }

  #count(kind: "read" | "write" | "flush" | "discard" | "zero"): void {
    this.#counts[kind].add(1);
  }

  #timed(done: Done): Done {
    const start = this.#now();
    return (errno) => {
      this.#times.record(this.#now() - start);
      if (errno !== 0) this.#errors.add(1);
      done(errno);
    };
  }
}

function bytesOf(segments: readonly Segment[]): number {
  let bytes = 0;
  for (const segment of segments) bytes += segment.bytes;
  return bytes;
}
