/** Map, unmap and sync of the driver: rows 75, 77 to 80 of the reference "linux-dma-path", 11. */
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { DomainType, IommuDomain } from "../../iommu/domain.ts";
import { IotlbGather } from "../../iommu/gather.ts";
import { PROT_RW, Prot } from "../../iommu/prot.ts";
import { DriverWorld } from "./driver-scripted.suite.ts";
import { ALL_CORRECTIONS, LINUX_6_4, LINUX_7_2, PROPOSAL_2023 } from "./driver-settings.ts";
import { FEATURES_ALL, featureSet, RequestType, Status } from "./protocol.ts";

const gather = new IotlbGather();
const MIB_2 = 512;

function answersMapWith(world: DriverWorld, status: number): void {
  world.device.answer = (_, type) => ({ status: type === RequestType.MAP ? status : 0 });
}

describe("row 75: the device answers MAP with RANGE", () => {
  it("iommu_map succeeds as of 7.2, the status is discarded", () => {
    const world = new DriverWorld();
    const { domain } = world.attached();
    answersMapWith(world, Status.RANGE);
    const core = new IommuDomain(DomainType.UNMANAGED, domain);
    expect(core.map(16, 32, 1, PROT_RW)).toBe(Errno.OK);
    expect(world.device.takeLog()).toEqual(["MAP 1 0x10000-0x10fff > 0x20000 rw"]);
    expect(domain.iovaToPhys(16)).toBe(32);
  });

  it("iommu_map gives ERANGE as of 6.4, and nothing stays mapped", () => {
    const world = new DriverWorld({}, LINUX_6_4);
    const { domain } = world.attached();
    answersMapWith(world, Status.RANGE);
    const core = new IommuDomain(DomainType.UNMANAGED, domain);
    expect(core.map(16, 32, 1, PROT_RW)).toBe(Errno.ERANGE);
    expect(domain.mappingCount).toBe(0);
  });

  it("iommu_map gives ERANGE and unmaps with the correction of V191", () => {
    const world = new DriverWorld({}, { ...LINUX_7_2, corrections: ALL_CORRECTIONS });
    const { domain } = world.attached();
    answersMapWith(world, Status.RANGE);
    const core = new IommuDomain(DomainType.UNMANAGED, domain);
    expect(core.map(16, 32, 1, PROT_RW)).toBe(Errno.ERANGE);
    expect(world.device.takeLog()).toEqual([
      "MAP 1 0x10000-0x10fff > 0x20000 rw",
      "UNMAP 1 0x10000-0x10fff",
    ]);
    answersMapWith(world, Status.OK);
    expect(core.map(16, 32, 1, PROT_RW)).toBe(Errno.OK);
  });

  it("every status becomes the errno of its table as of 6.4", () => {
    const expected = [
      "OK",
      "EIO",
      "ENOSYS",
      "EIO",
      "EINVAL",
      "ERANGE",
      "ENOENT",
      "EFAULT",
    ] as const;
    const world = new DriverWorld({}, LINUX_6_4);
    const { domain } = world.attached();
    const mapWith = (status: number): number => {
      answersMapWith(world, status);
      const errno = domain.map(16, 32, 12, 1, PROT_RW);
      domain.unmap(16, 12, 1, gather);
      return errno;
    };
    expected.forEach((name, status) => {
      expect(mapWith(status)).toBe(Errno[name]);
    });
    expect(mapWith(8)).toBe(Errno.ENOMEM);
    expect(mapWith(9)).toBe(Errno.EIO);
    expect(mapWith(255)).toBe(Errno.EIO);
  });
});

describe("row 77: rights", () => {
  it("MMIO without F_MMIO is EINVAL, nothing is queued and the tree stays", () => {
    const world = new DriverWorld({ features: FEATURES_ALL & ~featureSet("MMIO") });
    const { domain } = world.attached();
    expect(domain.map(16, 32, 12, 1, PROT_RW | Prot.MMIO)).toBe(Errno.EINVAL);
    expect(domain.mappedPages).toBe(0);
    expect(domain.mappingCount).toBe(0);
    domain.iotlbSyncMap(16, 1);
    expect(world.device.takeLog()).toEqual([]);
  });

  it("MMIO with F_MMIO is a flag; CACHE, NOEXEC and PRIV are ignored", () => {
    const world = new DriverWorld();
    const { domain } = world.attached();
    const prot = Prot.READ | Prot.MMIO | Prot.CACHE | Prot.NOEXEC | Prot.PRIV;
    expect(domain.map(16, 32, 12, 1, prot)).toBe(Errno.OK);
    expect(domain.map(17, 33, 12, 1, Prot.WRITE)).toBe(Errno.OK);
    domain.iotlbSyncMap(16, 2);
    expect(world.device.takeLog()).toEqual([
      "MAP 1 0x10000-0x10fff > 0x20000 rm",
      "MAP 1 0x11000-0x11fff > 0x21000 w",
    ]);
  });
});

