/** How many faults a workload takes: what the table of the proposal of 2021 counts, from mechanism. */
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { DomainType, type IommuDomain } from "../../iommu/domain.ts";
import { attachPasidHandle } from "../../iommu/iopf/attach-handle.ts";
import type { DmaSegment } from "../../iommu/iopf/page-stream.ts";
import { StallDevice } from "../../iommu/iopf/stall-device.ts";
import { SvaHandler } from "../../iommu/iopf/sva-handler.ts";
import { PROT_RW, Prot } from "../../iommu/prot.ts";
import { VfioTask } from "../file.ts";
import { connect, mapMemory } from "../host/connect.ts";
import { AddressSpace } from "../process/address-space.ts";
import { contiguousFrames } from "../process/frame-source.ts";
import { createPinRun } from "../process/process-memory.ts";
import { UserProcess } from "../process/user-process.ts";
import { Type1Request } from "../uapi/type1.ts";
import type { PremapRule } from "./fault-server.ts";
import { FaultingHost, type FaultingHostOptions } from "./faulting-host.ts";
import { FaultingWorld } from "./faulting-world.suite.ts";

const DEVICE = "0000:75:00.0";
const RAM = 2 ** 18;
const VPN = 2 ** 24;
const PAGES = 2 ** 18;
const MIB = 256;

type UnitKind = "smmu" | "vtd" | "amd";

/** A VM with faults on, behind an IOMMU of a kind. */
function createVm(premap: Partial<PremapRule>, kind: UnitKind, options: FaultingHostOptions = {}) {
  const plan = {
    nodes: [{ memory: 64 * 2 ** 20 }],
    units: [{ name: "u0", kind, node: 0 }],
    devices: [{ address: DEVICE, unit: "u0" }],
  };
  const faults = new FaultingHost(plan, { premap, ...options });
  const frames = contiguousFrames({ basePfn: 2 ** 23, pages: PAGES });
  const memory = new AddressSpace({ frames });
  memory.mmap({ vpn: VPN, pages: PAGES, backing: { kind: "anonymous", isHuge: false } });
  const vmm = new VfioTask({ process: new UserProcess({ memory }) });
  const { fd, type1 } = connect(faults.host, vmm, [DEVICE]);
  expect(vmm.ioctl(fd, Type1Request.ENABLE_IOPF, 0).errno).toBe(Errno.OK);
  const [iova, vaddr, size] = [RAM, VPN, PAGES].map((count) => BigInt(count) * 4096n);
  expect(mapMemory(vmm, fd, { iova: iova!, vaddr: vaddr!, size: size! })).toBe(Errno.OK);
  return { faults, memory, vmm, type1, faulting: faults.faultings[0]! };
}

/** Pages read and written in turn, after the pages of the rings. */
function message(input: number, output: number, pages: number, rings: readonly number[] = []) {
  const at = (page: number, access: number): DmaSegment => ({ iovaPfn: page, pages: 1, access });
  const segments = rings.flatMap((page) => [at(page, PROT_RW), at(page + 1, PROT_RW)]);
  for (let page = 0; page < pages; page += 1) {
    segments.push(at(input + page, Prot.READ), at(output + page, Prot.WRITE));
  }
  return segments;
}

const FIRST = [RAM + 0x1_0000, RAM + 0x1_4000] as const;
const SECOND = [RAM + 0x2_0000, RAM + 0x2_4000] as const;
const RINGS = [RAM + 0x1000, RAM + 0x1800, RAM + 0x2000];

/** Faults after each of several messages. */
function countsOf(premap: Partial<PremapRule>, kind: UnitKind, messages: DmaSegment[][]): number[] {
  const { faults, faulting } = createVm(premap, kind);
  return messages.map((segments) => {
    faults.start(DEVICE, segments);
    faults.settle();
    expect(faults.counts(DEVICE).failed).toBe(0);
    return faulting.counts.requests;
  });
}

describe.each(["smmu", "vtd", "amd"] as const)(
  "faults of a device behind an IOMMU of kind %s",
  (kind) => {
    const one = { pages: 1 };

    it("1 MB in and out, one page at a fault: 512, as many again for other buffers, none for the same", () => {
      const again = message(...FIRST, MIB);
      expect(countsOf(one, kind, [again, again, message(...SECOND, MIB)])).toEqual([
        512, 512, 1024,
      ]);
    });

    it("six pages of rings add as many", () => {
      expect(countsOf(one, kind, [message(...FIRST, MIB, RINGS)])).toEqual([518]);
    });

    it("10 MB in and out, 512 pages at a fault: 10, and 13 with rings in three places", () => {
      const large = message(...FIRST, 10 * MIB);
      expect(countsOf({}, kind, [large, large, message(...SECOND, 10 * MIB)])).toEqual([
        10, 10, 20,
      ]);
      expect(countsOf({}, kind, [message(...FIRST, 10 * MIB, RINGS)])).toEqual([13]);
    });

    it("where a buffer begins does not matter forward, and costs a block where blocks are aligned", () => {
      const askew = message(FIRST[0] + 100, FIRST[1] + 100, 10 * MIB);
      expect(countsOf({}, kind, [askew])).toEqual([10]);
      expect(countsOf({ reach: "aligned" }, kind, [askew])).toEqual([12]);
    });

    it("a reader that goes downwards gains nothing forward, and all of it where blocks are aligned", () => {
      const down = Array.from({ length: 2 * MIB }, (_, index) => {
        return { iovaPfn: FIRST[0] + 2 * MIB - 1 - index, pages: 1, access: Prot.READ };
      });
      expect(countsOf({}, kind, [down])).toEqual([512]);
      expect(countsOf({ reach: "aligned" }, kind, [down])).toEqual([1]);
    });
  },
);

