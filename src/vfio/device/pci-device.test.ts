import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { IommuDevice } from "../../iommu/device.ts";
import { CountingMeter } from "../../meter.ts";
import { AddressSpace } from "../process/address-space.ts";
import { contiguousFrames } from "../process/frame-source.ts";
import { type FollowRules, followRules } from "../process/mappable-device.ts";
import { createPinRun } from "../process/process-memory.ts";
import type { VfioDmaBuf } from "./dma-buf.ts";
import { REGION_PAGES, RegionIndex, regionPage } from "./pci-bar.ts";
import { VfioPciDevice, type VfioPciDeviceOptions } from "./pci-device.ts";

const GIB = 2 ** 18;
/** Frame of the large BAR: 4 TiB. */
const BAR_PFN = 2 ** 30;

function createDevice(options: Partial<VfioPciDeviceOptions> = {}): VfioPciDevice {
  return new VfioPciDevice({
    iommuDevice: new IommuDevice({ name: "0000:21:00.0", ops: null }),
    bars: [
      { pfn: 0xfe800, bytes: 0x4000 },
      { pfn: 0xe0, bytes: 0x80, isMemory: false },
      { pfn: BAR_PFN, bytes: 192 * 2 ** 30 },
      null,
      { pfn: 0xfe900, offset: 0x800, bytes: 0x100 },
      { pfn: 0xfe901, bytes: 0x100 },
    ],
    romBytes: 0x1_0000,
    ...options,
  });
}

function world(rules: FollowRules = followRules["linux-6.15"], device = createDevice()) {
  const meter = new CountingMeter();
  const frames = contiguousFrames({ basePfn: 1, pages: 2 ** 18 });
  const space = new AddressSpace({ frames, meter, rules });
  const run = createPinRun();
  const map = (vpn: number, pages: number, page = 0) => {
    const filePage = regionPage(RegionIndex.BAR2) + page;
    return space.mmap({ vpn, pages, backing: { kind: "device", device, filePage } });
  };
  const pin = (vpn: number, pages: number, isWrite = true) =>
    space.pinRun(vpn, pages, isWrite, 512, run);
  return { device, meter, space, run, map, pin };
}

