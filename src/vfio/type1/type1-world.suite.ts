/** Memory, domains and containers that the tests of type1 build their cases from. */
import { Errno } from "../../errno.ts";
import { type DomainTrace, DomainType, IommuDomain } from "../../iommu/domain.ts";
import { vtdSecondStage } from "../../iommu/formats/vtd-second-stage.ts";
import { IommuGroup } from "../../iommu/group.ts";
import { HardwareDomain } from "../../iommu/hardware-domain.ts";
import { PageTable } from "../../iommu/page-table.ts";
import { PagePool } from "../../memory/page-pool.ts";
import type { PinRun, ProcessMemory } from "../process/process-memory.ts";
import { UserProcess, type UserProcessOptions } from "../process/user-process.ts";
import { MapFlag } from "../uapi/type1.ts";
import { NO_USER_MEMORY, type UserMemory } from "../uapi/user-memory.ts";
import { AllowedRanges } from "./allowed-ranges.ts";
import { mapDma, mapRequest } from "./map.ts";
import { Type1, type Type1Domain, type Type1Group, type Type1Options } from "./type1.ts";
import { unmapDma, unmapRequest } from "./unmap.ts";

/** A page of a {@link FakeMemory}. */
export interface FakePage {
  readonly pfn: number;
  readonly isReserved?: boolean;
  readonly isWritable?: boolean;
}

/** Memory as a plain table of pages, whose pins are counted by frame. */
export class FakeMemory implements ProcessMemory {
  readonly pages = new Map<number, FakePage>();
  readonly pins = new Map<number, number>();
  readonly written = new Set<number>();
  /** Calls of pinRun that succeed before one fails; infinity for none. */
  pinsLeft = Number.POSITIVE_INFINITY;
  failures = 0;

  /** Puts frames side by side behind virtual pages. */
  put(vpn: number, pfn: number, pages: number, kind: Partial<FakePage> = {}): this {
    for (let index = 0; index < pages; index += 1) {
      this.pages.set(vpn + index, { ...kind, pfn: pfn + index });
    }
    return this;
  }

  /** Pins in all. */
  get pinned(): number {
    let sum = 0;
    for (const count of this.pins.values()) sum += count;
    return sum;
  }

  pinRun(vpn: number, pages: number, isWrite: boolean, _batch: number, out: PinRun): number {
    if (this.pinsLeft <= 0) {
      this.failures += 1;
      return Errno.ENOMEM;
    }
    this.pinsLeft -= 1;
    const errno = this.#errnoAt(vpn, isWrite);
    if (errno !== Errno.OK) return errno;
    const first = this.pages.get(vpn)!;
    out.pfn = first.pfn;
    out.isReserved = first.isReserved ?? false;
    out.nextErrno = Errno.OK;
    let count = 0;
    while (count < pages) {
      out.nextErrno = this.#errnoAt(vpn + count, isWrite);
      if (out.nextErrno !== Errno.OK) break;
      const page = this.pages.get(vpn + count)!;
      if (page.pfn !== first.pfn + count) break;
      if ((page.isReserved ?? false) !== out.isReserved) break;
      if (!out.isReserved) this.pins.set(page.pfn, (this.pins.get(page.pfn) ?? 0) + 1);
      count += 1;
    }
    out.pages = count;
    return Errno.OK;
  }

  unpin(pfn: number, pages: number, isDirty: boolean): void {
    for (let each = pfn; each < pfn + pages; each += 1) {
      const count = this.pins.get(each) ?? 0;
      if (count < 1) throw new Error(`frame ${each} is unpinned once too often`);
      if (count === 1) this.pins.delete(each);
      else this.pins.set(each, count - 1);
      if (isDirty) this.written.add(each);
    }
  }

  addNotifier(): void {}

  removeNotifier(): void {}

  #errnoAt(vpn: number, isWrite: boolean): number {
    const page = this.pages.get(vpn);
    if (page === undefined) return Errno.EFAULT;
    return isWrite && page.isWritable === false ? Errno.EFAULT : Errno.OK;
  }
}

/** What domains heard, a line for each event. */
export class EventLog implements DomainTrace {
  lines: string[] = [];

  map(iovaPfn: number, physPfn: number, pages: number): void {
    this.lines.push(`map ${iovaPfn} ${physPfn} ${pages}`);
  }

  unmap(iovaPfn: number, pages: number, unmapped: number): void {
    this.lines.push(`unmap ${iovaPfn} ${pages} ${unmapped}`);
  }
}

