import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { IommuDevice } from "../../iommu/device.ts";
import type { FaultGroup } from "../../iommu/iopf/fault-group.ts";
import { PageResponse } from "../../iommu/iopf/page-request.ts";
import { StallDevice } from "../../iommu/iopf/stall-device.ts";
import { PROT_RW, Prot } from "../../iommu/prot.ts";
import { RegionIndex, regionPage } from "../device/pci-bar.ts";
import { VfioPciDevice } from "../device/pci-device.ts";
import { UserProcess } from "../process/user-process.ts";
import { detachGroup } from "../type1/detach.ts";
import { registerDevice } from "../type1/external-pins.ts";
import { FaultLevels, FaultReport } from "./fault-levels.ts";
import { FaultingWorld, type WorldOptions } from "./faulting-world.suite.ts";
import { pinForFaults, unpinForFaults } from "./selective-pins.ts";

const VPN = 0x10_0000;
const IOVA = 0x4000;
const READ = 1;
const VADDR = 4;

/** A world with faults on and 16 MiB of anonymous memory mapped. */
function setup(options: WorldOptions = {}, flags = 3) {
  const world = new FaultingWorld(options);
  expect(world.enable()).toBe(Errno.OK);
  world.memory.mmap({ vpn: VPN, pages: 4096, backing: { kind: "anonymous", isHuge: false } });
  expect(world.map(IOVA, VPN, 4096, flags)).toBe(Errno.OK);
  return world;
}

function range(first: number, count: number): number[] {
  return Array.from({ length: count }, (_, index) => first + index);
}

describe("MAP_DMA with faults on", () => {
  it("pins, maps and charges nothing", () => {
    const world = setup();
    expect(world.meter.amount("pagePin")).toBe(0);
    expect([world.leaves(0).size, world.process.lockedPages, world.bits(IOVA)]).toEqual([0, 0, []]);
  });

  it("row 104: the first access maps 512 pages, the next nothing, one beyond 512 more", () => {
    const world = setup();
    const { counts } = world.faulting;
    expect(world.dma(0, IOVA, 1)).toEqual([1, 0]);
    expect(world.bits(IOVA)).toEqual(range(IOVA, 512));
    expect(world.dma(0, IOVA, 1)).toEqual([1, 0]);
    expect(counts).toMatchObject({ requests: 1, pagesMapped: 512 });
    expect(world.dma(0, IOVA + 600, 1)).toEqual([1, 0]);
    expect(world.bits(IOVA)).toEqual([...range(IOVA, 512), ...range(IOVA + 600, 512)]);
    expect(world.dma(0, IOVA + 599, 1)).toEqual([1, 0]);
    expect(counts).toMatchObject({ requests: 3, pagesMapped: 1025, alreadyMapped: 0 });
  });

  it("row 105: an access outside any mapping, or a write to a READ mapping, is INVALID", () => {
    const world = setup({}, READ);
    expect(world.dma(0, IOVA - 1, 1)).toEqual([0, 1]);
    expect(world.dma(0, IOVA + 4096, 1)).toEqual([0, 1]);
    expect(world.dma(0, IOVA, 1, Prot.WRITE)).toEqual([0, 1]);
    expect(world.dma(0, IOVA, 1, Prot.READ)).toEqual([1, 0]);
    expect(world.faulting.counts).toMatchObject({ requests: 4, invalid: 3 });
  });

  it("row 106: a notifier for one page clears one bit and leaves the 511 beside it", () => {
    const world = setup();
    world.dma(0, IOVA, 1);
    expect(world.memory.discard(VPN + 5, 1)).toBe(Errno.OK);
    expect(world.bits(IOVA)).toEqual([...range(IOVA, 5), ...range(IOVA + 6, 506)]);
    expect([...world.leaves(0).keys()]).toEqual(world.bits(IOVA));
    expect(world.faulting.counts.pagesInvalidated).toBe(1);
    expect(world.dma(0, IOVA, 8)).toEqual([8, 0]);
    expect(world.faulting.counts.requests).toBe(2);
  });

  it("holds no page: all are let go after they were mapped", () => {
    const world = setup();
    world.dma(0, IOVA, 2048);
    expect(world.meter.amount("pagePin")).toBe(2048);
    expect(world.meter.amount("pageUnpin")).toBe(2048);
    expect(world.process.lockedPages).toBe(0);
  });

  it("maps no more of memory that cannot be had than up to there", () => {
    const world = setup();
    world.memory.munmap(VPN + 100, 1);
    expect(world.dma(0, IOVA, 200)).toEqual([199, 1]);
    expect(world.bits(IOVA)).toEqual([...range(IOVA, 100), ...range(IOVA + 101, 512)]);
  });

  it("maps a run of frames as leaves that can go alone, and unmaps them with their mapping", () => {
    const world = setup();
    world.dma(0, IOVA, 4096);
    expect(world.leaves(0).size).toBe(4096);
    expect(world.meter.amount("entryWrite")).toBeGreaterThanOrEqual(4096);
    expect(world.unmap(IOVA, 4096)).toBe(Errno.OK);
    expect([world.leaves(0).size, world.faulting.watchCount]).toEqual([0, 0]);
    expect(world.dma(0, IOVA, 1)).toEqual([0, 1]);
  });

  it("answers what is in flight for a page mapped meanwhile, and maps nothing for it", () => {
    const world = setup();
    const queue = world.stalls;
    const wide = new StallDevice(queue, { rid: 0, inFlightMax: 8 });
    wide.start([{ iovaPfn: IOVA, pages: 8, access: READ }]);
    wide.run();
    world.settle();
    expect(wide.counts).toEqual({ done: 8, failed: 0 });
    const { counts } = world.faulting;
    expect(counts).toMatchObject({ requests: 8, alreadyMapped: 7, pagesMapped: 512 });
  });
});

