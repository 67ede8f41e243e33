import { describe, expect, it } from "vitest";
import { Errno } from "../errno.ts";
import { DomainType, IommuDomain } from "../iommu/domain.ts";
import { DmaAttr, DmaDirection } from "./direction.ts";
import { DmaDevice, type DmaDeviceOptions } from "./dma-device.ts";
import { DmaDomain } from "./dma-domain.ts";
import { DmaIovaRange } from "./dma-iova-range.ts";
import { FakeDriver, type FakeDriverOptions } from "./fake-driver.suite.ts";

const { BIDIRECTIONAL, TO_DEVICE } = DmaDirection;

function world(
  type: DomainType,
  options: DmaDeviceOptions = {},
  driverOptions: FakeDriverOptions = {},
): { driver: FakeDriver; dma: DmaDomain; device: DmaDevice } {
  const driver = new FakeDriver(driverOptions);
  const dma = new DmaDomain(new IommuDomain(type, driver), { cpus: 2, timer: { arm: () => {} } });
  dma.init({});
  return { driver, dma, device: new DmaDevice(dma, options) };
}

describe("a range that segments are linked into", () => {
  it("strict: segments are mapped without sync, one sync, one unmap, one IOVA", () => {
    const { driver, dma, device } = world(DomainType.DMA);
    const range = DmaIovaRange.tryAlloc(device, 0x500, 0, 3 * 4096, 0)!;
    expect(range.pfn).toBe(0xffffc);
    expect(range.link(0, 0x500, 0, 4096, BIDIRECTIONAL)).toBe(Errno.OK);
    expect(range.link(4096, 0x900, 0, 8192, BIDIRECTIONAL)).toBe(Errno.OK);
    expect(range.sync(0, 3 * 4096)).toBe(Errno.OK);
    range.destroy(3 * 4096, 0, 0);
    expect(driver.log).toEqual([
      "map ffffc+1 -> 500 7",
      "map ffffd+2 -> 900 7",
      "sync-map ffffc+3",
      "unmap ffffc+3",
      "sync ffffc..ffffe",
    ]);
    expect(dma.iova.counts.livePages).toBe(0);
  });

  it("lazy: destroy queues, unlink never does and leaves the IOVA taken", () => {
    const { driver, dma, device } = world(DomainType.DMA_FQ);
    const range = DmaIovaRange.tryAlloc(device, 0x500, 0, 8192, 0)!;
    range.link(0, 0x500, 0, 8192, BIDIRECTIONAL);
    driver.takeLog();
    range.unlink(4096, 4096);
    expect(driver.takeLog()).toEqual(["unmap fffff+1", "sync fffff..fffff"]);
    expect(dma.iova.counts.livePages).toBe(2);
    range.link(4096, 0x700, 0, 4096, BIDIRECTIONAL);
    driver.takeLog();
    range.destroy(8192, 0, 5);
    expect(driver.log).toEqual(["unmap ffffe+2 queued"]);
    expect(dma.flushQueue?.length(0)).toBe(1);
  });

  it("the first segment may start inside its page, others give EIO", () => {
    const { driver, device } = world(DomainType.DMA);
    const range = DmaIovaRange.tryAlloc(device, 0x500, 0x200, 0x1e00, 0)!;
    expect([range.pfn, range.offset]).toEqual([0xffffe, 0x200]);
    expect(range.link(0, 0x500, 0x200, 0xe00, TO_DEVICE)).toBe(Errno.OK);
    expect(range.link(0xe00, 0x700, 0x10, 0x100, TO_DEVICE)).toBe(Errno.EIO);
    expect(range.link(0xe00, 0x700, 0, 0x1000, TO_DEVICE)).toBe(Errno.OK);
    expect(driver.takeLog()).toEqual(["map ffffe+1 -> 500 5", "map fffff+1 -> 700 5"]);
    range.sync(0xe00, 0x1000);
    range.destroy(0x1e00, 0, 0);
    expect(driver.log[0]).toBe("sync-map fffff+1");
    expect(driver.frames.size).toBe(0);
  });

  it("a position inside a page gives EINVAL", () => {
    const { device } = world(DomainType.DMA);
    const range = DmaIovaRange.tryAlloc(device, 0x500, 0, 0x3000, 0)!;
    expect(range.link(0x100, 0x700, 0, 0x1000, TO_DEVICE)).toBe(Errno.EINVAL);
  });

  it("nothing linked: destroy of 0 bytes frees the IOVA without an unmap", () => {
    const { driver, dma, device } = world(DomainType.DMA);
    const range = DmaIovaRange.tryAlloc(device, 0x500, 0, 64 * 4096, 0)!;
    driver.successesLeft = 0;
    expect(range.link(0, 0x500, 0, 4096, TO_DEVICE)).toBe(Errno.ENOMEM);
    driver.takeLog();
    range.destroy(0, 0, 0);
    expect(driver.log).toEqual([]);
    expect(dma.iova.counts.livePages).toBe(0);
  });

  it("destroyed with half its length a range goes to the cache of that size", () => {
    const { dma, device } = world(DomainType.DMA);
    const range = DmaIovaRange.tryAlloc(device, 0x500, 0, 4 * 4096, 0)!;
    range.link(0, 0x500, 0, 2 * 4096, TO_DEVICE);
    range.destroy(2 * 4096, 0, 0);
    expect(dma.iova.alloc(2, 0xf_ffff, true, 0)).toBe(0xffffc);
    expect(dma.iova.tree.pagesAt(0xffffc)).toBe(4);
  });

  it("a failed sync leaves what was linked to the caller, whose destroy unmaps it", () => {
    const { driver, device } = world(DomainType.DMA);
    const range = DmaIovaRange.tryAlloc(device, 0x500, 0, 8192, 0)!;
    range.link(0, 0x500, 0, 8192, TO_DEVICE);
    driver.successesLeft = 0;
    expect(range.sync(0, 8192)).toBe(Errno.ENOMEM);
    expect(driver.frames.size).toBe(2);
    range.destroy(8192, 0, 0);
    expect(driver.frames.size).toBe(0);
  });

  it("no range without an IOMMU, a length, or space", () => {
    const { dma, device } = world(DomainType.DMA, { maskPfn: 0xff });
    expect(DmaIovaRange.tryAlloc(new DmaDevice(null), 1, 0, 4096, 0)).toBeNull();
    expect(DmaIovaRange.tryAlloc(device, 1, 0, 0, 0)).toBeNull();
    expect(DmaIovaRange.tryAlloc(device, 1, 0, 2 ** 63, 0)).toBeNull();
    dma.iova.reserve(0, 0xff);
    expect(DmaIovaRange.tryAlloc(device, 1, 0, 4096, 0)).toBeNull();
  });

  it("a segment that would have to be bounced gives EPERM, registers too", () => {
    const { device } = world(DomainType.DMA, { bounce: { untrusted: true } });
    const range = DmaIovaRange.tryAlloc(device, 0x500, 0, 4096, 0)!;
    expect(range.link(0, 0x500, 0, 100, TO_DEVICE)).toBe(Errno.EPERM);
    expect(range.link(0, 0x500, 0, 100, TO_DEVICE, DmaAttr.MMIO)).toBe(Errno.EPERM);
    expect(range.link(0, 0x500, 0, 4096, TO_DEVICE)).toBe(Errno.OK);
  });

  it("64 KiB granules: positions are rounded to them, frames inside are kept", () => {
    const { driver, device } = world(DomainType.DMA, {}, { pageShifts: [16] });
    const range = DmaIovaRange.tryAlloc(device, 0x1235, 0x80, 0x1_0000, 0)!;
    expect([range.pfn, range.offset]).toEqual([0xfffe5, 0x80]);
    expect(range.link(0, 0x1235, 0x80, 0xaf80, TO_DEVICE)).toBe(Errno.OK);
    expect(range.link(0xaf80, 0x2000, 0, 0x5080, TO_DEVICE)).toBe(Errno.OK);
    expect(driver.log).toEqual(["map fffe0+16 -> 1230 5", "map ffff0+16 -> 2000 5"]);
    range.destroy(0x1_0000, 0, 0);
    expect(driver.frames.size).toBe(0);
  });
});
