import { describe, expect, it } from "vitest";
import { Errno } from "../errno.ts";
import { DomainType, IommuDomain } from "../iommu/domain.ts";
import { ReservedType } from "../iommu/reserved-regions.ts";
import { DmaDirection } from "./direction.ts";
import { DMA_ERROR, DmaDevice } from "./dma-device.ts";
import { DmaDomain, type DmaDomainOptions } from "./dma-domain.ts";
import { FakeDriver, type FakeDriverOptions } from "./fake-driver.suite.ts";
import type { Reservations } from "./reservations.ts";

interface World {
  readonly driver: FakeDriver;
  readonly domain: IommuDomain;
  readonly dma: DmaDomain;
  readonly device: DmaDevice;
  readonly armed: number[];
}

function world(
  type: DomainType,
  driverOptions: FakeDriverOptions = {},
  options: Partial<DmaDomainOptions> = {},
  reservations: Reservations = {},
): World {
  const driver = new FakeDriver(driverOptions);
  const domain = new IommuDomain(type, driver);
  const armed: number[] = [];
  const timer = { arm: (dueMs: number) => armed.push(dueMs) };
  const dma = new DmaDomain(domain, { cpus: 2, timer, ...options });
  expect(dma.init(reservations)).toBe(Errno.OK);
  return { driver, domain, dma, device: new DmaDevice(dma), armed };
}

function map(device: DmaDevice, physPfn: number, pages = 1, cpu = 0): number {
  return device.mapPage(physPfn, 0, pages * 4096, DmaDirection.BIDIRECTIONAL, cpu, 0);
}

function unmap(device: DmaDevice, pfn: number, pages: number, cpu = 0, nowMs = 0): void {
  device.unmapPage(pfn, 0, pages * 4096, cpu, nowMs);
}

describe("strict", () => {
  it("unmap syncs before the IOVA is free, and the same size gets it again at once (row 62)", () => {
    const { driver, dma, device } = world(DomainType.DMA);
    const pfn = map(device, 0x500);
    driver.takeLog();
    const freedAt: number[] = [];
    const free = dma.iova.free.bind(dma.iova);
    dma.iova.free = (...args) => {
      freedAt.push(driver.log.length);
      free(...args);
    };
    unmap(device, pfn, 1);
    expect(driver.log).toEqual(["unmap fffff+1", "sync fffff..fffff"]);
    expect(freedAt).toEqual([2]);
    expect(map(device, 0x600)).toBe(pfn);
  });

  it("tables are freed after the sync", () => {
    const { driver, device } = world(DomainType.DMA, { tables: true });
    const pfn = map(device, 0x1000, 512);
    driver.takeLog();
    unmap(device, pfn, 512);
    expect(driver.log).toEqual(["unmap ffe00+512", "sync ffe00..fffff", "free-tables 1000"]);
  });

  it("an unmap of more than is mapped is noticed", () => {
    const { dma, device } = world(DomainType.DMA);
    const pfn = map(device, 0x500);
    unmap(device, pfn - 1, 2);
    expect(dma.mismatchedUnmaps).toBe(1);
  });
});