describe("a mapping of 64 TiB", () => {
  it("costs what is touched of it: faults, notifiers over all of it, and its unmap", () => {
    const world = new FaultingWorld({ premap: { pages: 1 } });
    world.enable();
    const pages = 2 ** 34;
    const iova = 2 ** 30;
    const backing = { kind: "anonymous", isHuge: false } as const;
    world.memory.mmap({ vpn: VPN, pages, backing });
    expect(world.map(iova, VPN, pages)).toBe(Errno.OK);
    const touched = [0, 1, 2 ** 20, 2 ** 33 + 5, pages - 1].map((page) => iova + page);
    for (const page of touched) expect(world.dma(0, page, 1)).toEqual([1, 0]);
    expect([world.bits(iova), world.leaves(0).size]).toEqual([touched, 5]);
    world.memory.munmap(VPN + 1, pages - 1);
    expect(world.bits(iova)).toEqual([iova]);
    expect(world.unmap(iova, pages)).toBe(Errno.OK);
    expect(world.leaves(0).size).toBe(0);
  });
});

describe("memory of a device", () => {
  it("is mapped by faults without a pin, and taken out when its decoding goes", () => {
    const world = setup();
    const device = new VfioPciDevice({
      iommuDevice: new IommuDevice({ name: "0000:21:00.0", ops: null }),
      bars: [{ pfn: 2 ** 30, bytes: 2 ** 24 }, null, null, null, null, null],
    });
    const filePage = regionPage(RegionIndex.BAR0);
    const backing = { kind: "device", device, filePage } as const;
    expect(world.memory.mmap({ vpn: VPN * 2, pages: 4096, backing })).toBe(Errno.OK);
    expect(world.map(IOVA * 2, VPN * 2, 4096)).toBe(Errno.OK);
    device.setMemoryDecode(true);
    expect(world.dma(0, IOVA * 2 + 7, 2)).toEqual([2, 0]);
    expect(world.leaves(0).get(IOVA * 2 + 7)).toBe(2 ** 30 + 7);
    expect(world.meter.amount("pagePin")).toBe(0);
    device.setMemoryDecode(false);
    expect([world.bits(IOVA * 2), world.leaves(0).size]).toEqual([[], 0]);
    expect(world.dma(0, IOVA * 2 + 7, 1)).toEqual([0, 1]);
  });
});

