/** A driver's paging domain for tests: a map of frames, a log of calls, failures on demand. */
import { Errno } from "../errno.ts";
import type { DriverDomain } from "../iommu/driver-domain.ts";
import type { IotlbGather, TableList } from "../iommu/gather.ts";
import { PAGE_SHIFT } from "../units.ts";

/** What a {@link FakeDriver} may be told to do differently. */
export interface FakeDriverOptions {
  readonly style?: "range" | "pages";
  readonly pageShifts?: readonly number[];
  readonly apertureStartPfn?: number;
  readonly apertureLastPfn?: number;
  readonly deferredFlush?: boolean;
  readonly shadowOnFlush?: boolean;
  /** Tables that each unmap of at least 512 frames leaves to be freed. */
  readonly tables?: boolean;
}

/** Keeps mappings frame by frame and writes down every call. */
export class FakeDriver implements DriverDomain {
  readonly style: "range" | "pages";
  readonly pageShifts: readonly number[];
  readonly apertureStartPfn: number;
  readonly apertureLastPfn: number;
  readonly forceAperture = true;
  readonly deferredFlush: boolean;
  readonly shadowOnFlush: boolean;
  readonly frames = new Map<number, { phys: number; prot: number }>();
  readonly log: string[] = [];
  readonly #tables: boolean;
  mappedPages = 0;
  /** Calls of map and iotlbSyncMap that still succeed. */
  successesLeft = Number.POSITIVE_INFINITY;
  failure: number = Errno.ENOMEM;
  #nextTable = 1000;

  constructor(options: FakeDriverOptions = {}) {
    this.style = options.style ?? "range";
    this.pageShifts = options.pageShifts ?? [12, 21, 30];
    this.apertureStartPfn = options.apertureStartPfn ?? 0;
    this.apertureLastPfn = options.apertureLastPfn ?? 2 ** 36 - 1;
    this.deferredFlush = options.deferredFlush ?? true;
    this.shadowOnFlush = options.shadowOnFlush ?? false;
    this.#tables = options.tables ?? false;
  }

  map(iovaPfn: number, physPfn: number, pageShift: number, count: number, prot: number): number {
    this.mappedPages = 0;
    const pages = count * 2 ** (pageShift - PAGE_SHIFT);
    this.log.push(`map ${iovaPfn.toString(16)}+${pages} -> ${physPfn.toString(16)} ${prot}`);
    if (!this.#succeeds()) return this.failure;
    for (let page = 0; page < pages; page += 1) {
      if (this.frames.has(iovaPfn + page)) return Errno.EADDRINUSE;
      this.frames.set(iovaPfn + page, { phys: physPfn + page, prot });
      this.mappedPages += 1;
    }
    return Errno.OK;
  }

  unmap(iovaPfn: number, pageShift: number, count: number, gather: IotlbGather): number {
    const pages = count * 2 ** (pageShift - PAGE_SHIFT);
    this.log.push(`unmap ${iovaPfn.toString(16)}+${pages}${gather.queued ? " queued" : ""}`);
    let unmapped = 0;
    while (unmapped < pages && this.frames.delete(iovaPfn + unmapped)) unmapped += 1;
    if (this.#tables && pages >= 512) {
      gather.addTable(this.#nextTable);
      this.#nextTable += 1;
    }
    if (!gather.queued && unmapped > 0) gather.addRange(iovaPfn, unmapped);
    return unmapped;
  }

  iovaToPhys(iovaPfn: number): number {
    return this.frames.get(iovaPfn)?.phys ?? -1;
  }

  iotlbSync(gather: IotlbGather): void {
    this.log.push(`sync ${gather.startPfn.toString(16)}..${gather.lastPfn.toString(16)}`);
  }

  iotlbSyncMap(iovaPfn: number, pages: number): number {
    this.log.push(`sync-map ${iovaPfn.toString(16)}+${pages}`);
    return this.#succeeds() ? Errno.OK : this.failure;
  }

  flushIotlbAll(): void {
    this.log.push("flush-all");
  }

  freeTables(tables: TableList): void {
    this.log.push(`free-tables ${tables.join(",")}`);
  }

  /** Takes the log out. */
  takeLog(): string[] {
    return this.log.splice(0);
  }

  #succeeds(): boolean {
    this.successesLeft -= 1;
    return this.successesLeft >= 0;
  }
}
