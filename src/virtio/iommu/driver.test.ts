/**
 * Start, attach, identity, regions and faults of the driver: rows 74, 76, 81 to 86 of the reference
 * "linux-dma-path", 11, and the driver's rules of the reference "virtio-iommu".
 */
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { IotlbGather } from "../../iommu/gather.ts";
import { PROT_RW } from "../../iommu/prot.ts";
import { DeviceStatus } from "../features.ts";
import { AREA_START, DriverWorld } from "./driver-scripted.suite.ts";
import { ALL_CORRECTIONS, LINUX_7_2 } from "./driver-settings.ts";
import { FEATURES_ALL, featureSet, RequestType, Status } from "./protocol.ts";

const gather = new IotlbGather();
const corrected = { ...LINUX_7_2, corrections: ALL_CORRECTIONS };

describe("row 74: a domain without endpoint", () => {
  it("sends nothing; the first ATTACH is followed by one MAP per mapping, each waited for", () => {
    const world = new DriverWorld();
    const domain = world.value(world.driver.createDomain());
    domain.map(32, 5, 12, 2, PROT_RW);
    domain.map(16, 9, 12, 1, PROT_RW);
    domain.map(64, 7, 12, 1, PROT_RW);
    expect(domain.unmap(64, 12, 1, gather)).toBe(1);
    expect(domain.iotlbSyncMap(16, 1)).toBe(Errno.OK);
    expect(world.device.takeLog()).toEqual([]);
    const endpoint = world.endpoint(8);
    world.device.takeLog();
    world.meter.reset();
    expect(world.driver.attach(endpoint, domain)).toBe(Errno.OK);
    expect(world.device.takeLog()).toEqual([
      "ATTACH 1 ep 8",
      "MAP 1 0x10000-0x10fff > 0x9000 rw",
      "MAP 1 0x20000-0x21fff > 0x5000 rw",
    ]);
    expect(world.meter.events("virtqueueSync")).toBe(3);
    expect(world.meter.events("attach")).toBe(1);
    expect(domain.endpointCount).toBe(1);
  });

  it("a second endpoint attaches without replay", () => {
    const world = new DriverWorld();
    const { domain } = world.attached();
    domain.map(16, 9, 12, 1, PROT_RW);
    world.driver.attach(world.endpoint(9), domain);
    expect(world.device.takeLog()).toEqual([
      "MAP 1 0x10000-0x10fff > 0x9000 rw",
      "PROBE ep 9",
      "ATTACH 1 ep 9",
    ]);
    expect(domain.endpointCount).toBe(2);
  });

  it("a replay that fails fails the attach", () => {
    const world = new DriverWorld();
    const domain = world.value(world.driver.createDomain());
    domain.map(16, 9, 12, 1, PROT_RW);
    const endpoint = world.endpoint(8);
    world.device.answer = (_, type) => ({
      status: type === RequestType.MAP ? Status.NOMEM : Status.OK,
    });
    expect(world.driver.attach(endpoint, domain)).toBe(Errno.ENOMEM);
    expect(domain.endpointCount).toBe(0);
    expect(endpoint.domain).toBe(null);
  });
});

describe("row 76: ATTACH answered NOENT", () => {
  it("gives ENOENT, and the old domain has lost its endpoint in the count (V195)", () => {
    for (const [settings, count] of [
      [LINUX_7_2, 0],
      [corrected, 1],
    ] as const) {
      const world = new DriverWorld({}, settings);
      const { domain, endpoint } = world.attached();
      const next = world.value(world.driver.createDomain());
      world.device.answer = () => ({ status: Status.NOENT });
      expect(world.driver.attach(endpoint, next)).toBe(Errno.ENOENT);
      expect(domain.endpointCount).toBe(count);
      expect(endpoint.domain).toBe(domain);
      world.device.answer = () => ({});
      world.device.takeLog();
      domain.map(1, 1, 12, 1, PROT_RW);
      domain.iotlbSyncMap(1, 1);
      expect(world.device.takeLog()).toHaveLength(count);
    }
  });

  it("at a second failure the count wraps, as a 32-bit counter does", () => {
    const world = new DriverWorld();
    const { domain, endpoint } = world.attached();
    const next = world.value(world.driver.createDomain());
    world.device.answer = () => ({ status: Status.NOENT });
    world.driver.attach(endpoint, next);
    world.driver.attach(endpoint, next);
    expect(domain.endpointCount).toBe(0xffff_ffff);
  });

  it("V194: IDs attached before the one that failed stay attached", () => {
    const world = new DriverWorld();
    const endpoint = world.endpoint(8, 9, 10);
    const domain = world.value(world.driver.createDomain());
    world.device.takeLog();
    world.device.answer = (request) => ({
      status: request.endsWith("ep 9") ? Status.UNSUPP : Status.OK,
    });
    expect(world.driver.attach(endpoint, domain)).toBe(Errno.ENOSYS);
    expect(world.device.takeLog()).toEqual(["ATTACH 1 ep 8", "ATTACH 1 ep 9"]);
    expect(domain.endpointCount).toBe(0);
  });
});