describe("regions", () => {
  it("are told of as GET_REGION_INFO tells of them", () => {
    const device = createDevice({ msixBar: 0 });
    const flagsOf = (index: number) => {
      const region = device.region(index);
      return typeof region === "number" ? -region : region.flags;
    };
    expect([0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(flagsOf)).toEqual([
      7,
      3,
      7,
      0,
      3,
      7,
      1,
      3,
      -Errno.EINVAL,
      -Errno.EINVAL,
    ]);
    expect(device.region(2)).toEqual({
      flags: 7,
      bytes: 192 * 2 ** 30,
      fileOffset: 2n << 40n,
      isMsixMappable: false,
    });
    expect(device.region(0)).toMatchObject({ isMsixMappable: true });
    expect(createDevice({ hasVga: true }).region(8)).toMatchObject({ bytes: 0xc_0000, flags: 3 });
    expect(device.info).toEqual({ flags: 3, regions: 9, irqs: 5 });
    for (const wild of [-1, 1.5, 2 ** 32, Number.NaN])
      expect(device.region(wild)).toBe(Errno.EINVAL);
  });

  it("are mapped shared, inside a memory BAR, and nothing else is", () => {
    const device = createDevice();
    const out = { pfn: 0 };
    const map = (index: number, page: number, pages: number, isShared = true) =>
      device.mapPages(regionPage(index) + page, pages, isShared, out);
    expect(map(0, 1, 3)).toBe(Errno.OK);
    expect(out.pfn).toBe(0xfe801);
    expect(map(0, 1, 4)).toBe(Errno.EINVAL);
    expect(map(0, 0, 1, false)).toBe(Errno.EINVAL);
    for (const index of [1, 3, 4, 6, 7, 8, 9, 4000]) expect(map(index, 0, 1)).toBe(Errno.EINVAL);
    expect(map(5, 0, 1)).toBe(Errno.OK);
    expect(map(2, REGION_PAGES - 1, 2 ** 40)).toBe(Errno.EINVAL);
    const busy = createDevice({ bars: [{ pfn: 1, bytes: 4096, isBusy: true }] });
    expect(busy.mapPages(0, 1, true, out)).toBe(Errno.EBUSY);
    device.unbind();
    expect(map(0, 0, 1)).toBe(Errno.ENODEV);
  });
});

describe("a BAR in a process", () => {
  it("of 192 GiB, aligned alike, is 192 lookups and one run (row 107)", () => {
    const { meter, run, map, pin } = world();
    map(64 * GIB, 192 * GIB);
    expect(pin(64 * GIB, 192 * GIB)).toBe(Errno.OK);
    expect(run).toEqual({ pfn: BAR_PFN, pages: 192 * GIB, isReserved: true, nextErrno: 0 });
    expect(meter.amount("pfnLookup")).toBe(192);
    expect(meter.amount("pageFault")).toBe(192);
    expect(meter.amount("pinRefused")).toBe(192);
    expect(meter.amount("pagePin")).toBe(0);
    meter.reset();
    expect(pin(64 * GIB, 192 * GIB)).toBe(Errno.OK);
    expect([meter.amount("pfnLookup"), meter.amount("pageFault")]).toEqual([192, 0]);
  });

  it("off by 4 KiB is 50 331 648 lookups and still one run (row 108)", () => {
    const { meter, run, map, pin } = world();
    map(64 * GIB + 1, 192 * GIB);
    expect(pin(64 * GIB + 1, 192 * GIB)).toBe(Errno.OK);
    expect(run.pages).toBe(192 * GIB);
    expect(meter.amount("pfnLookup")).toBe(50_331_648);
  });

  it("is looked up as often as its kernel and architecture make it", () => {
    const lookups = (rules: FollowRules, start: number) => {
      const { meter, map, pin } = world(rules);
      map(start, 2 * GIB);
      pin(start, 2 * GIB);
      return [meter.amount("pfnLookup"), meter.amount("pageFault")];
    };
    expect(lookups(followRules["linux-6.11"], 64 * GIB)).toEqual([2 * GIB, 2 * GIB]);
    expect(lookups(followRules["linux-6.12"], 64 * GIB)).toEqual([2 * GIB, 2]);
    expect(lookups(followRules["linux-6.15"], 64 * GIB)).toEqual([2, 2]);
    expect(lookups(followRules["linux-6.15-arm64"], 64 * GIB)).toEqual([1024, 1024]);
    expect(lookups(followRules["linux-6.15"], 64 * GIB + 512)).toEqual([1024, 1024]);
  });

  it("has a whole entry after a fault of any of its pages", () => {
    const { meter, space, map, pin } = world();
    map(GIB, 2 * GIB);
    expect(space.touch(GIB + 5, 1, true)).toBe(Errno.OK);
    expect(meter.amount("pageFault")).toBe(1);
    expect(space.frameAt(2 * GIB - 1)).toBe(BAR_PFN + GIB - 1);
    pin(GIB, 2 * GIB);
    expect(meter.amount("pageFault")).toBe(2);
  });

  it("gives the same answer and counts when each lookup is really made", () => {
    const kernels = ["linux-6.11", "linux-6.12", "linux-6.15", "linux-6.15-arm64"] as const;
    for (const kernel of kernels)
      for (const [vpn, pages] of [
        [GIB, 2 * GIB],
        [GIB + 1, GIB],
        [GIB - 700, 2 * GIB + 900],
      ] as const) {
        const counted = world(followRules[kernel]);
        const walked = world({ ...followRules[kernel], isWalked: true });
        for (const each of [counted, walked]) {
          each.map(vpn, pages, GIB - 700);
          expect(each.pin(vpn + 3, pages - 3)).toBe(Errno.OK);
        }
        expect(walked.run).toEqual(counted.run);
        for (const step of ["pfnLookup", "pinRefused", "pageFault"] as const)
          expect(walked.meter.amount(step)).toBe(counted.meter.amount(step));
      }
  });

  it("cannot be had without a lookup, as in iommufd", () => {
    const { meter, map, pin } = world(followRules.iommufd);
    map(GIB, GIB);
    expect(pin(GIB, GIB)).toBe(Errno.EFAULT);
    expect(meter.amount("pfnLookup")).toBe(0);
  });

  it("mapped in two halves side by side is one run, and ends where memory with pages begins", () => {
    const { space, run, map, pin } = world();
    map(GIB, 512, 0);
    map(GIB + 512, 512, 512);
    space.mmap({ vpn: GIB + 1024, pages: 4, backing: { kind: "anonymous", isHuge: false } });
    expect(pin(GIB + 5, 1023)).toBe(Errno.OK);
    expect(run).toEqual({ pfn: BAR_PFN + 5, pages: 1019, isReserved: true, nextErrno: 0 });
    expect(pin(GIB + 1024, 4)).toBe(Errno.OK);
    expect(run.isReserved).toBe(false);
    space.munmap(GIB + 1024, 1);
    expect(pin(GIB, 2000)).toBe(Errno.OK);
    expect(run.nextErrno).toBe(Errno.EFAULT);
    map(GIB + 512, 512, 100);
    expect(pin(GIB, 1024)).toBe(Errno.OK);
    expect([run.pages, run.nextErrno]).toEqual([512, Errno.OK]);
  });

  it("without write permission gives EFAULT for writing", () => {
    const { space, map, pin } = world();
    map(GIB, 512);
    space.mprotect(GIB, 512, true, false);
    expect(pin(GIB, 512, true)).toBe(Errno.EFAULT);
    expect(pin(GIB, 512, false)).toBe(Errno.OK);
  });

  it("over frames of the machine's own memory gives EFAULT", () => {
    const bars = [null, null, { pfn: 100, bytes: 2 ** 20 }];
    const { map, pin } = world(followRules["linux-6.15"], createDevice({ bars }));
    map(GIB, 16);
    expect(pin(GIB, 16)).toBe(Errno.EFAULT);
  });

  it("loses the large entries that an unmap cuts, and gets smaller ones", () => {
    const { meter, space, map, pin } = world();
    map(GIB, 2 * GIB);
    pin(GIB, 2 * GIB);
    meter.reset();
    const told: number[] = [];
    space.addNotifier({ invalidate: (first, last) => told.push(first - GIB, last - GIB) });
    space.munmap(2 * GIB - 512, 512);
    expect(told).toEqual([0, GIB - 1, GIB - 512, GIB - 1]);
    expect(pin(GIB, GIB - 512)).toBe(Errno.OK);
    expect([meter.amount("pfnLookup"), meter.amount("pageFault")]).toEqual([511, 511]);
  });
});

describe("memory of a device that does not answer", () => {
  const stop: Record<string, (device: VfioPciDevice) => void> = {
    "decoding off (row 17)": (device) => device.setMemoryDecode(false),
    "in D3": (device) => device.setPowerState(3),
    suspended: (device) => void device.suspend(),
    unbound: (device) => device.unbind(),
  };
  for (const [name, act] of Object.entries(stop))
    it(`is taken from the process and gives EFAULT: ${name}`, () => {
      const { device, space, map, pin } = world();
      map(GIB, GIB);
      expect(pin(GIB, GIB)).toBe(Errno.OK);
      const told: number[] = [];
      space.addNotifier({
        invalidate: (first, last) => told.push(first, last, space.frameAt(first)),
      });
      act(device);
      expect(told).toEqual([GIB, 2 * GIB - 1, BAR_PFN]);
      expect(space.frameAt(GIB)).toBe(-1);
      expect(pin(GIB, GIB)).toBe(Errno.EFAULT);
      expect(space.touch(GIB, 1, true)).toBe(Errno.EFAULT);
    });

  it("comes back with decoding, power or a reset", () => {
    const { device, map, pin } = world();
    map(GIB, GIB);
    device.setMemoryDecode(false);
    device.setMemoryDecode(true);
    expect(pin(GIB, 1)).toBe(Errno.OK);
    device.setPowerState(3);
    expect(pin(GIB, 1)).toBe(Errno.EFAULT);
    expect(device.reset()).toBe(Errno.OK);
    expect(pin(GIB, 1)).toBe(Errno.OK);
    expect([device.suspend(), device.suspend()]).toEqual([Errno.OK, Errno.EINVAL]);
    device.resume();
    expect(pin(GIB, 1)).toBe(Errno.OK);
    expect(createDevice({ canReset: false }).reset()).toBe(Errno.EINVAL);
  });

  it("of a virtual function does not depend on the command register", () => {
    const { device, map, pin } = world(
      followRules["linux-6.15"],
      createDevice({ isVirtual: true }),
    );
    map(GIB, GIB);
    device.setMemoryDecode(false);
    expect(pin(GIB, GIB)).toBe(Errno.OK);
  });
});

describe("MMIO_DONT_PIN", () => {
  it("finds the frames of the BAR by arithmetic: no fault, no lookup, one run", () => {
    const { meter, space, run, map } = world();
    map(64 * GIB + 1, 192 * GIB);
    expect(space.dontPinRun(64 * GIB + 1, 192 * GIB, run)).toBe(true);
    expect(run).toEqual({ pfn: BAR_PFN, pages: 192 * GIB, isReserved: true, nextErrno: 0 });
    expect([meter.amount("pfnLookup"), meter.amount("pageFault")]).toEqual([0, 0]);
    expect(space.dontPinRun(1, 1, run)).toBe(false);
  });

  it("does not take vm_pgoff for a frame, which would be elsewhere in physical memory", () => {
    const { space, run, map, pin } = world();
    map(GIB, 4 * GIB, 7);
    const vma = space.mappingAt(GIB + 5)!;
    const posted = vma.pageOffset + 5;
    expect(posted).toBe(2 * REGION_PAGES + 12);
    space.dontPinRun(GIB + 5, 1, run);
    expect(run.pfn).toBe(BAR_PFN + 12);
    expect(run.pfn).not.toBe(posted);
    // The lookup, which trusts nobody, agrees with the arithmetic.
    pin(GIB + 5, 1);
    expect(run.pfn).toBe(BAR_PFN + 12);
  });
});

describe("a dma-buf", () => {
  const exported = (device: VfioPciDevice, ranges = [{ offset: 0n, length: 0x1000n }]) =>
    device.exportDmaBuf(RegionIndex.BAR2, ranges) as VfioDmaBuf;

  it("covers the ranges asked for, which have to be pages inside a BAR", () => {
    const device = createDevice();
    const errno = (index: number, ...ranges: [bigint, bigint][]) =>
      device.exportDmaBuf(
        index,
        ranges.map(([offset, length]) => ({ offset, length })),
      );
    expect(errno(0)).toBe(Errno.EINVAL);
    expect(errno(0, [0n, 0n])).toBe(Errno.EINVAL);
    expect(errno(0, [1n, 0x1000n])).toBe(Errno.EINVAL);
    expect(errno(0, [0n, 0x1001n])).toBe(Errno.EINVAL);
    expect(errno(0, [0n, 0x5000n])).toBe(Errno.EINVAL);
    expect(errno(0, [0xffff_ffff_ffff_f000n, 0x1000n])).toBe(Errno.EINVAL);
    expect(errno(0, [0n, 1n << 62n], [0n, 1n << 62n])).toBe(Errno.EINVAL);
    for (const index of [1, 3, 6, 7, 2 ** 32 - 1])
      expect(errno(index, [0n, 0x1000n])).toBe(Errno.ENODEV);
    const out = { pfn: 0, pages: 0 };
    const buffer = errno(0, [0x1000n, 0x2000n]) as VfioDmaBuf;
    expect([buffer.physRun(out), out]).toEqual([Errno.OK, { pfn: 0xfe801, pages: 2 }]);
    expect(createDevice({ canExport: false }).exportDmaBuf(0, [])).toBe(Errno.EOPNOTSUPP);
  });

  it("of several ranges has no one range: EOPNOTSUPP, and ENODEV when revoked", () => {
    const device = createDevice();
    const ranges = [0n, 0x10_0000n].map((offset) => ({ offset, length: 0x1000n }));
    const buffer = exported(device, ranges);
    const out = { pfn: 0, pages: 0 };
    expect([buffer.pages, buffer.physRun(out)]).toEqual([2, Errno.EOPNOTSUPP]);
    device.setMemoryDecode(false);
    expect(buffer.physRun(out)).toBe(Errno.ENODEV);
  });

  it("is revoked by reset, by memory off, by sleep and by unbinding; importers are told once", () => {
    const device = createDevice();
    const buffer = exported(device);
    let told = 0;
    const importer = {
      revoke: () => {
        told += 1;
      },
    };
    expect(buffer.attach(importer)).toBe(Errno.OK);
    device.reset();
    expect([told, buffer.isRevoked]).toEqual([1, false]);
    device.setMemoryDecode(false);
    device.setPowerState(3);
    expect([told, buffer.isRevoked]).toEqual([2, true]);
    expect(buffer.attach(importer)).toBe(Errno.ENODEV);
    device.setPowerState(0);
    expect(buffer.isRevoked).toBe(true);
    device.setMemoryDecode(true);
    expect(buffer.isRevoked).toBe(false);
    device.unbind();
    expect([told, buffer.isRevoked]).toEqual([3, true]);
    device.setMemoryDecode(true);
    expect(buffer.isRevoked).toBe(true);
    expect(device.exportDmaBuf(0, [{ offset: 0n, length: 0x1000n }])).toBe(Errno.ENODEV);
  });

  it("made while memory is off is revoked from the start", () => {
    const device = createDevice();
    device.setMemoryDecode(false);
    const buffer = exported(device);
    expect(buffer.attach({ revoke() {} })).toBe(Errno.ENODEV);
  });

  it("that is closed is still revoked as long as someone is attached", () => {
    const device = createDevice();
    const buffer = exported(device);
    let told = 0;
    const importer = {
      revoke: () => {
        told += 1;
      },
    };
    buffer.attach(importer);
    buffer.close();
    device.reset();
    expect(told).toBe(1);
    buffer.detach(importer);
    device.setMemoryDecode(false);
    expect([told, buffer.isRevoked]).toEqual([1, false]);
  });

  it("whose importer takes another away when told is not told for the other", () => {
    const device = createDevice();
    const buffer = exported(device);
    const told: string[] = [];
    const second = { revoke: () => void told.push("b") };
    buffer.attach({
      revoke: () => {
        told.push("a");
        buffer.detach(second);
      },
    });
    buffer.attach(second);
    device.reset();
    expect(told).toEqual(["a"]);
  });
});
