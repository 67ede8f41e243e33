/** Queues whose ring pages lie anywhere in memory, behind an IOMMU: V116, V156 and the wraps. */
import { describe, expect, it } from "vitest";
import { SegmentCollector } from "../memory/device-memory.ts";
import { GuestMemory } from "../memory/guest-memory.ts";
import { Random } from "../random.ts";
import { Rig } from "./iommu/device-rig.suite.ts";
import { IommuTlb } from "./iommu/iommu-tlb.ts";
import { TranslatedMemory } from "./iommu/translated-memory.ts";
import { DeviceQueue, Pop } from "./virtqueue-device.ts";
import { DriverQueue } from "./virtqueue-driver.ts";
import { deviceBytes, driverBytes, layOutAreas, type QueueAreas } from "./virtqueue-layout.ts";
import { Chain, SegmentList } from "./virtqueue-segments.ts";

const PAGE = 0x1000;
const IOVA = 0x4000_0000;
const GUEST = 0x10_0000;
const PAGES = 256;

interface World {
  readonly rig: Rig;
  readonly memory: GuestMemory;
  readonly seen: TranslatedMemory;
  /** Guest page behind each I/O virtual page. */
  readonly pageOf: number[];
}

/** Pages mapped one by one, in an order that leaves no two neighbours side by side. */
function scattered(seed: number): World {
  const rig = new Rig({ pageSizeMask: 0xffff_ffff_ffff_f000n, endpoints: [{ id: 8 }] });
  const memory = new GuestMemory();
  const backing = { buffer: new SharedArrayBuffer(2 * PAGES * PAGE), byteOffset: 0 };
  memory.addRegion({ start: GUEST, bytes: 2 * PAGES * PAGE, backing });
  rig.attach(1, 8);
  const random = new Random(seed);
  const pageOf = Array.from({ length: PAGES }, (_, page) => 2 * page);
  for (let at = PAGES - 1; at > 0; at -= 1) {
    const other = random.below(at + 1);
    [pageOf[at], pageOf[other]] = [pageOf[other]!, pageOf[at]!];
  }
  const world = { rig, memory, pageOf };
  for (let page = 0; page < PAGES; page += 1) mapPage(world, page);
  const seen = new TranslatedMemory({ tlb: new IommuTlb(rig.device), endpoint: 8, memory });
  return { ...world, seen };
}

function mapPage({ rig, pageOf }: Pick<World, "rig" | "pageOf">, page: number): void {
  const start = BigInt(IOVA + page * PAGE);
  rig.map(1, start, start + 0xfffn, BigInt(GUEST + pageOf[page]! * PAGE));
}

function queues(world: World, areas: QueueAreas): { driver: DriverQueue; device: DeviceQueue } {
  const options = { areas, eventIndex: true, indirect: null, callbacks: true };
  const driver = new DriverQueue(world.seen, options);
  const device = new DeviceQueue(world.seen, areas.size);
  expect(device.enable(areas, { indirect: true, eventIndex: true })).toBe(null);
  device.isLive = true;
  return { driver, device };
}

function exchange(world: World, areas: QueueAreas, rounds: number, seed: number): void {
  const { driver, device } = queues(world, areas);
  const random = new Random(seed);
  const list = new SegmentList();
  const chain = new Chain();
  const waiting: number[] = [];
  let sent = 0;
  let got = 0;
  const buffers = IOVA + 200 * PAGE;
  for (let round = 0; round < rounds; round += 1) {
    const batch = 1 + random.below(3);
    for (let index = 0; index < batch && driver.freeCount >= 2; index += 1) {
      list.clear();
      const at = buffers + 64 * driver.nextHead;
      world.seen.copyIn(at, numberView(sent), 0, 4);
      list.addReadable(at, 4);
      list.addWritable(at + 8, 4);
      waiting.push(sent);
      driver.add(list);
      sent += 1;
    }
    while (random.chance(3, 4) && device.pop(chain) === Pop.CHAIN) {
      const view = numberView(0);
      expect(device.gather(chain, view)).toBe(4);
      expect(view.u32[0]).toBe(waiting[0]);
      expect(device.reply(chain, view, 4)).toBe(true);
      expect(driver.getUsed()).toBeGreaterThanOrEqual(0);
      expect(driver.usedLength).toBe(4);
      waiting.shift();
      got += 1;
    }
    device.armNotifications();
  }
  expect([driver.fault, device.fault]).toEqual([null, null]);
  expect(sent - got).toBe(waiting.length);
}

function numberView(value: number) {
  const u32 = Uint32Array.of(value);
  return { u8: new Uint8Array(u32.buffer), u16: new Uint16Array(u32.buffer), u32 };
}