describe("row 81: used length 0", () => {
  it("for ATTACH and DETACH is taken for success: the IOERR never reaches the caller", () => {
    const world = new DriverWorld();
    const endpoint = world.endpoint(8);
    const domain = world.value(world.driver.createDomain());
    world.device.answer = () => ({ used: 0, status: Status.NOENT });
    expect(world.driver.attach(endpoint, domain)).toBe(Errno.OK);
    expect(world.driver.detach(endpoint)).toBe(Errno.OK);
  });

  it("is EIO with the correction (V23)", () => {
    const world = new DriverWorld({}, corrected);
    const endpoint = world.endpoint(8);
    const domain = world.value(world.driver.createDomain());
    for (const used of [0, 3, 5]) {
      world.device.answer = () => ({ used: Math.min(used, 4), status: Status.OK });
      expect(world.driver.attach(endpoint, domain)).toBe(used < 4 ? Errno.EIO : Errno.OK);
    }
  });
});

describe("row 82: page sizes", () => {
  it("a granule above 4 KiB: ENODEV for a domain (V190)", () => {
    const world = new DriverWorld({ pageSizeMask: 0x1_0000n });
    expect(world.driver.createDomain().errno).toBe(Errno.ENODEV);
  });

  it("V1: no page size at all: the device is refused with EINVAL", () => {
    const world = new DriverWorld({ pageSizeMask: 0n });
    expect(world.started.errno).toBe(Errno.EINVAL);
    expect(world.transport.readStatus() & DeviceStatus.FAILED).not.toBe(0);
  });

  it("sizes below 4 KiB let whole frames be mapped", () => {
    const shifts = (pageSizeMask: bigint): readonly number[] =>
      new DriverWorld({ pageSizeMask }).driver.device.geometry.pageShifts;
    expect(shifts(0x20_0200n)).toEqual([12, 21]);
    expect(shifts(1n)).toEqual([12]);
    expect(shifts((2n ** 63n) | 0x1000n)).toEqual([12, 63]);
  });
});

describe("row 83: BYPASS_CONFIG", () => {
  it("identity is ATTACH domain 0 flags 1; the first paging domain has ID 1", () => {
    const world = new DriverWorld();
    const endpoint = world.endpoint(8);
    const identity = world.value(world.driver.identityDomain(endpoint));
    world.device.takeLog();
    expect(world.driver.attach(endpoint, identity)).toBe(Errno.OK);
    expect(world.device.takeLog()).toEqual(["ATTACH 0 ep 8 flags 1"]);
    const domain = world.value(world.driver.createDomain());
    expect(domain.id).toBe(1);
    expect(world.driver.attach(endpoint, domain)).toBe(Errno.OK);
    expect(identity.endpointCount).toBe(0);
    expect(world.device.takeLog()).toEqual(["ATTACH 1 ep 8"]);
  });

  it("many endpoints share the one bypass domain; a failure leaves the count (V111)", () => {
    const world = new DriverWorld({ domainFirst: 5, domainLast: 9 });
    const endpoints = [8, 9].map((id) => world.endpoint(id));
    const identity = world.value(world.driver.identityDomain(endpoints[0]!));
    for (const endpoint of endpoints) world.driver.attach(endpoint, identity);
    expect([identity.id, identity.endpointCount]).toEqual([5, 2]);
    const third = world.endpoint(10);
    world.device.answer = () => ({ status: Status.INVAL });
    expect(world.driver.attach(third, identity)).toBe(Errno.EINVAL);
    expect(identity.endpointCount).toBe(2);
    world.device.answer = () => ({});
    world.device.takeLog();
    expect(world.driver.removeEndpoint(endpoints[0]!)).toBe(Errno.OK);
    expect(world.device.takeLog()).toEqual(["DETACH 5 ep 8"]);
    expect(identity.endpointCount).toBe(1);
  });
});