describe("an aligned pre-map", () => {
  const premap = { pages: 512, reach: "aligned" } as const;

  it("maps the whole block around a page, not more of it than the mapping has", () => {
    const world = setup({ premap });
    world.map(IOVA - 100, VPN + 1000, 50);
    world.dma(0, IOVA + 700, 1);
    expect(world.bits(IOVA)).toEqual(range(IOVA + 512, 512));
    world.dma(0, IOVA - 60, 1);
    expect(world.bits(IOVA - 100)).toEqual(range(IOVA - 100, 50));
  });

  it("leaves out what is mapped already and what cannot be had", () => {
    const world = setup({ premap });
    world.dma(0, IOVA + 700, 1);
    world.memory.discard(VPN + 600, 50);
    world.memory.munmap(VPN + 620, 1);
    expect(world.dma(0, IOVA + 640, 1)).toEqual([1, 0]);
    expect(world.bits(IOVA)).toEqual([
      ...range(IOVA + 512, 88),
      ...range(IOVA + 600, 20),
      ...range(IOVA + 640, 384),
    ]);
    expect(world.dma(0, IOVA + 620, 1)).toEqual([0, 1]);
    expect(world.dma(0, IOVA + 621, 1)).toEqual([1, 0]);
  });

  it("with leaves of 2 MiB uses one where frames allow, and lets it go as a whole", () => {
    const world = setup({ premap: { ...premap, leaves: "2MiB" } });
    world.dma(0, IOVA + 700, 1);
    const writes = world.meter.amount("entryWrite");
    expect(writes).toBeLessThan(20);
    expect(world.leaves(0).size).toBe(512);
    world.memory.discard(VPN + 600, 1);
    expect([world.bits(IOVA), world.leaves(0).size]).toEqual([[], 0]);
    expect(world.faulting.counts.pagesInvalidated).toBe(512);
    expect(world.dma(0, IOVA + 599, 3)).toEqual([3, 0]);
    expect([...world.leaves(0).keys()]).toEqual(world.bits(IOVA));
  });

  it("with leaves of 2 MiB unmaps mixed leaves as they are", () => {
    const world = setup({ premap: { ...premap, leaves: "2MiB" }, isMixed: true, groups: 2 });
    world.dma(0, IOVA, 4096);
    world.memory.discard(VPN + 600, 1);
    world.dma(1, IOVA + 512, 512);
    expect(world.leaves(0).size).toBe(4096);
    world.memory.discard(VPN + 300, 1000);
    expect([...world.leaves(1).keys()].sort((a, b) => a - b)).toEqual(world.bits(IOVA));
    world.unmap(IOVA, 4096);
    expect(world.leaves(0).size + world.leaves(1).size).toBe(0);
  });
});

describe("ENABLE_IOPF", () => {
  it("needs a process with memory, and devices that can fault", () => {
    const world = new FaultingWorld({ cannotFault: new Set([1]), groups: 2 });
    const { type1, faulting } = world;
    expect(faulting.enable(type1, new UserProcess({ memory: null }))).toBe(Errno.ENODEV);
    expect(world.enable()).toBe(Errno.ENODEV);
    expect(faulting.isEnabled).toBe(false);
    expect(world.devices.map(({ faultParam }) => faultParam)).toEqual([null, null]);
    expect(type1.domains[0]!.domain.iopfHandler).toBe(null);
    expect(world.groups.map(({ handles }) => handles.size)).toEqual([0, 0]);
  });

  it("undoes what it did when the n-th device cannot, for every n", () => {
    for (let bad = 0; bad < 4; bad += 1) {
      const world = new FaultingWorld({ cannotFault: new Set([bad]), groups: 4, isMixed: true });
      expect(world.enable()).toBe(Errno.ENODEV);
      expect(world.devices.every(({ faultParam }) => faultParam === null)).toBe(true);
      expect(world.groups.every(({ handles }) => handles.size === 0)).toBe(true);
    }
  });

  it("comes before the first mapping, and once", () => {
    const world = new FaultingWorld();
    world.memory.mmap({ vpn: VPN, pages: 4, backing: { kind: "anonymous", isHuge: false } });
    world.map(IOVA, VPN, 4);
    expect(world.enable()).toBe(Errno.EBUSY);
    world.unmap(IOVA, 4);
    expect([world.enable(), world.enable()]).toEqual([Errno.OK, Errno.EBUSY]);
  });
});

