/** A machine with two IOMMUs on two nodes, for the tests of this room. */
import { Errno } from "../../errno.ts";
import { IommuDevice } from "../../iommu/device.ts";
import { type DomainTrace, DomainType } from "../../iommu/domain.ts";
import type { PageTableFormat } from "../../iommu/formats/format.ts";
import { vtdSecondStage } from "../../iommu/formats/vtd-second-stage.ts";
import type { IommuGroup } from "../../iommu/group.ts";
import { IommuGroups } from "../../iommu/groups.ts";
import { HardwareOps } from "../../iommu/hardware-ops.ts";
import { makeUnit } from "../../iommu/hardware-world.suite.ts";
import { PageTable } from "../../iommu/page-table.ts";
import { MSI_WINDOW, type ReservedRegion } from "../../iommu/reserved-regions.ts";
import type { TranslationUnit } from "../../iommu/translation-unit.ts";
import { PagePool } from "../../memory/page-pool.ts";
import { CountingMeter } from "../../meter.ts";
import type { PinRun, ProcessMemory } from "../process/process-memory.ts";
import { UserProcess } from "../process/user-process.ts";
import { Iommufd, type IommufdOptions } from "./iommufd.ts";
import { LockedUser } from "./locked-user.ts";

/** Memory whose frames are given by a function, with a count of pins on each. */
export class FakeMemory implements ProcessMemory {
  readonly pins = new Map<number, number>();
  readonly dirtied = new Set<number>();
  /** Pages that cannot be pinned. */
  readonly holes = new Set<number>();
  readonly readOnly = new Set<number>();
  /** Pages of a device. */
  readonly reserved = new Set<number>();
  /** Pins that succeed before one fails with ENOMEM. */
  successes = Number.POSITIVE_INFINITY;
  /** Runs of this many pages lie together. */
  readonly runPages: number;

  constructor(runPages = 8) {
    this.runPages = runPages;
  }

  frameOf(vpn: number): number {
    const run = Math.floor(vpn / this.runPages);
    return 0x10_0000 + run * (this.runPages + 3) + (vpn - run * this.runPages);
  }

  pinRun(vpn: number, pages: number, isWrite: boolean, _batch: number, out: PinRun): number {
    this.successes -= 1;
    if (this.successes < 0) return Errno.ENOMEM;
    const isBad = (page: number) => this.holes.has(page) || (isWrite && this.readOnly.has(page));
    if (isBad(vpn)) return Errno.EFAULT;
    out.pfn = this.frameOf(vpn);
    out.isReserved = this.reserved.has(vpn);
    const room = Math.min(pages, this.runPages - (vpn % this.runPages));
    let count = 1;
    while (count < room && !isBad(vpn + count) && !this.reserved.has(vpn + count)) count += 1;
    out.pages = count;
    out.nextErrno = count < pages && isBad(vpn + count) ? Errno.EFAULT : 0;
    if (out.isReserved) return Errno.OK;
    for (let at = 0; at < count; at += 1) {
      this.pins.set(out.pfn + at, (this.pins.get(out.pfn + at) ?? 0) + 1);
    }
    return Errno.OK;
  }

  unpin(pfn: number, pages: number, isDirty: boolean): void {
    for (let each = pfn; each < pfn + pages; each += 1) {
      const pins = this.pins.get(each) ?? 0;
      if (pins === 0) throw new Error(`frame ${each} is not pinned`);
      if (pins === 1) this.pins.delete(each);
      else this.pins.set(each, pins - 1);
      if (isDirty) this.dirtied.add(each);
    }
  }

  addNotifier(): void {}
  removeNotifier(): void {}
}

/** How a world is made. */
export interface WorldOptions extends Omit<IommufdOptions, "process" | "user"> {
  readonly memory?: ProcessMemory;
  readonly memlockPages?: number;
  readonly canLock?: boolean;
  readonly format?: PageTableFormat;
  /** Whether unit 1 cannot force coherency. */
  readonly isMixed?: boolean;
  readonly isolatedMsi?: boolean;
  readonly regions?: readonly ReservedRegion[];
  readonly tracksDirty?: boolean;
  /** Frames of each node's pool. */
  readonly poolFrames?: number;
}

/** The machine: devices 0 and 1 are behind unit 0 of node 0, devices 2 and 3 behind unit 1. */
export interface World {
  readonly iommufd: Iommufd;
  readonly process: UserProcess;
  readonly user: LockedUser;
  readonly memory: FakeMemory;
  readonly pool: PagePool;
  readonly meter: CountingMeter;
  readonly units: readonly TranslationUnit[];
  readonly devices: readonly IommuDevice[];
  readonly groups: readonly IommuGroup[];
  readonly allGroups: IommuGroups;
  /** Maps and unmaps of all domains, in order. */
  readonly events: string[];
  /** Binds a device. @returns its number */
  bind(index: number): number;
}