describe.each(["smmu", "vtd", "amd"] as const)("memory that changes behind a %s", (kind) => {
  it("is not reached any more, whatever the device has cached, until it faults in again", () => {
    const { faults, faulting, memory } = createVm({}, kind);
    const read = () => {
      faults.start(DEVICE, [{ iovaPfn: RAM, pages: 100, access: Prot.READ }]);
      faults.settle();
      return faulting.counts.requests;
    };
    expect([read(), read()]).toEqual([1, 1]);
    expect(memory.migrate(VPN + 10, 3)).toBe(3);
    expect(read()).toBe(2);
    expect(memory.munmap(VPN + 50, 1)).toBe(Errno.OK);
    expect(read()).toBe(3);
    expect(faults.counts(DEVICE)).toEqual({ done: 399, failed: 1 });
    expect(faulting.counts).toMatchObject({ invalid: 1, pagesInvalidated: 4 });
  });
});

describe("a group of requests", () => {
  it("that goes beyond the mapping fails as a whole, as the device cannot know by which page", () => {
    const { faults } = createVm({ pages: 1 }, "vtd", { inFlight: 4 });
    faults.start(DEVICE, [{ iovaPfn: RAM + PAGES - 6, pages: 8, access: Prot.READ }]);
    faults.settle();
    expect(faults.counts(DEVICE)).toEqual({ done: 4, failed: 4 });
  });
});

describe("accesses in flight together", () => {
  it("of an SMMU are a fault each, of which one maps", () => {
    const { faults, faulting } = createVm({}, "smmu", { inFlight: 8 });
    faults.start(DEVICE, [{ iovaPfn: FIRST[0], pages: 512, access: Prot.READ }]);
    faults.settle();
    expect(faulting.counts).toMatchObject({ requests: 8, alreadyMapped: 7, pagesMapped: 512 });
  });

  it("of a function with PRI are requests of one group", () => {
    const { faults, faulting } = createVm({ pages: 1 }, "vtd", { inFlight: 8 });
    faults.start(DEVICE, [{ iovaPfn: FIRST[0], pages: 512, access: Prot.READ }]);
    faults.settle();
    expect(faulting.counts).toMatchObject({ requests: 512, alreadyMapped: 0 });
    expect(faults.counts(DEVICE).done).toBe(512);
  });

  it("are served in whatever order the queue picks, to the same end", () => {
    for (const last of [0, 1]) {
      const pick = (count: number) => (last === 0 ? 0 : count - 1);
      const { faults, faulting } = createVm({ pages: 1 }, "smmu", { inFlight: 8, pick });
      faults.start(DEVICE, [{ iovaPfn: FIRST[0], pages: 100, access: Prot.READ }]);
      faults.settle();
      expect(faulting.counts).toMatchObject({ requests: 100, pagesMapped: 100 });
    }
  });
});

describe("a shared address space", () => {
  it("faults once for each page of the buffers: 512, and 1024 with other buffers", () => {
    const world = new FaultingWorld();
    const { unit } = world.units[0]!;
    const queue = world.stalls;
    const group = world.groups[0]!;
    const device = world.devices[0]!;
    (device as { maxPasids: number }).maxPasids = 2;
    const domain = group.allocDomain(DomainType.UNMANAGED) as IommuDomain;
    const run = createPinRun();
    let served = 0;
    // The IOMMU walks the process's own tables; here they are filled as the process faults.
    domain.iopfHandler = new SvaHandler({
      handleFault(vpn) {
        served += 1;
        if (world.memory.pinRun(vpn, 1, true, 1, run) !== Errno.OK) return false;
        world.memory.unpin(run.pfn, 1, true);
        return domain.map(vpn, run.pfn, 1, PROT_RW) === Errno.OK;
      },
    });
    expect(attachPasidHandle(group, { domain }, 1)).toBe(Errno.OK);
    expect(queue.enableDevice(group, device)).toBe(Errno.OK);
    world.memory.mmap({ vpn: VPN, pages: 4096, backing: { kind: "anonymous", isHuge: false } });
    const engine = new StallDevice(queue, { rid: device.rid, pasid: 1 });
    const go = (input: number, output: number) => {
      engine.start(message(input, output, MIB));
      while (engine.isBusy) {
        engine.run();
        world.settle();
      }
      return served;
    };
    expect([go(VPN, VPN + 512), go(VPN, VPN + 512), go(VPN + 1024, VPN + 2048)]).toEqual([
      512, 512, 1024,
    ]);
    expect([engine.counts.failed, unit.faults.recorded]).toEqual([0, 0]);
    engine.start([{ iovaPfn: VPN + 5000, pages: 1, access: Prot.READ }]);
    engine.run();
    world.settle();
    expect(engine.counts.failed).toBe(1);
  });
});
