/** A container with I/O page faults on, its process, its groups, and devices that fault. */
import { assert } from "../../errors.ts";
import { claimGroup } from "../../iommu/attach.ts";
import { IommuDevice } from "../../iommu/device.ts";
import { DomainType } from "../../iommu/domain.ts";
import { amdV1 } from "../../iommu/formats/amd-v1.ts";
import type { PageTableFormat } from "../../iommu/formats/format.ts";
import { vtdSecondStage } from "../../iommu/formats/vtd-second-stage.ts";
import type { IommuGroup } from "../../iommu/group.ts";
import { IommuGroups } from "../../iommu/groups.ts";
import type { HardwareDomain } from "../../iommu/hardware-domain.ts";
import { HardwareOps } from "../../iommu/hardware-ops.ts";
import { makeUnit } from "../../iommu/hardware-world.suite.ts";
import type { FaultGroup, IopfAllocation } from "../../iommu/iopf/fault-group.ts";
import { IopfQueue } from "../../iommu/iopf/iopf-queue.ts";
import { PageRequestQueue } from "../../iommu/iopf/page-request-queue.ts";
import { PriDevice } from "../../iommu/iopf/pri-device.ts";
import { enablePri, PriInterface } from "../../iommu/iopf/pri-interface.ts";
import { StallDevice } from "../../iommu/iopf/stall-device.ts";
import { StallQueue } from "../../iommu/iopf/stall-queue.ts";
import { PageTable } from "../../iommu/page-table.ts";
import type { TranslationUnit } from "../../iommu/translation-unit.ts";
import { PagePool } from "../../memory/page-pool.ts";
import { CountingMeter } from "../../meter.ts";
import { AddressSpace } from "../process/address-space.ts";
import { contiguousFrames, type FrameSource } from "../process/frame-source.ts";
import { UserProcess } from "../process/user-process.ts";
import { attachGroup } from "../type1/attach.ts";
import { mapDma, mapRequest } from "../type1/map.ts";
import type { DmaMapping } from "../type1/mapping.ts";
import { Type1 } from "../type1/type1.ts";
import { unmapDma, unmapRequest } from "../type1/unmap.ts";
import { NO_USER_MEMORY } from "../uapi/user-memory.ts";
import type { PremapRule } from "./fault-server.ts";
import { Type1Faulting } from "./type1-faulting.ts";

export interface WorldOptions {
  readonly premap?: Partial<PremapRule>;
  readonly frames?: FrameSource;
  /** Groups attached before faults are enabled, one device each; 1 without it. */
  readonly groups?: number;
  /** Whether groups get IOMMUs whose tables cannot be shared: VT-d and AMD in turn. */
  readonly isMixed?: boolean;
  readonly transfer?: (group: FaultGroup) => boolean;
  readonly stallMax?: number;
  /** Whether devices ask by PRI and cache translations; they stall without it. */
  readonly hasPri?: boolean;
  readonly hasStage1?: boolean;
  readonly allow?: (bytes: number) => boolean;
  /** Asked before what the queue of faults allocates. */
  readonly allowIopf?: (what: IopfAllocation) => boolean;
  /** Devices, by number, that cannot fault. */
  readonly cannotFault?: ReadonlySet<number>;
}

/** One IOMMU with all that is behind it. */
interface Unit {
  readonly unit: TranslationUnit;
  readonly ops: HardwareOps;
  readonly queue: StallQueue | PageRequestQueue;
  readonly groups: IommuGroups;
}

/** The world. Pages are 4 KiB, numbers are frames. */
export class FaultingWorld {
  readonly meter = new CountingMeter();
  readonly pool = new PagePool([{ node: 0, basePfn: 0x100_0000, frameCount: 16384 }]);
  readonly memory: AddressSpace;
  readonly process: UserProcess;
  readonly faulting: Type1Faulting;
  readonly type1: Type1;
  readonly units: Unit[] = [];
  readonly groups: IommuGroup[] = [];
  readonly devices: IommuDevice[] = [];
  readonly engines: (StallDevice | PriDevice)[] = [];
  readonly iopf: IopfQueue;
  readonly stage1: PageTable;
  readonly #options: WorldOptions;
  readonly #interfaces: PriInterface[] = [];