describe("a group attached later", () => {
  it("can fault too, and shares what is mapped", () => {
    const world = setup();
    world.dma(0, IOVA, 1);
    expect(world.attach()).toBe(Errno.OK);
    expect(world.dma(1, IOVA, 600)).toEqual([600, 0]);
    expect(world.faulting.counts.requests).toBe(2);
  });

  it("with a domain of its own finds there what the others have, so that it does not retry for ever", () => {
    const world = setup({ isMixed: true });
    world.dma(0, IOVA, 1);
    world.memory.discard(VPN + 5, 1);
    expect(world.attach()).toBe(Errno.OK);
    expect(world.leaves(0)).toEqual(world.leaves(1));
    expect(world.dma(1, IOVA, 6)).toEqual([6, 0]);
    expect(world.faulting.counts.requests).toBe(2);
    expect(world.leaves(0)).toEqual(world.leaves(1));
  });

  it("that cannot fault is refused, and leaves nothing behind", () => {
    const world = setup({ isMixed: true, cannotFault: new Set([1]) });
    world.dma(0, IOVA, 1);
    const used = world.pool.usedFrames;
    expect(world.attach()).toBe(Errno.ENODEV);
    expect([world.type1.domains.length, world.groups[1]!.handles.size]).toEqual([1, 0]);
    // The group has its blocking domain besides.
    expect(world.pool.usedFrames - used).toBeLessThanOrEqual(2);
    expect(world.dma(0, IOVA, 1024)).toEqual([1024, 0]);
  });

  it("leaves again: its stalled accesses end, and the pages of the others stay", () => {
    const world = setup({ isMixed: true, groups: 2 });
    world.dma(0, IOVA, 10);
    world.engines[1]!.start([{ iovaPfn: IOVA + 2000, pages: 1, access: 1 }]);
    world.engines[1]!.run();
    detachGroup(world.type1, world.groups[1]!);
    expect(world.engines[1]!.counts).toEqual({ done: 0, failed: 1 });
    expect(world.devices[1]!.faultParam).toBe(null);
    expect(world.bits(IOVA).length).toBe(512);
    expect(world.dma(0, IOVA, 1024)).toEqual([1024, 0]);
    detachGroup(world.type1, world.groups[0]!);
    expect([world.type1.mappings.count, world.faulting.watchCount]).toEqual([0, 0]);
    world.memory.munmap(VPN, 4096);
  });

  it("shares a domain whose other group still faults after it left", () => {
    const world = setup({ groups: 2 });
    expect(world.type1.domains.length).toBe(1);
    detachGroup(world.type1, world.groups[1]!);
    expect(world.dma(0, IOVA, 1)).toEqual([1, 0]);
  });
});

describe("memory that moves", () => {
  it("holds requests until it is known again, then maps from its new place", () => {
    const world = setup();
    world.dma(0, IOVA, 1);
    expect(world.unmap(IOVA, 4096, VADDR)).toBe(Errno.OK);
    expect(world.dma(0, IOVA + 1000, 1)).toEqual([0, 0]);
    expect(world.faulting.parkedCount).toBe(1);
    world.memory.mmap({ vpn: VPN * 2, pages: 4096, backing: { kind: "anonymous", isHuge: false } });
    expect(world.map(IOVA, VPN * 2, 4096, VADDR)).toBe(Errno.OK);
    world.settle();
    expect(world.engines[0]!.counts.done).toBe(2);
    expect(world.leaves(0).get(IOVA + 1000)).toBe(world.memory.frameAt(VPN * 2 + 1000));
    world.memory.discard(VPN * 2 + 1000, 1);
    world.memory.discard(VPN, 1);
    expect(world.bits(IOVA)).not.toContain(IOVA + 1000);
    expect(world.bits(IOVA)).toContain(IOVA);
  });

  it("answers them INVALID when the mapping goes instead", () => {
    const world = setup();
    world.unmap(IOVA, 4096, VADDR);
    world.dma(0, IOVA, 1);
    expect(world.unmap(IOVA, 4096)).toBe(Errno.OK);
    world.settle();
    expect([world.engines[0]!.counts.failed, world.faulting.parkedCount]).toEqual([1, 0]);
  });

  it("lets go of them when their device leaves", () => {
    const world = setup();
    world.unmap(IOVA, 4096, VADDR);
    world.dma(0, IOVA, 1);
    detachGroup(world.type1, world.groups[0]!);
    expect([world.engines[0]!.counts.failed, world.faulting.parkedCount]).toEqual([1, 0]);
  });
});