describe("lazy", () => {
  it("unmap does not sync; the IOVA comes back only after a flush (row 63)", () => {
    const { driver, dma, device, armed } = world(DomainType.DMA_FQ);
    const pfn = map(device, 0x500);
    driver.takeLog();
    unmap(device, pfn, 1, 0, 100);
    expect(driver.takeLog()).toEqual([`unmap ${pfn.toString(16)}+1 queued`]);
    expect(driver.frames.size).toBe(0);
    expect(armed).toEqual([110]);
    const other = map(device, 0x500);
    expect(other).not.toBe(pfn);
    driver.takeLog();
    dma.onTimer(0, 110);
    expect(driver.takeLog()).toEqual(["flush-all"]);
    expect(map(device, 0x500)).toBe(pfn);
  });

  it("tables wait for the flush, and no iotlb_sync is called (row 68)", () => {
    const { driver, dma, device } = world(DomainType.DMA_FQ, { tables: true });
    const pfn = map(device, 0x1000, 512);
    driver.takeLog();
    unmap(device, pfn, 512);
    expect(driver.takeLog()).toEqual(["unmap ffe00+512 queued"]);
    dma.onTimer(1, 10);
    expect(driver.log).toEqual(["flush-all", "free-tables 1000"]);
  });

  it("a driver with shadow_on_flush gets one queue for all CPUs, others one for each", () => {
    expect(world(DomainType.DMA_FQ).dma.flushQueue?.kind).toBe("per-cpu");
    const single = world(DomainType.DMA_FQ, { shadowOnFlush: true }).dma.flushQueue;
    expect([single?.kind, single?.entries, single?.timeoutMs]).toEqual(["single", 32_768, 1000]);
  });

  it("kind, size and timeout can be set against the driver's choice", () => {
    const flushQueue = { kind: "single", entries: 64, timeoutMs: 5 } as const;
    const { dma } = world(DomainType.DMA_FQ, {}, { flushQueue });
    const queue = dma.flushQueue;
    expect([queue?.kind, queue?.entries, queue?.timeoutMs]).toEqual(["single", 64, 5]);
  });

  it("space below 4 GiB: live, queued, cached and reserved pages add up to what is taken", () => {
    const windows = [{ start: 0xfee0_0000n, last: 0xfeef_ffffn }];
    const { dma, device } = world(DomainType.DMA_FQ, {}, {}, { windows });
    const pfns = [1, 3, 40].map((pages) => map(device, 0x1000, pages));
    unmap(device, pfns[1]!, 3);
    expect(dma.spaceUse32()).toEqual({
      totalPages: 2 ** 20,
      livePages: 1 + 40,
      queuedPages: 4,
      cachedPages: 0,
      reservedPages: 256,
      largestGapPages: 0xfee00,
    });
    dma.onTimer(0, 10);
    const use = dma.spaceUse32();
    expect([use.livePages, use.queuedPages, use.cachedPages]).toEqual([41, 0, 4]);
  });

  it("the end of the domain frees the tables that still wait", () => {
    const { driver, domain, dma, device } = world(DomainType.DMA_FQ, { tables: true });
    unmap(device, map(device, 0x1000, 512), 512);
    driver.takeLog();
    dma.dispose();
    expect(driver.log).toEqual(["free-tables 1000"]);
    expect(domain.cookie.kind).toBe("none");
  });
});

describe("initialisation", () => {
  it("DMA_FQ with a driver that cannot defer becomes DMA (row 71)", () => {
    const { domain, dma } = world(DomainType.DMA_FQ, { deferredFlush: false });
    expect(domain.type).toBe(DomainType.DMA);
    expect(dma.flushQueue).toBeNull();
  });

  it("DMA_FQ without memory for the queue becomes DMA", () => {
    const { domain } = world(DomainType.DMA_FQ, {}, { hasMemory: () => false });
    expect(domain.type).toBe(DomainType.DMA);
  });

  it("DMA turns into DMA-FQ while mappings are live, capable or not (row 69)", () => {
    const { driver, domain, dma, device } = world(DomainType.DMA, { deferredFlush: false });
    const pfn = map(device, 0x500);
    expect(dma.switchToLazy()).toBe(Errno.OK);
    expect(domain.type).toBe(DomainType.DMA_FQ);
    driver.takeLog();
    unmap(device, pfn, 1);
    expect(driver.log).toEqual(["unmap fffff+1 queued"]);
    expect(dma.switchToLazy()).toBe(Errno.EINVAL);
  });

  it("the live switch without memory gives ENOMEM and leaves the domain strict", () => {
    let memory = true;
    const { domain, dma } = world(DomainType.DMA, {}, { hasMemory: () => memory });
    memory = false;
    expect(dma.switchToLazy()).toBe(Errno.ENOMEM);
    expect(domain.type).toBe(DomainType.DMA);
  });

  it("a second device of the same geometry reserves nothing more", () => {
    const { dma } = world(DomainType.DMA);
    const windows = [{ start: 0x1000_0000n, last: 0x1fff_ffffn }];
    expect(dma.init({ windows })).toBe(Errno.OK);
    expect(dma.iova.counts.reservedPages32).toBe(0);
  });

  it("a driver whose geometry changed since gives EFAULT", () => {
    const pageShifts = [12, 21];
    const { dma } = world(DomainType.DMA, { pageShifts });
    pageShifts[0] = 16;
    expect(dma.init({})).toBe(Errno.EFAULT);
  });

  it("an aperture that starts at 64 KiB makes that the lowest IOVA; page 0 is never one", () => {
    expect(world(DomainType.DMA, { apertureStartPfn: 16 }).dma.iova.tree.startPfn).toBe(16);
    expect(world(DomainType.DMA).dma.iova.tree.startPfn).toBe(1);
  });

  it("64 KiB granules: a mapping of 4 KiB takes 64 KiB, and the frame in it is kept", () => {
    const { driver, device } = world(DomainType.DMA, { pageShifts: [16] });
    const pfn = map(device, 0x1235);
    expect(driver.log[0]).toBe("map ffff0+16 -> 1230 7");
    expect(pfn).toBe(0xffff5);
    unmap(device, pfn, 1);
    expect(driver.frames.size).toBe(0);
  });
});