export function makeWorld(options: WorldOptions = {}): World {
  const meter = new CountingMeter();
  const frameCount = options.poolFrames ?? 4096;
  const pool = new PagePool([
    { node: 0, basePfn: 0x100_0000, frameCount },
    { node: 1, basePfn: 0x200_0000, frameCount },
  ]);
  const units = [0, 1].map((node) => {
    const snoopControl = !(options.isMixed === true && node === 1);
    return makeUnit(meter, { name: `dmar${node}`, node, snoopControl });
  });
  const events: string[] = [];
  const trace: DomainTrace = {
    map: (iova, phys, pages) => events.push(`map ${iova} ${phys} ${pages}`),
    unmap: (iova, pages, done) => events.push(`unmap ${iova} ${pages} ${done}`),
  };
  const format = options.format ?? vtdSecondStage({ levels: 4 });
  const ops = new HardwareOps({
    name: "intel",
    unitOf: (device) => units[device.node]!,
    createDomain(device) {
      const table = PageTable.create({ format, pool, node: device.node, meter });
      return table === null ? null : { table };
    },
    reservedRegions: () => options.regions ?? [MSI_WINDOW],
    tracksDirty: options.tracksDirty ?? false,
    trace,
  });
  const allGroups = new IommuGroups({ defaultType: DomainType.DMA });
  const devices = [0, 1, 2, 3].map((index) => {
    const node = index >> 1;
    const device = new IommuDevice({
      name: `0000:${node}0:0${index}.0`,
      ops,
      rid: node * 0x1000 + index * 8,
      node,
      isolatedMsi: options.isolatedMsi ?? true,
    });
    allGroups.add(device);
    return device;
  });
  const memory = (options.memory as FakeMemory | undefined) ?? new FakeMemory();
  const process = new UserProcess({
    memory,
    memlockPages: options.memlockPages ?? Number.POSITIVE_INFINITY,
    canLock: options.canLock ?? false,
  });
  const user = new LockedUser();
  const iommufd = new Iommufd({ ...options, process, user });
  const groups = devices.map((device) => allGroups.of(device)!);
  return {
    iommufd,
    process,
    user,
    memory,
    pool,
    meter,
    units,
    devices,
    groups,
    allGroups,
    events,
    bind(index) {
      const { errno, devId } = iommufd.bind(devices[index]!, groups[index]!);
      if (errno !== Errno.OK) throw new Error(`bind gave ${errno}`);
      return devId;
    },
  };
}

/**
 * Everything that a failed call must leave as it was, as text.
 *
 * @param hasFrames - whether page-table pages count: a map that runs out of them may leave empty
 *   tables behind, in Linux as well
 */
export function stateOf(world: World, hasFrames = true): string {
  const { iommufd, process, user, memory, pool } = world;
  const objects = iommufd.objects.list().map((object) => {
    const head = `${object.id} ${object.kind} users ${object.users}`;
    if (object.kind === "hwpt") {
      const table = iommufd.table(object.id)!;
      const leaves: string[] = [];
      const { driver } = table.domain;
      if (driver !== null && "table" in driver) {
        (driver.table as PageTable).forEachLeaf((leaf) => leaves.push(JSON.stringify(leaf)));
      }
      return `${head} auto ${table.isAuto}\n  ${leaves.join("\n  ")}`;
    }
    if (object.kind !== "ioas") return head;
    const { ioas } = iommufd.ioas(object.id)!;
    const areas = [...ioas.space.areas].map((area) => {
      const { pages, storage, stopsRevocation, ...rest } = area;
      const extents = JSON.stringify(pages.extents);
      const charge = `${pages.users} users ${pages.chargedPages} charged`;
      const at = ioas.domains.indexOf(storage!);
      return `${JSON.stringify(rest)} ${extents} ${charge} ${at} ${stopsRevocation !== null}`;
    });
    const { space } = ioas;
    const spans = (list: readonly { start: bigint; last: bigint }[]) =>
      list.map(({ start, last }) => `${start.toString(16)}-${last.toString(16)}`).join(",");
    const ranges = `${spans(space.reserved)} allowed ${spans(space.allowed)} by ${space.alignment}`;
    return `${head} large ${ioas.hasLargePages} ${ranges}\n  ${areas.join("\n  ")}`;
  });
  const pins = [...memory.pins].sort((a, b) => a[0] - b[0]).join(";");
  const owners = world.groups.map((group) => `${group.ownerCount}/${group.domain?.type}`);
  const frames = hasFrames ? [0, 1].map((node) => pool.usedFramesOf(node)) : [];
  return [
    ...objects,
    `locked ${process.lockedPages} ${user.lockedPages} pins ${pins}`,
    `groups ${owners.join(" ")} frames ${frames.join(" ")}`,
    `vfio ${iommufd.vfioIoas?.id ?? "-"} mm ${iommufd.isChargingProcess}`,
  ].join("\n");
}