describe("selective faulting", () => {
  it("serves faults where a driver pinned, and charges what it pinned", () => {
    const world = setup();
    const { type1, faulting } = world;
    const member = type1.domains[0]!.groups[0]!;
    registerDevice(type1, { dmaUnmap() {} });
    const pin = (page: number, pages: number) =>
      pinForFaults(type1, faulting, member, IOVA + page, pages, PROT_RW, new Float64Array(512));
    expect(world.dma(0, IOVA + 4000, 1)).toEqual([1, 0]);
    expect([pin(10, 5), pin(13, 4)]).toEqual([Errno.OK, Errno.OK]);
    expect(world.process.lockedPages).toBe(7);
    expect(world.dma(0, IOVA + 9, 1)).toEqual([0, 1]);
    expect(world.dma(0, IOVA + 12, 1)).toEqual([1, 0]);
    expect(world.bits(IOVA).slice(0, 6)).toEqual([...range(IOVA + 12, 5), IOVA + 4000]);
    unpinForFaults(type1, faulting, member, IOVA + 10, 5);
    expect(world.dma(0, IOVA + 11, 1)).toEqual([0, 1]);
    expect(world.process.lockedPages).toBe(4);
    unpinForFaults(type1, faulting, member, IOVA + 13, 4);
    expect([world.process.lockedPages, world.dma(0, IOVA + 9, 1)]).toEqual([0, [0, 1]]);
  });

  it("an aligned pre-map stays inside what was pinned", () => {
    const world = setup({ premap: { reach: "aligned" } });
    const member = world.type1.domains[0]!.groups[0]!;
    world.faulting.pagesPinned(member, IOVA + 10, 30);
    world.dma(0, IOVA + 20, 1);
    expect(world.bits(IOVA)).toEqual(range(IOVA + 10, 30));
  });

  it("concerns the driver's group alone", () => {
    const world = setup({ groups: 2 });
    const [, other] = world.type1.domains[0]!.groups;
    world.faulting.pagesPinned(other!, IOVA, 1);
    const numbers = [0, 1].map((device) => world.dma(device, IOVA + 1000 + device * 600, 1)[0]);
    expect(numbers.sort()).toEqual([0, 1]);
  });
});

describe("behind a first stage of the guest's", () => {
  it("faults of that stage go to the guest, once it asks for them; the second stage is served", () => {
    const handed: FaultGroup[] = [];
    const world = setup({ transfer: (group) => handed.push(group) > 0, hasStage1: true });
    // Nobody wants them yet: the framework answers for the handler that refused.
    expect(world.dma(0, 7, 1)).toEqual([0, 1]);
    expect(world.faulting.setStage1Reports(world.devices[0]!, true)).toBe(Errno.OK);
    const engine = world.engines[0]!;
    engine.start([{ iovaPfn: 7, pages: 1, access: 1 }]);
    engine.run();
    world.settle();
    expect(handed[0]!.last.iovaPfn).toBe(7);
    world.stage1.map(7, IOVA + 3, 1, PROT_RW);
    handed[0]!.respond(PageResponse.SUCCESS);
    world.settle();
    expect(engine.counts).toEqual({ done: 1, failed: 1 });
    expect(world.bits(IOVA)).toEqual(range(IOVA + 3, 512));
    expect(handed.length).toBe(1);
    world.faulting.setStage1Reports(world.devices[0]!, false);
    expect(world.dma(0, 9, 1)).toEqual([0, 1]);
  });

  it("a device without the operation is answered for", () => {
    const world = setup({ transfer: () => false, hasStage1: true });
    world.faulting.setStage1Reports(world.devices[0]!, true);
    expect(world.dma(0, 7, 1)).toEqual([0, 1]);
  });
});

describe("FaultLevels", () => {
  const { FLAT, NESTED_L1, NESTED_L2 } = FaultReport;

  it("are one stage or two, registered once", () => {
    const levels = new FaultLevels();
    expect(levels.register(FLAT | NESTED_L1)).toBe(Errno.EINVAL);
    expect(levels.register(0)).toBe(Errno.EINVAL);
    expect(levels.register(8)).toBe(Errno.EINVAL);
    expect(levels.check(0)).toBe(Errno.EINVAL);
    expect(levels.update(0, NESTED_L1)).toBe(Errno.EINVAL);
    expect(levels.register(NESTED_L2)).toBe(Errno.OK);
    expect(levels.register(NESTED_L2)).toBe(Errno.EBUSY);
  });

  it("can be updated while there is a handler, and a stage not wanted is EOPNOTSUPP", () => {
    const levels = new FaultLevels();
    levels.register(NESTED_L2);
    expect([levels.check(0), levels.check(16)]).toEqual([Errno.EOPNOTSUPP, Errno.OK]);
    expect(levels.update(0, NESTED_L1)).toBe(Errno.OK);
    expect(levels.check(0)).toBe(Errno.OK);
    expect(levels.update(NESTED_L2, 0)).toBe(Errno.OK);
    expect(levels.check(16)).toBe(Errno.EOPNOTSUPP);
    expect(levels.update(0, FLAT)).toBe(Errno.EINVAL);
    levels.unregister();
    expect(levels.flags).toBe(0);
  });
});
