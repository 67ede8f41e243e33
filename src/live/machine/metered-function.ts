/** A PCI function in front of another that counts what its driver and its IOMMU's queue do. */
import type { MemoryView } from "../../memory/memory-view.ts";
import { type Meter, Step } from "../../meter.ts";
import type { PciFunction, PciRegion } from "../../pci/function.ts";
import { Structure, VirtioBar } from "../../virtio/pci/layout.ts";
import type { Counter, LatencyHistogram, MetricMemory } from "../metrics/metric-memory.ts";

/** Counts the requests of a virtio-iommu, and how its IOTLB fares. */
export class IommuMeter implements Meter {
  /** Requests so far. */
  requests = 0;
  readonly #byStep: (Counter | undefined)[] = [];

  constructor(metrics: MetricMemory, device: string) {
    const requests = (kind: string) => metrics.counter("iommukit_requests", device, kind);
    this.#byStep[Step.requestMap] = requests("map");
    this.#byStep[Step.requestUnmap] = requests("unmap");
    this.#byStep[Step.requestOther] = requests("other");
    this.#byStep[Step.iotlbHit] = metrics.counter("iommukit_iotlb_hits", device);
    this.#byStep[Step.iotlbMiss] = metrics.counter("iommukit_iotlb_misses", device);
    this.#byStep[Step.fault] = metrics.counter("iommukit_faults", device);
  }

  step(step: number, amount: number): void {
    if (step >= Step.requestMap && step <= Step.requestOther) this.requests += 1;
    this.#byStep[step]?.add(amount);
  }
}

/** The function of a virtio-iommu. */
export class MeteredIommu implements PciFunction {
  readonly regions: readonly PciRegion[];
  readonly vectors: number;
  readonly #inner: PciFunction;
  readonly #meter: IommuMeter;
  readonly #now: () => number;
  readonly #kicks: Counter;
  readonly #syncs: Counter;
  readonly #syncTimes: LatencyHistogram;
  /** When the kick came that the next batch answers; −1 for none. */
  #kickedAt = -1;

  /** @param now - a clock in microseconds */
  constructor(
    inner: PciFunction,
    meter: IommuMeter,
    metrics: MetricMemory,
    device: string,
    now: () => number,
  ) {
    this.#inner = inner;
    this.#meter = meter;
    this.#now = now;
    this.regions = inner.regions;
    this.vectors = inner.vectors;
    this.#kicks = metrics.counter("iommukit_kicks", device);
    this.#syncs = metrics.counter("iommukit_syncs", device);
    this.#syncTimes = metrics.histogram("iommukit_sync_seconds", device);
  }

  get revision(): number {
    return this.#inner.revision;
  }

  read(region: number, offset: number, target: MemoryView, at: number, count: number): boolean {
    return this.#inner.read(region, offset, target, at, count);
  }

  write(region: number, offset: number, source: MemoryView, at: number, count: number): boolean {
    if (isRequestDoorbell(region, offset)) {
      this.#kicks.add(1);
      if (this.#kickedAt < 0) this.#kickedAt = this.#now();
    }
    return this.#inner.write(region, offset, source, at, count);
  }

  work(): boolean {
    const before = this.#meter.requests;
    const hasMore = this.#inner.work();
    if (this.#meter.requests > before) {
      this.#syncs.add(1);
      if (this.#kickedAt >= 0) this.#syncTimes.record(this.#now() - this.#kickedAt);
    }
    if (!hasMore) this.#kickedAt = -1;
    return hasMore;
  }

  reset(): void {
    this.#inner.reset();
  }

  save(): unknown {
    return this.#inner.save();
  }

  restore(state: unknown): void {
    this.#inner.restore(state);
  }
}

/** Whether a write notifies queue 0, the request queue, by message or through the page. */
function isRequestDoorbell(region: number, offset: number): boolean {
  if (region === VirtioBar.DOORBELL) return offset === 0;
  return region === VirtioBar.REGISTERS && offset === Structure.NOTIFY;
}