  constructor(options: WorldOptions = {}) {
    this.#options = options;
    const { allowIopf } = options;
    this.iopf = new IopfQueue(allowIopf === undefined ? {} : { allow: allowIopf });
    const frames = options.frames ?? contiguousFrames({ basePfn: 2 ** 21, pages: 2 ** 20 });
    this.memory = new AddressSpace({ frames, meter: this.meter });
    this.process = new UserProcess({ memory: this.memory });
    this.stage1 = new PageTable({ format: vtdSecondStage({ levels: 4 }), pool: this.pool });
    this.faulting = new Type1Faulting({
      portOf: (device) => (options.cannotFault?.has(device.rid) ? null : this.queueOf(device)),
      ...(options.premap === undefined ? {} : { premap: options.premap }),
      transfer: options.transfer ?? null,
    });
    this.type1 = new Type1({
      isV2: true,
      faulting: this.faulting,
      meter: this.meter,
      ...(options.allow === undefined ? {} : { allow: options.allow }),
    });
    this.units.push(this.#makeUnit(vtdSecondStage({ levels: 4 })));
    if (options.isMixed === true) this.units.push(this.#makeUnit(amdV1({})));
    for (let index = 0; index < (options.groups ?? 1); index += 1) this.attach();
  }

  /** Accesses and requests that wait for an answer. */
  get waiting(): number {
    let sum = 0;
    for (const { queue } of this.units) if (queue instanceof StallQueue) sum += queue.heldCount;
    for (const pri of this.#interfaces) sum += pri.outstanding;
    return sum;
  }

  /** The queue of the first unit, whose devices stall. */
  get stalls(): StallQueue {
    const { queue } = this.units[0]!;
    assert(queue instanceof StallQueue, "the devices of this world stall");
    return queue;
  }

  queueOf(device: IommuDevice): StallQueue | PageRequestQueue {
    return this.units[device.rid % this.units.length]!.queue;
  }

  /** Attaches another group with one device. @returns an errno */
  attach(): number {
    const rid = this.groups.length;
    const unit = this.units[rid % this.units.length]!;
    const device = new IommuDevice({ name: `dev${rid}`, ops: unit.ops, rid });
    unit.groups.add(device);
    const group = unit.groups.of(device)!;
    claimGroup(group, this);
    this.groups.push(group);
    this.devices.push(device);
    this.engines.push(this.#makeEngine(unit, rid));
    return attachGroup(this.type1, group, false);
  }

  enable(): number {
    return this.faulting.enable(this.type1, this.process);
  }

  map(iovaPfn: number, vpn: number, pages: number, flags = 3): number {
    const [vaddr, iova, size] = [vpn, iovaPfn, pages].map((count) => BigInt(count) << 12n);
    return mapDma(this.type1, this.process, mapRequest(flags, vaddr!, iova!, size!));
  }

  unmap(iovaPfn: number, pages: number, flags = 0): number {
    const request = unmapRequest(flags, BigInt(iovaPfn) << 12n, BigInt(pages) << 12n);
    return unmapDma(this.type1, request, NO_USER_MEMORY);
  }

  /** Lets drivers and queues work until nothing is left for them. */
  settle(): void {
    for (let turn = 0; turn < 10_000; turn += 1) {
      let work = this.iopf.run();
      for (const { queue } of this.units) work += queue.drain();
      if (work === 0) return;
    }
    throw new Error("the queues never settle");
  }

  /** Has a device access pages. @returns how many it reached, how many it may not */
  dma(device: number, iovaPfn: number, pages: number, access = 3): [number, number] {
    const engine = this.engines[device]!;
    const { done, failed } = engine.counts;
    engine.start([{ iovaPfn, pages, access }]);
    for (let turn = 0; engine.isBusy && turn < 100_000; turn += 1) {
      const reached = engine.run();
      this.settle();
      if (reached === 0 && this.faulting.parkedCount > 0) break;
    }
    return [engine.counts.done - done, engine.counts.failed - failed];
  }

  mapping(iovaPfn: number): DmaMapping {
    return this.type1.mappings.find(iovaPfn)!;
  }

  /** Pages that the bitmap of the mapping at a frame holds, as frames. */
  bits(iovaPfn: number): number[] {
    const state = this.faulting.stateOf(this.mapping(iovaPfn))!;
    const found: number[] = [];
    for (let page = state.mapped.next(0); page >= 0; page = state.mapped.next(page + 1)) {
      found.push(page + state.mapping.iovaPfn);
    }
    return found;
  }

  /** Frames that a domain's table maps, and where to. */
  leaves(index: number): Map<number, number> {
    const driver = this.type1.domains[index]!.domain.driver;
    const found = new Map<number, number>();
    (driver as HardwareDomain).table.forEachLeaf(({ iovaPfn, physPfn, pageShift }) => {
      const pages = 2 ** (pageShift - 12);
      for (let page = 0; page < pages; page += 1) found.set(iovaPfn + page, physPfn + page);
    });
    return found;
  }

  #makeEngine({ unit, queue }: Unit, rid: number): StallDevice | PriDevice {
    if (queue instanceof StallQueue) return new StallDevice(queue, { rid });
    unit.enableAts(rid, { sets: 16, ways: 4, replacement: "lru", pageShifts: [12, 21] });
    const pri = new PriInterface({ rid, capacity: 4, sink: queue });
    queue.connect(pri);
    enablePri(pri, 4);
    this.#interfaces.push(pri);
    return new PriDevice({ unit, pri });
  }

  #makeUnit(format: PageTableFormat): Unit {
    const { meter, pool } = this;
    const unit = makeUnit(meter, { name: format.name });
    const { iopf } = this;
    const { stallMax = 16, hasStage1 = false, hasPri = false } = this.#options;
    const stage1Of = () => (hasStage1 ? this.stage1 : null);
    const queue: StallQueue | PageRequestQueue = hasPri
      ? new PageRequestQueue({ iopf, meter })
      : new StallQueue({ unit, iopf, meter, stallMax, stage1Of });
    const ops = new HardwareOps({
      name: format.name,
      unitOf: () => unit,
      createDomain() {
        const table = PageTable.create({ format, pool, node: 0, meter });
        return table === null ? null : { table };
      },
      pageResponse: (device, last, code) => queue.respond(device, last, code),
    });
    const groups = new IommuGroups({ defaultType: DomainType.DMA });
    return { unit, ops, queue, groups };
  }
}