describe("row 84: no BYPASS_CONFIG", () => {
  const features = FEATURES_ALL & ~featureSet("BYPASS_CONFIG");
  const region = (start: bigint, last: bigint, subtype = 0): number[] => {
    const bytes = new Uint8Array(24);
    const view = new DataView(bytes.buffer);
    view.setUint16(0, 1, true);
    view.setUint16(2, 20, true);
    view.setUint8(4, subtype);
    view.setBigUint64(8, start, true);
    view.setBigUint64(16, last, true);
    return [...bytes];
  };
  const identityMaps = (inputLast: bigint, ...regions: number[][]): string[] => {
    const world = new DriverWorld({ features, inputLast, probeSize: 96 });
    world.device.answer = (_, type) =>
      type === RequestType.PROBE ? { bytes: regions.flat() } : {};
    const endpoint = world.endpoint(8);
    const identity = world.value(world.driver.identityDomain(endpoint));
    world.device.takeLog();
    expect(world.driver.attach(endpoint, identity)).toBe(Errno.OK);
    return world.device.takeLog().slice(1);
  };

  it("identity maps the input range around the reserved regions", () => {
    expect(identityMaps(0x7f_ffff_ffffn, region(0x10_0000n, 0x1f_ffffn))).toEqual([
      "MAP 0 0x0-0xfffff > 0x0 rw",
      "MAP 0 0x200000-0x7fffffffff > 0x200000 rw",
    ]);
  });

  it("V74: up to the end of 64 bits, regions rounded out, unsorted and overlapping ones too", () => {
    const end = 2n ** 64n - 1n;
    expect(
      identityMaps(end, region(0xfee0_0100n, 0xfeef_fffen, 1), region(0n, 0x8n), region(4n, 9n)),
    ).toEqual([
      "MAP 0 0x1000-0xfedfffff > 0x1000 rw",
      "MAP 0 0xfef00000-0xffffffffffffffff > 0xfef00000 rw",
    ]);
    expect(identityMaps(0xffffn, region(0x8000n, end - 1n))).toEqual(["MAP 0 0x0-0x7fff > 0x0 rw"]);
    expect(identityMaps(0xffffn, region(0x20_0000n, 0x20_ffffn))).toEqual([
      "MAP 0 0x0-0xffff > 0x0 rw",
    ]);
  });

  it("its ID is like any other, and is free again when the mapping fails", () => {
    const world = new DriverWorld({ features });
    const endpoint = world.endpoint(8);
    world.failingAllocation = world.allocations + 2;
    expect(world.driver.identityDomain(endpoint).errno).toBe(Errno.ENOMEM);
    expect(world.value(world.driver.createDomain()).id).toBe(0);
  });
});

describe("domain IDs", () => {
  it("are the lowest free ones, inside domain_range (V26)", () => {
    const world = new DriverWorld({ domainFirst: 7, domainLast: 10 });
    const domains = [0, 1, 2].map(() => world.value(world.driver.createDomain()));
    expect(domains.map((domain) => domain.id)).toEqual([8, 9, 10]);
    expect(world.driver.createDomain().errno).toBe(Errno.ENOSPC);
    world.driver.freeDomain(domains[2]!);
    world.driver.freeDomain(domains[0]!);
    expect(world.value(world.driver.createDomain()).id).toBe(8);
    expect(world.value(world.driver.createDomain()).id).toBe(10);
  });

  it("end where the kernel's allocator ends", () => {
    const world = new DriverWorld({ domainFirst: 0x7fff_fffe });
    expect(world.value(world.driver.createDomain()).id).toBe(0x7fff_ffff);
    expect(world.driver.createDomain().errno).toBe(Errno.ENOSPC);
  });
});

describe("V188: recovery", () => {
  it("resets, attaches again and replays every mapping", () => {
    const world = new DriverWorld();
    const { domain } = world.attached();
    const second = world.endpoint(9);
    world.driver.attach(second, domain);
    const third = world.endpoint(10);
    world.driver.attach(third, world.value(world.driver.identityDomain(third)));
    domain.map(16, 9, 12, 1, PROT_RW);
    world.memory.writeU16(AREA_START, 0);
    world.device.takeLog();
    expect(world.driver.recover()).toBe(Errno.OK);
    expect(world.device.takeLog()).toEqual([
      "reset",
      "ATTACH 1 ep 8",
      "MAP 1 0x10000-0x10fff > 0x9000 rw",
      "ATTACH 1 ep 9",
      "ATTACH 0 ep 10 flags 1",
    ]);
    expect(domain.endpointCount).toBe(2);
    expect(domain.unmap(16, 12, 1, gather)).toBe(1);
    domain.iotlbSync(gather);
    expect(world.device.takeLog()).toEqual(["UNMAP 1 0x10000-0x10fff"]);
  });

  it("brings a driver back whose queue broke", () => {
    const world = new DriverWorld();
    const { domain } = world.attached();
    world.device.isAsleep = true;
    domain.map(16, 9, 12, 1, PROT_RW);
    domain.iotlbSyncMap(16, 1);
    expect(world.driver.requests.dead).toBe(Errno.ETIMEDOUT);
    expect(domain.map(17, 9, 12, 1, PROT_RW)).toBe(Errno.ETIMEDOUT);
    world.device.isAsleep = false;
    expect(world.driver.recover()).toBe(Errno.OK);
    expect(domain.map(17, 9, 12, 1, PROT_RW)).toBe(Errno.OK);
    expect(domain.iotlbSyncMap(17, 1)).toBe(Errno.OK);
    expect(world.device.takeLog().at(-1)).toBe("MAP 1 0x11000-0x11fff > 0x9000 rw");
  });
});
