/**
 * The stack with translation: the DMA API of a PCI device over an IOVA space, a flush queue in lazy
 * mode, and whatever IOMMU is behind the domain.
 */
import { DMA_ERROR, DmaDevice } from "../../dma/dma-device.ts";
import { DmaDomain } from "../../dma/dma-domain.ts";
import { NO_IOVA } from "../../dma/iova-tree.ts";
import type { Policy } from "../../dma/policy.ts";
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import type { IommuDomain } from "../../iommu/domain.ts";
import { PROT_RW, Prot } from "../../iommu/prot.ts";
import { ReservedType } from "../../iommu/reserved-regions.ts";
import { PAGE_BYTES, PFN_LAST } from "../../units.ts";
import { WheelTimer } from "./flush-timer.ts";
import type { PolicyStack } from "./policy-stack.ts";
import type { FlushCounts, InvalidationCounts, TableCounts } from "./result.ts";
import type { RunMeter } from "./run-meter.ts";

const NS_PER_MS = 1e6;
/** Rights of a mapping whose direction the recording does not tell. */
const PROT = PROT_RW | Prot.CACHE;

/** Where x86 IOMMUs take writes for interrupts; no IOVA lies there. */
const MSI_REGION = {
  type: ReservedType.MSI,
  start: 0xfee0_0000n,
  last: 0xfeef_ffffn,
  prot: 0,
};

/** An IOMMU behind a stack. */
export interface StackBackend {
  readonly domain: IommuDomain;
  /** Called before an unmap that may leave memory reachable. */
  beforeUnmap(): void;
  /** Whether the unmap begun by {@link beforeUnmap} has left its memory reachable. */
  hasReach(): boolean;
  /** MAP and UNMAP commands so far. */
  mapCommands(): number;
  unmapCommands(): number;
  invalidationCounts(): InvalidationCounts | null;
  tableCounts(): TableCounts | null;
}

/** Settings of the DMA side. */
export interface TranslatedOptions {
  readonly policy: Policy;
  readonly cpus: number;
  readonly meter: RunMeter;
  readonly flushQueueSlots?: number;
  readonly flushTimeoutNs?: number;
}

/** A DMA stack over an IOMMU. */
export class TranslatedStack implements PolicyStack {
  dueNs = Number.POSITIVE_INFINITY;
  readonly #backend: StackBackend;
  readonly #device: DmaDevice;
  readonly #dma: DmaDomain;
  readonly #timer = new WheelTimer();
  #nowMs = 0;
  #depotMoves = 0;
  #depotDueMs = Number.POSITIVE_INFINITY;
  #searches = 0;
  #peakPages32 = 0;

  constructor(backend: StackBackend, options: TranslatedOptions) {
    const { policy, cpus, meter, flushQueueSlots, flushTimeoutNs } = options;
    this.#backend = backend;
    this.#dma = new DmaDomain(backend.domain, {
      cpus,
      meter,
      timer: this.#timer,
      flushQueue: {
        kind: policy.queue === "single" ? "single" : "per-cpu",
        ...(flushQueueSlots === undefined ? {} : { entries: flushQueueSlots }),
        ...(flushTimeoutNs === undefined ? {} : { timeoutMs: flushTimeoutNs / NS_PER_MS }),
      },
    });
    assert(this.#dma.init({ regions: [MSI_REGION] }) === Errno.OK, "a fresh domain takes a device");
    assert(
      (this.#dma.flushQueue !== null) === (policy.mode === "lazy"),
      "lazy means a flush queue",
    );
    this.#device = new DmaDevice(this.#dma, { isPci: true });
  }

  get hasReach(): boolean {
    return this.#backend.hasReach();
  }

  map(physPfn: number, pages: number, cpu: number): number {
    const iovaPfn = this.#device.mapRange(
      physPfn,
      0,
      pages * PAGE_BYTES,
      PROT,
      PFN_LAST,
      cpu,
      this.#nowMs,
    );
    this.#noteUse();
    return iovaPfn === DMA_ERROR ? -1 : iovaPfn;
  }

  // begin, link and commit do what DmaIovaRange does, without an object for each buffer.
  begin(pages: number, cpu: number): number {
    const iovaPfn = this.#device.iova!.alloc(pages, PFN_LAST, cpu);
    this.#noteUse();
    return iovaPfn === NO_IOVA ? -1 : iovaPfn;
  }

  link(iovaPfn: number, physPfn: number, pages: number): boolean {
    return this.#backend.domain.mapNoSync(iovaPfn, physPfn, pages, PROT) === Errno.OK;
  }

  commit(iovaPfn: number, pages: number): boolean {
    return this.#backend.domain.syncMap(iovaPfn, pages) === Errno.OK;
  }

  unmap(iovaPfn: number, pages: number, cpu: number): void {
    this.#timer.workingCpu = cpu;
    this.#backend.beforeUnmap();
    this.#dma.unmapAndFree(iovaPfn, pages, cpu, this.#nowMs);
    this.#noteDue();
  }

  unlink(iovaPfn: number, pages: number): void {
    this.#dma.unmapOnly(iovaPfn, pages);
  }

  release(iovaPfn: number, pages: number, cpu: number): void {
    this.#dma.freeIova(iovaPfn, pages, cpu, this.#nowMs);
    this.#noteDue();
  }

  advance(nowNs: number): void {
    this.#nowMs = nowNs / NS_PER_MS;
    this.#timer.nowMs = this.#nowMs;
    if (nowNs < this.dueNs) return;
    if (this.#timer.dueMs * NS_PER_MS <= nowNs) {
      const { cpu } = this.#timer;
      this.#timer.expire();
      this.#timer.workingCpu = cpu;
      this.#dma.onTimer(cpu, this.#nowMs);
    }
    if (this.#depotDueMs * NS_PER_MS <= nowNs) {
      this.#dma.iova.runDepotWork(this.#depotDueMs);
      this.#depotMoves = -1;
    }
    this.#noteDue();
  }

  mapCommands(): number {
    return this.#backend.mapCommands();
  }

  unmapCommands(): number {
    return this.#backend.unmapCommands();
  }

  below4GiBPeakPages(): number {
    return this.#peakPages32;
  }

  flushCounts(): FlushCounts | null {
    const counts = this.#dma.flushQueue?.counts;
    if (counts === undefined) return null;
    return { queued: counts.queued, full: counts.flushesFull, timer: counts.flushesTimer };
  }

  invalidationCounts(): InvalidationCounts | null {
    return this.#backend.invalidationCounts();
  }

  tableCounts(): TableCounts | null {
    return this.#backend.tableCounts();
  }

  /** What is mapped, cached or queued below 4 GiB grows only by a search of the tree. */
  #noteUse(): void {
    const { counts } = this.#dma.iova;
    if (counts.treeSearches === this.#searches) return;
    this.#searches = counts.treeSearches;
    const pages = counts.livePages32 + counts.cachedPages32;
    if (pages > this.#peakPages32) this.#peakPages32 = pages;
  }

  #noteDue(): void {
    const { cache } = this.#dma.iova;
    if (cache.depotMoves !== this.#depotMoves) {
      this.#depotMoves = cache.depotMoves;
      this.#depotDueMs = cache.depotWorkDueMs;
    }
    this.dueNs = Math.min(this.#timer.dueMs, this.#depotDueMs) * NS_PER_MS;
  }
}