it("row 78: a mapping is unmapped as a whole, from its start", () => {
  const world = new DriverWorld();
  const { domain } = world.attached();
  expect(domain.map(0, MIB_2, 21, 1, PROT_RW)).toBe(Errno.OK);
  expect(domain.unmap(256, 12, 256, gather)).toBe(0);
  expect(domain.mappingCount).toBe(1);
  expect(domain.unmap(0, 12, 256, gather)).toBe(512);
  domain.iotlbSync(gather);
  expect(world.device.takeLog()).toEqual([
    "MAP 1 0x0-0x1fffff > 0x200000 rw",
    "UNMAP 1 0x0-0x1fffff",
  ]);
});

it("row 79: an unmap that reaches a hole sends nothing, yet forgets what lay before it", () => {
  const world = new DriverWorld();
  const { domain } = world.attached();
  domain.map(0, 16, 12, 1, PROT_RW);
  expect(domain.unmap(0, 12, 2, gather)).toBe(0);
  expect(domain.mappingCount).toBe(0);
  domain.iotlbSync(gather);
  expect(world.device.takeLog()).toEqual(["MAP 1 0x0-0xfff > 0x10000 rw"]);
});

describe("row 80: a full queue", () => {
  for (const [ringFeatures, capacity] of [
    [0x1000_0000, 8],
    [0, 4],
    [0x3000_0000, 8],
  ] as const) {
    it(`of ${capacity} requests is synced, then the request is added`, () => {
      const world = new DriverWorld({ queueSizes: [8, 8], ringFeatures });
      const { domain } = world.attached();
      for (let index = 0; index < capacity; index += 1)
        expect(domain.map(index, index, 12, 1, PROT_RW)).toBe(Errno.OK);
      expect(world.meter.events("virtqueueKick")).toBe(0);
      expect(world.driver.requests.inFlight).toBe(capacity);
      expect(domain.map(capacity, capacity, 12, 1, PROT_RW)).toBe(Errno.OK);
      expect(world.driver.requests.inFlight).toBe(1);
      expect(world.meter.amount("virtqueueSync")).toBe(capacity);
      // The ring code kicks before it gives up; without EVENT_IDX the sync kicks again.
      expect(world.meter.events("virtqueueKick")).toBe(ringFeatures === 0x3000_0000 ? 1 : 2);
      domain.iotlbSyncMap(0, capacity + 1);
      expect(world.device.takeLog()).toHaveLength(capacity + 1);
    });
  }

  it("of one descriptor without indirect tables takes no request at all: ENOSPC", () => {
    const world = new DriverWorld({ queueSizes: [1, 8], ringFeatures: 0, probeSize: 0 });
    const domain = world.value(world.driver.createDomain());
    expect(world.driver.attach(world.endpoint(8), domain)).toBe(Errno.ENOSPC);
    expect(domain.endpointCount).toBe(0);
  });
});

describe("V191: what is batched", () => {
  it("MAPs and UNMAPs wait for one kick and one sync", () => {
    const world = new DriverWorld();
    const { domain } = world.attached();
    for (let index = 0; index < 10; index += 1) domain.map(index, index, 12, 1, PROT_RW);
    expect(world.device.takeLog()).toEqual([]);
    domain.iotlbSyncMap(0, 10);
    expect(world.device.takeLog()).toHaveLength(10);
    for (let index = 0; index < 10; index += 1) domain.unmap(index, 12, 1, gather);
    expect(world.device.takeLog()).toEqual([]);
    domain.flushIotlbAll();
    expect(world.device.takeLog()).toHaveLength(10);
    expect(world.meter.events("virtqueueKick")).toBe(2);
    expect(world.meter.events("virtqueueSync")).toBe(2);
    expect(world.meter.amount("virtqueueSync")).toBe(20);
    expect(world.meter.amount("virtqueueAdd")).toBe(20);
    expect(world.meter.amount("requestMap")).toBe(10);
    expect(world.meter.amount("requestUnmap")).toBe(10);
    expect(world.meter.amount("requestOther")).toBe(0);
  });

  it("as of 6.4 every MAP kicks and waits, and sync_map does nothing", () => {
    const world = new DriverWorld({}, LINUX_6_4);
    const { domain } = world.attached();
    for (let index = 0; index < 10; index += 1) domain.map(index, index, 12, 1, PROT_RW);
    expect(world.meter.events("virtqueueSync")).toBe(10);
    expect(domain.iotlbSyncMap(0, 10)).toBe(Errno.OK);
    expect(world.meter.events("virtqueueKick")).toBe(10);
    expect(domain.deferredFlush).toBe(false);
  });

  it("a synchronous request drains what others queued", () => {
    const world = new DriverWorld();
    const { domain } = world.attached();
    domain.map(1, 1, 12, 1, PROT_RW);
    const other = world.value(world.driver.createDomain());
    expect(world.driver.attach(world.endpoint(9), other)).toBe(Errno.OK);
    expect(world.driver.requests.inFlight).toBe(0);
    expect(world.device.takeLog()).toEqual([
      "MAP 1 0x1000-0x1fff > 0x1000 rw",
      "PROBE ep 9",
      "ATTACH 2 ep 9",
    ]);
  });
});