/** What a host with VT-d allows: all below 2^48 but the interrupts. */
export const VTD_RANGES = new AllowedRanges([
  { start: 0n, last: 0xfedf_ffffn },
  { start: 0xfef0_0000n, last: 0xffff_ffff_ffffn },
]);

/** A container, its caller and what it is made of. */
export class World {
  readonly type1: Type1;
  readonly memory = new FakeMemory();
  readonly process: UserProcess;
  readonly pool: PagePool;
  readonly tables: PageTable[] = [];
  readonly log = new EventLog();
  user: UserMemory = NO_USER_MEMORY;
  readonly #isTraced: boolean;

  constructor(
    options: {
      readonly type1?: Partial<Type1Options>;
      readonly process?: Partial<UserProcessOptions>;
      readonly domains?: number;
      /** Whether the log hears of the domains, which it does by default. */
      readonly isTraced?: boolean;
    } = {},
  ) {
    this.#isTraced = options.isTraced ?? true;
    this.type1 = new Type1({ isV2: true, ...options.type1 });
    this.process = new UserProcess({ memory: this.memory, ...options.process });
    this.pool = new PagePool([{ node: 0, basePfn: 0x1000_0000, frameCount: 16384 }]);
    for (let index = 0; index < (options.domains ?? 1); index += 1) this.addDomain();
  }

  /** Adds a domain with one group, as an attach without mappings does. */
  addDomain(): Type1Domain {
    const format = vtdSecondStage({ levels: 4 });
    const table = new PageTable({ format, pool: this.pool, node: 0 });
    const driver = new HardwareDomain({ table });
    const trace = this.#isTraced ? this.log : null;
    const domain = new IommuDomain(DomainType.UNMANAGED, driver, trace);
    const member = { domain, groups: [makeGroup()], coherencyEnforced: false };
    this.tables.push(table);
    this.type1.domains.unshift(member);
    this.type1.nonPinnedGroups += 1;
    this.type1.pageSizes = 0x4020_1000n;
    this.type1.allowed = VTD_RANGES;
    return member;
  }

  /** Adds a group of mediated devices. */
  addEmulated(): Type1Group {
    const group = makeGroup();
    group.isPinnedScope = true;
    this.type1.emulatedGroups.push(group);
    return group;
  }

  map(iova: number, vaddr: number, size: number, flags: number = MapFlag.READ | MapFlag.WRITE) {
    const request = mapRequest(flags, BigInt(vaddr), BigInt(iova), BigInt(size));
    return mapDma(this.type1, this.process, request);
  }

  /** @returns the errno, or the bytes unmapped as text */
  unmap(iova: number, size: number, flags = 0): number | string {
    const request = unmapRequest(flags, BigInt(iova), BigInt(size));
    const errno = unmapDma(this.type1, request, this.user);
    return errno === Errno.OK ? `${BigInt(request.unmappedPages) * 4096n}` : errno;
  }

  /** All that must be as before after a call that failed. */
  state(): unknown {
    const { type1 } = this;
    return {
      mappings: [...type1.mappings].map((mapping) => ({
        ...mapping,
        extents: mapping.extents.runs(),
        pins: mapping.pins === null ? null : [...mapping.pins.frames()],
        dirty: mapping.dirty === null ? null : dirtyBitsOf(mapping.dirty),
        process: mapping.process === this.process,
      })),
      counts: [type1.dmaAvail, type1.vaddrInvalidCount, type1.nonPinnedGroups],
      isTrackingDirty: type1.isTrackingDirty,
      locked: this.process.lockedPages,
      pins: [...this.memory.pins].sort((a, b) => a[0] - b[0]),
      tables: this.tables.map((table) => leavesOf(table)),
      // Tables that became empty stay part of the tree, as in the kernel; none may be lost.
      lostFrames: this.pool.usedFrames - this.#tableFrames(),
      pendingTables: this.tables.map((table) => table.pendingTables),
    };
  }

  #tableFrames(): number {
    return this.tables.reduce((sum, table) => sum + table.tableBytes / 4096, 0);
  }
}

function makeGroup(): Type1Group {
  return { group: new IommuGroup(0, { defaultType: DomainType.DMA }), isPinnedScope: false };
}

function dirtyBitsOf(dirty: {
  forEachSet: (a: number, b: number, f: (bit: number) => void) => void;
  bits: number;
}) {
  const bits: number[] = [];
  dirty.forEachSet(0, dirty.bits, (bit) => bits.push(bit));
  return bits;
}

/** Every leaf of a table, in order. */
export function leavesOf(table: PageTable): unknown[] {
  const leaves: unknown[] = [];
  table.forEachLeaf((leaf) => leaves.push({ ...leaf }));
  return leaves;
}