describe("reservations", () => {
  const msi = { start: 0xfee0_0000n, last: 0xfeef_ffffn, prot: 0 };

  it("windows and regions are taken, the software MSI region is not", () => {
    const { dma } = world(
      DomainType.DMA,
      {},
      {},
      {
        windows: [{ start: 0xc000_0000n, last: 0xfebf_ffffn }],
        regions: [
          { ...msi, type: ReservedType.MSI },
          { type: ReservedType.SW_MSI, start: 0x800_0000n, last: 0x80f_ffffn, prot: 0 },
        ],
      },
    );
    expect([...dma.iova.tree]).toEqual([
      { first: 0xc0000, last: 0xfebff },
      { first: 0xfee00, last: 0xfeeff },
    ]);
  });

  it("gaps between DMA ranges are taken, with the first page of the range above", () => {
    const { dma } = world(
      DomainType.DMA,
      {},
      {},
      {
        dmaRanges: [
          { start: 0x1_0000n, last: 0x1_ffffn },
          { start: 0x8_0000n, last: 0xffff_ffffn },
        ],
      },
    );
    expect([...dma.iova.tree]).toEqual([
      { first: 0, last: 0x10 },
      { first: 0x20, last: 0x80 },
      { first: 0x10_0000, last: 2 ** 52 - 1 },
    ]);
  });

  it("DMA ranges that overlap give EINVAL", () => {
    const domain = new IommuDomain(DomainType.DMA, new FakeDriver());
    const dma = new DmaDomain(domain, { cpus: 1, timer: { arm: () => {} } });
    const dmaRanges = [
      { start: 0n, last: 0xffffn },
      { start: 0x8000n, last: 0x1_ffffn },
    ];
    expect(dma.init({ dmaRanges })).toBe(Errno.EINVAL);
  });

  it("a DMA range up to the top of the space leaves no gap above it", () => {
    const { dma } = world(
      DomainType.DMA,
      {},
      {},
      {
        dmaRanges: [{ start: 0n, last: 0xffff_ffff_ffff_ffffn }],
      },
    );
    expect(dma.iova.tree.size).toBe(0);
  });

  it("nothing that is reserved is ever mapped at (row 53)", () => {
    const regions = [{ ...msi, type: ReservedType.MSI }];
    const { driver, device } = world(DomainType.DMA, {}, {}, { regions });
    for (let count = 0; count < 5000; count += 1) expect(map(device, count)).not.toBe(DMA_ERROR);
    for (let pfn = 0xfee00; pfn <= 0xfeeff; pfn += 1) expect(driver.frames.has(pfn)).toBe(false);
    expect(driver.frames.has(0xfedff)).toBe(true);
  });
});