describe("which hooks skip a domain without endpoints", () => {
  /** Kicks that each hook causes while another domain's request is queued. */
  const kicks = (settings: typeof LINUX_7_2): number[] => {
    return (["iotlbSync", "iotlbSyncMap", "flushIotlbAll"] as const).map((hook) => {
      const world = new DriverWorld({}, settings);
      const { domain } = world.attached();
      const empty = world.value(world.driver.createDomain());
      domain.unmap(0, 12, 0, gather);
      domain.map(1, 1, 12, 1, PROT_RW);
      world.meter.reset();
      if (hook === "iotlbSync") empty.iotlbSync(gather);
      else if (hook === "iotlbSyncMap") empty.iotlbSyncMap(1, 1);
      else empty.flushIotlbAll();
      return world.meter.events("virtqueueKick");
    });
  };

  it("sync_map and flush_all as merged, all three as proposed", () => {
    expect(kicks(LINUX_7_2)).toEqual([1, 0, 0]);
    expect(kicks(PROPOSAL_2023)).toEqual([0, 0, 0]);
  });

  it("the proposal asks for a single flush queue, the merged form does not", () => {
    const proposal = new DriverWorld({}, PROPOSAL_2023).attached().domain;
    const merged = new DriverWorld().attached().domain;
    expect([proposal.shadowOnFlush, proposal.deferredFlush]).toEqual([true, true]);
    expect([merged.shadowOnFlush, merged.deferredFlush]).toEqual([false, true]);
  });
});

describe("one MAP per run of a page size", () => {
  it("through the core, as iommu_pgsize chooses", () => {
    const world = new DriverWorld({ pageSizeMask: 0x4020_1000n });
    const { domain } = world.attached();
    const core = new IommuDomain(DomainType.UNMANAGED, domain);
    expect(core.map(1, 1, 2048, PROT_RW)).toBe(Errno.OK);
    expect(world.device.takeLog()).toEqual([
      "MAP 1 0x1000-0x1fffff > 0x1000 rw",
      "MAP 1 0x200000-0x7fffff > 0x200000 rw",
      "MAP 1 0x800000-0x800fff > 0x800000 rw",
    ]);
    expect(world.meter.events("virtqueueSync")).toBe(1);
    expect(core.unmap(1, 2048)).toBe(2048);
    expect(world.device.takeLog()).toEqual([
      "UNMAP 1 0x1000-0x1fffff",
      "UNMAP 1 0x200000-0x7fffff",
      "UNMAP 1 0x800000-0x800fff",
    ]);
  });

  it("addresses above 2^32 and up to the end of 64 bits keep every bit", () => {
    const world = new DriverWorld({ inputLast: 2n ** 64n - 1n });
    const { domain } = world.attached();
    const top = 2 ** 52 - 1;
    expect(domain.apertureLastPfn).toBe(top);
    domain.map(top, 2 ** 40 + 3, 12, 1, PROT_RW);
    domain.unmap(top, 12, 1, gather);
    domain.iotlbSync(gather);
    expect(world.device.takeLog()).toEqual([
      "MAP 1 0xfffffffffffff000-0xffffffffffffffff > 0x10000000003000 rw",
      "UNMAP 1 0xfffffffffffff000-0xffffffffffffffff",
    ]);
  });
});

describe("mappings that overlap, which Linux does not check for", () => {
  it("are kept side by side, and each counts when it is unmapped", () => {
    const world = new DriverWorld();
    const { domain } = world.attached();
    domain.map(10, 100, 12, 4, PROT_RW);
    domain.map(12, 200, 12, 4, PROT_RW);
    expect(domain.mappingCount).toBe(2);
    expect(domain.iovaToPhys(12)).toBe(102);
    expect(domain.iovaToPhys(14)).toBe(202);
    expect(domain.unmap(10, 12, 6, gather)).toBe(8);
    expect(domain.mappingCount).toBe(0);
    domain.iotlbSync(gather);
    expect(world.device.takeLog().at(-1)).toBe("UNMAP 1 0xa000-0x11fff");
  });

  it("stop the walk where one starts before the range", () => {
    const world = new DriverWorld();
    const domain = world.value(world.driver.createDomain());
    domain.map(10, 100, 12, 4, PROT_RW);
    domain.map(8, 200, 12, 4, PROT_RW);
    expect(domain.unmap(10, 12, 4, gather)).toBe(0);
    expect(domain.mappingCount).toBe(2);
    expect(domain.iovaToPhys(10)).toBe(202);
    expect(domain.unmap(8, 12, 2, gather)).toBe(4);
    expect(domain.iovaToPhys(10)).toBe(100);
    expect(domain.iovaToPhys(9)).toBe(-1);
  });
});
