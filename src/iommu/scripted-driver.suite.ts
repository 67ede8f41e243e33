/** A paging domain's driver that notes every call and answers as it is told. */
import { Errno } from "../errno.ts";
import type { DriverDomain } from "./driver-domain.ts";
import type { IotlbGather, TableList } from "./gather.ts";

/** Answers of a {@link ScriptedDriver}; what is left out succeeds. */
export interface Script {
  /** Maps may come this far, in frames in all; the call that would pass it gives `mapErrno`. */
  readonly mapLimit?: number;
  readonly mapErrno?: number;
  readonly syncMapErrno?: number;
  /** How many frames each unmap in turn removes; then as many as asked. */
  readonly unmaps?: readonly number[];
  /** Whether the driver adds what it unmaps to the gather itself. */
  readonly gathers?: boolean;
  /** Whether every frame reads as not mapped. */
  readonly empty?: boolean;
  /** A table that each unmap cuts off. */
  readonly table?: number;
}

/** A driver without tables or caches. */
export class ScriptedDriver implements DriverDomain {
  readonly style: "range" | "pages";
  readonly pageShifts: readonly number[];
  readonly apertureStartPfn = 0;
  readonly apertureLastPfn = 2 ** 52 - 1;
  readonly forceAperture = true;
  readonly deferredFlush = true;
  readonly shadowOnFlush = false;
  mappedPages = 0;
  /** One line for each call. */
  readonly calls: string[] = [];
  readonly #script: Script;
  #mapped = 0;
  #unmaps = 0;

  constructor(
    style: "range" | "pages",
    script: Script = {},
    pageShifts: readonly number[] = [12, 21, 30],
  ) {
    this.style = style;
    this.#script = script;
    this.pageShifts = pageShifts;
  }

  map(iovaPfn: number, physPfn: number, pageShift: number, count: number): number {
    const { mapLimit = Number.POSITIVE_INFINITY, mapErrno = Errno.ENOMEM } = this.#script;
    const size = 2 ** (pageShift - 12);
    this.calls.push(`map ${iovaPfn} ${physPfn} ${count}x2^${pageShift}`);
    const room = Math.floor((mapLimit - this.#mapped) / size);
    this.mappedPages = Math.min(count, Math.max(room, 0)) * size;
    this.#mapped += this.mappedPages;
    return this.mappedPages === count * size ? Errno.OK : mapErrno;
  }

  unmap(iovaPfn: number, pageShift: number, count: number, gather: IotlbGather): number {
    this.calls.push(`unmap ${iovaPfn} ${count}x2^${pageShift}`);
    const unmapped = this.#script.unmaps?.[this.#unmaps] ?? count * 2 ** (pageShift - 12);
    this.#unmaps += 1;
    if (this.#script.gathers === true && unmapped > 0) gather.addRange(iovaPfn, unmapped);
    if (this.#script.table !== undefined) gather.addTable(this.#script.table);
    return unmapped;
  }

  iovaToPhys(iovaPfn: number): number {
    return this.#script.empty === true ? -1 : iovaPfn + 1000;
  }

  iotlbSync(gather: IotlbGather): void {
    this.calls.push(`sync ${gather.startPfn}-${gather.lastPfn}`);
  }

  iotlbSyncMap(iovaPfn: number, pages: number): number {
    this.calls.push(`syncMap ${iovaPfn} ${pages}`);
    return this.#script.syncMapErrno ?? Errno.OK;
  }

  flushIotlbAll(): void {
    this.calls.push("flush");
  }

  freeTables(tables: TableList): void {
    this.calls.push(`free ${tables.join(" ")}`);
  }
}