describe("a ring in scattered pages", () => {
  it.each([1, 2, 256, 1024])("of size %i carries every request in order", (size) => {
    if (size === 1) {
      // A request of two buffers does not fit; the ring alone is looked at.
      const { driver, device } = queues(scattered(1), layOutAreas(IOVA + 0xff0, 1));
      expect([driver.size, device.size]).toEqual([1, 1]);
      return;
    }
    exchange(scattered(size), layOutAreas(IOVA + 0xff0, size), 2000, size);
  });

  it("may have used entries that lie in two pages", () => {
    const size = 1024;
    const plain = layOutAreas(IOVA, size);
    const device = Math.ceil((plain.driver + driverBytes(size)) / PAGE) * PAGE;
    // The ring starts 4 bytes into the area, so entries straddle where it is aligned to 8.
    expect((device + 4) % 8).toBe(4);
    expect(deviceBytes(size)).toBeGreaterThan(PAGE);
    exchange(scattered(3), { ...plain, device }, 3000, 4);
  });

  it("survives other pages' unmapping and its own pages' move", () => {
    const world = scattered(9);
    const areas = layOutAreas(IOVA, 256);
    const { driver, device } = queues(world, areas);
    const list = new SegmentList();
    const chain = new Chain();
    const random = new Random(77);
    for (let round = 0; round < 300; round += 1) {
      list.clear();
      list.addReadable(IOVA + 220 * PAGE, 16);
      expect(driver.add(list)).toBeGreaterThanOrEqual(0);
      const page = random.below(8);
      const start = BigInt(IOVA + page * PAGE);
      if (random.chance(1, 2)) {
        world.rig.unmap(1, start, start + 0xfffn);
        // While a page of the ring is gone the queue waits; nothing is lost.
        if (page < 2) expect(device.pop(chain)).toBe(Pop.PAUSED);
        movePage(world, page);
        mapPage(world, page);
      }
      expect(device.pop(chain)).toBe(Pop.CHAIN);
      expect(device.complete(chain, 0)).toBe(true);
      expect(driver.getUsed()).toBeGreaterThanOrEqual(0);
    }
    expect(device.fault).toBe(null);
  });

  it("that was never mapped pauses its queue, with one fault and not one a poll", () => {
    const world = scattered(5);
    const device = new DeviceQueue(world.seen, 256);
    const areas = layOutAreas(IOVA + 2 * PAGES * PAGE, 256);
    expect(device.enable(areas, { indirect: false, eventIndex: true })).toBe(null);
    device.isLive = true;
    const chain = new Chain();
    for (let poll = 0; poll < 100; poll += 1) {
      expect(device.pop(chain)).toBe(Pop.PAUSED);
      expect(device.isPaused).toBe(true);
    }
    expect(world.rig.device.faults.count).toBe(1);
  });
});

/** Puts a page's bytes elsewhere in guest memory. */
function movePage(world: World, page: number): void {
  const from = GUEST + world.pageOf[page]! * PAGE;
  world.pageOf[page] = world.pageOf[page]! ^ 1;
  const to = GUEST + world.pageOf[page]! * PAGE;
  const view = world.memory.window(from, PAGE)!;
  world.memory.copyIn(to, view, world.memory.at, PAGE);
}

describe("a chain behind an IOMMU", () => {
  it("whose buffer is refused fails by itself: the queue goes on (V109, V139)", () => {
    const world = scattered(6);
    const { driver, device } = queues(world, layOutAreas(IOVA, 16));
    const list = new SegmentList();
    const chain = new Chain();
    list.addReadable(0xdead_0000, 16);
    list.addWritable(0xbeef_0000, 16);
    driver.add(list);
    expect(device.pop(chain)).toBe(Pop.CHAIN);
    const view = numberView(0);
    expect(device.gather(chain, view)).toBe(-1);
    expect(device.scatter(chain, view, 4)).toBe(false);
    expect(device.scatterAt(chain, 15, view, 1)).toBe(false);
    expect(device.fault).toBe(null);
    expect(device.complete(chain, 0)).toBe(true);
    expect(world.rig.device.faults.count).toBe(3);
  });

  it("whose buffer goes on past the end of the 64-bit space is refused", () => {
    const world = scattered(7);
    world.rig.map(1, 0n, 0xfffn, BigInt(GUEST));
    const { driver, device } = queues(world, layOutAreas(IOVA, 16));
    const list = new SegmentList();
    const chain = new Chain();
    list.addHalves(0xffff_f000, 0xffff_ffff, 0x2000);
    list.readableCount = 1;
    driver.add(list);
    expect(device.pop(chain)).toBe(Pop.CHAIN);
    const { segments, collector } = collect();
    expect(device.collect(chain, 0x1800, 16, false, collector)).toBe(false);
    expect(device.collect(chain, 0, 0x2000, false, collector)).toBe(false);
    expect(segments).toEqual([]);
  });

  it("whose indirect table cannot be read breaks the queue", () => {
    const world = scattered(8);
    const { device } = queues(world, layOutAreas(IOVA, 16));
    const table = numberView(0);
    const put = (at: number, value: number): void => {
      table.u32[0] = value;
      world.seen.copyIn(IOVA + at, table, 0, 4);
    };
    put(0, 0xdead_0000);
    put(8, 32);
    put(12, 4);
    put(layOutAreas(0, 16).driver, 0x1_0000);
    expect(device.pop(new Chain())).toBe(Pop.BROKEN);
    expect(device.fault?.reason).toBe("indirect-outside-memory");
  });
});

function collect() {
  const collector = new SegmentCollector();
  return { segments: collector.segments, collector };
}
