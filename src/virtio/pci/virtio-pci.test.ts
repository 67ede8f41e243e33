/** The transport's registers and capabilities: V159–V186, and hostile accesses. */
import { beforeEach, describe, expect, it } from "vitest";
import { GuestMemory } from "../../memory/guest-memory.ts";
import { newView } from "../../memory/memory-view.ts";
import { CONFIG_REGION } from "../../pci/function.ts";
import { Random } from "../../random.ts";
import { CommonFeature, DeviceStatus } from "../features.ts";
import { type DeviceQueue, Pop } from "../virtqueue-device.ts";
import { DriverQueue } from "../virtqueue-driver.ts";
import { layOutAreas } from "../virtqueue-layout.ts";
import { Chain, SegmentList } from "../virtqueue-segments.ts";
import { CountingSink, GuestTransport, PciClient, structuresOf } from "./guest.suite.ts";
import type { VirtioDevice, VirtioHost, WorkOutcome } from "./virtio-device.ts";
import { VirtioPci } from "./virtio-pci.ts";

const { ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET, FAILED } = DeviceStatus;
const { VERSION_1, RING_RESET, ACCESS_PLATFORM, EVENT_IDX, INDIRECT_DESC } = CommonFeature;
const START = 0x10_0000;

/** A device that returns every chain with 4 bytes written. */
class EchoDevice implements VirtioDevice {
  readonly type = 23;
  readonly classCode = 0x08_8000;
  readonly featuresLow = INDIRECT_DESC | EVENT_IDX | 5;
  readonly featuresHigh = 0;
  readonly queueSizes = [16, 64];
  readonly configBytes = 12;
  readonly revision = 0;
  readonly config = new Uint8Array(12).map((_, index) => index + 1);
  readonly events: string[] = [];
  host: VirtioHost | null = null;
  accepts = true;

  attach(host: VirtioHost): void {
    this.host = host;
  }
  acceptFeatures(low: number, high: number): boolean {
    this.events.push(`features ${low.toString(16)} ${high.toString(16)}`);
    return this.accepts;
  }
  readConfig(offset: number): number {
    return this.config[offset]!;
  }
  writeConfig(offset: number, bytes: Uint8Array): void {
    this.config.set(bytes, offset);
  }
  work(queueIndex: number): WorkOutcome {
    const queue: DeviceQueue = this.host!.queues.queues[queueIndex]!;
    const chain = new Chain();
    for (let count = 0; count < 4; count += 1) {
      if (queue.pop(chain) !== Pop.CHAIN) return "done";
      queue.complete(chain, Math.min(4, chain.writableBytes));
    }
    return "more";
  }
  resetQueue(queueIndex: number): void {
    this.events.push(`reset ${queueIndex}`);
  }
  reset(): void {
    this.events.push("reset");
  }
  systemReset(): void {
    this.events.push("system reset");
  }
  save(): unknown {
    return null;
  }
  restore(): void {}
}

let device: EchoDevice;
let memory: GuestMemory;
let sink: CountingSink;
let pci: VirtioPci;
let guest: GuestTransport;

function build(hasDoorbellPage = false, isExpress = false): void {
  device = new EchoDevice();
  memory = new GuestMemory();
  memory.addRegion({ start: START, bytes: 0x10_0000 });
  sink = new CountingSink();
  pci = new VirtioPci({ device, memory, interrupts: sink, hasDoorbellPage, isExpress });
  guest = new GuestTransport(pci, sink);
}

/** A driver's queue on a queue of the device. */
function queueOn(queueIndex: number, start: number, size = 16): DriverQueue {
  const areas = layOutAreas(start, size);
  const queue = new DriverQueue(memory, {
    areas,
    eventIndex: true,
    indirect: null,
    callbacks: true,
  });
  expect(guest.enableQueue(queueIndex, areas)).toBe(true);
  return queue;
}

function add(queue: DriverQueue): void {
  const list = new SegmentList();
  list.addReadable(START + 0x8000, 16);
  list.addWritable(START + 0x8100, 4);
  expect(queue.add(list)).toBeGreaterThanOrEqual(0);
}

beforeEach(() => build());

describe("configuration space", () => {
  it("names a modern virtio function (V159)", () => {
    const { client } = guest;
    expect(client.config(0)).toBe(0x1057_1af4);
    expect(client.config(8) >>> 8).toBe(0x08_8000);
    expect(client.config(8, 1)).toBeGreaterThanOrEqual(1);
    expect(client.config(0x2e, 2)).toBeGreaterThanOrEqual(0x40);
    expect(client.config(6, 2) & 0x10).toBe(0x10);
    expect(client.config(0x3d, 1)).toBe(0);
  });

  it.each([
    [false, false],
    [true, false],
    [true, true],
  ])("has every structure, aligned and inside its BAR (V160–V163, V186)", (page, express) => {
    build(page, express);
    const places = structuresOf(guest.client);
    expect([...places.keys()].sort()).toEqual([1, 2, 3, 4, 5]);
    const sizes = new Map(pci.regions.map(({ index, bytes }) => [index, bytes]));
    for (const [type, { bar, offset, bytes }] of places) {
      expect(sizes.has(bar)).toBe(true);
      expect(offset + bytes).toBeLessThanOrEqual(sizes.get(bar)!);
      if (type !== 3) expect(offset % 4).toBe(0);
    }
    expect(places.get(1)!.bytes).toBeGreaterThanOrEqual(60);
    const notify = places.get(2)!;
    const multiplier = guest.client.config(notify.at + 16);
    expect(multiplier).toBe(4);
    expect(notify.bar).toBe(page ? 2 : 0);
    for (const queueIndex of [0, 1]) {
      guest.set("queueSelect", queueIndex);
      const at = guest.get("queueNotifyOffset") * multiplier;
      expect(at + 2).toBeLessThanOrEqual(notify.bytes);
    }
    expect(sizes.get(CONFIG_REGION)).toBe(express ? 4096 : 256);
  });

  it("answers the sizing of BARs, and keeps what no driver may change (V183)", () => {
    const { client } = guest;
    client.write(CONFIG_REGION, 0x10, 4, 0xffff_ffff);
    expect(client.config(0x10)).toBe(0xffff_c000);
    client.write(CONFIG_REGION, 0x10, 4, 0xfebf_1234);
    expect(client.config(0x10)).toBe(0xfebf_0000);
    client.write(CONFIG_REGION, 0x18, 4, 0xffff_ffff);
    expect(client.config(0x18)).toBe(0);
    client.write(CONFIG_REGION, 0, 4, 0);
    expect(client.config(0)).toBe(0x1057_1af4);
    client.write(CONFIG_REGION, 4, 2, 0xffff);
    expect(client.config(4, 2)).toBe(0x0546);
    client.write(CONFIG_REGION, 0x42, 2, 0xffff);
    expect(client.config(0x42, 2)).toBe(0xc000 | (pci.vectors - 1));
  });

  it("reaches registers through its window, with 1, 2 and 4 bytes (V182)", () => {
    const { client } = guest;
    const { at } = structuresOf(client).get(5)!;
    const aim = (bar: number, offset: number, bytes: number): void => {
      client.write(CONFIG_REGION, at + 4, 1, bar);
      client.write(CONFIG_REGION, at + 8, 4, offset);
      client.write(CONFIG_REGION, at + 12, 4, bytes);
    };
    aim(0, 20, 1);
    client.write(CONFIG_REGION, at + 16, 1, ACKNOWLEDGE);
    expect(guest.readStatus()).toBe(ACKNOWLEDGE);
    expect(client.config(at + 16, 1)).toBe(ACKNOWLEDGE);
    aim(0, 22, 2);
    client.write(CONFIG_REGION, at + 16, 2, 1);
    aim(0, 24, 2);
    expect(client.config(at + 16, 2)).toBe(64);
    aim(0, 0x2000, 4);
    expect(client.config(at + 16)).toBe(0x0403_0201);
    for (const [bar, offset, bytes] of [
      [0, 20, 3],
      [0, 20, 0],
      [0, 21, 2],
      [3, 20, 1],
      [7, 0, 4],
      [255, 0, 4],
      [0, 0x4000, 1],
      [0, 0xffff_fffc, 4],
    ] as const) {
      aim(bar, offset, bytes);
      client.write(CONFIG_REGION, at + 16, 4, 0);
      client.config(at + 16);
      expect(guest.readStatus()).toBe(ACKNOWLEDGE);
    }
  });
});

describe("features", () => {
  it("show by words, and none beyond (V165)", () => {
    expect(guest.deviceFeatures(0)).toBe(device.featuresLow);
    expect(guest.deviceFeatures(1)).toBe(VERSION_1 | RING_RESET);
    for (const select of [2, 3, 0x8000_0000, 0xffff_ffff]) {
      guest.set("deviceFeatureSelect", select);
      expect(guest.get("deviceFeature")).toBe(0);
      guest.set("driverFeatureSelect", select);
      guest.set("driverFeature", 0xffff_ffff);
      expect(guest.get("driverFeature")).toBe(0);
    }
  });

  it("are accepted once, and then fixed until a reset (V166, V167)", () => {
    expect(guest.negotiate(5, VERSION_1)).toBe(5);
    expect(device.events.at(-1)).toBe("features 5 1");
    guest.writeFeatures(0, 1);
    expect(guest.get("driverFeature")).toBe(5);
    guest.writeStatus(guest.readStatus());
    expect(device.events.filter((event) => event.startsWith("features"))).toHaveLength(1);
    expect(guest.negotiate(5, VERSION_1)).toBe(5);
  });

  it("are refused without VERSION_1, when they were not offered, and by the device (V167)", () => {
    expect(guest.negotiate(5, 0)).toBe(-1);
    guest.writeStatus(0);
    guest.writeStatus(ACKNOWLEDGE | DRIVER);
    guest.writeFeatures(0, 2);
    guest.writeFeatures(1, VERSION_1);
    guest.writeStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    expect(guest.readStatus()).toBe(ACKNOWLEDGE | DRIVER);
    device.accepts = false;
    expect(guest.negotiate(5, VERSION_1)).toBe(-1);
  });

  it("include ACCESS_PLATFORM behind an IOMMU, which may not be dropped (V115)", () => {
    const behind = new VirtioPci({
      device: new EchoDevice(),
      memory: Object.create(memory, { isTranslated: { value: true } }),
      interrupts: sink,
    });
    const transport = new GuestTransport(behind);
    expect(transport.deviceFeatures(1) & ACCESS_PLATFORM).toBe(ACCESS_PLATFORM);
    expect(transport.negotiate(5, VERSION_1)).toBe(-1);
    expect(transport.negotiate(5, VERSION_1 | ACCESS_PLATFORM)).toBe(5);
  });
});

describe("status", () => {
  it("gains bits and loses none but by a reset (V168, V170)", () => {
    guest.writeStatus(ACKNOWLEDGE);
    guest.writeStatus(DRIVER);
    expect(guest.readStatus()).toBe(ACKNOWLEDGE | DRIVER);
    guest.writeStatus(DRIVER_OK);
    expect(guest.readStatus()).toBe(ACKNOWLEDGE | DRIVER);
    expect(pci.queues.isLive).toBe(false);
    guest.writeStatus(NEEDS_RESET | FAILED);
    expect(guest.readStatus()).toBe(ACKNOWLEDGE | DRIVER | FAILED);
    guest.writeStatus(0);
    expect(guest.readStatus()).toBe(0);
    expect(device.events.at(-1)).toBe("reset");
  });

  it("after a reset everything is as it was (V169)", () => {
    guest.negotiate(-1, VERSION_1 | RING_RESET);
    guest.set("configVector", 0);
    queueOn(0, START);
    guest.start();
    guest.writeStatus(0);
    expect(guest.get("configVector")).toBe(0xffff);
    expect(guest.get("queueSelect")).toBe(0);
    expect(guest.get("queueSize")).toBe(16);
    expect(guest.get("queueEnable")).toBe(0);
    expect(guest.get("queueVector")).toBe(0xffff);
    expect(guest.get("queueDescriptorLow")).toBe(0);
    guest.set("driverFeatureSelect", 0);
    expect(guest.get("driverFeature")).toBe(0);
  });

  it("shows DEVICE_NEEDS_RESET when a queue breaks, with one interrupt (V155, V177)", () => {
    guest.negotiate(-1, VERSION_1);
    guest.set("configVector", 0);
    const queue = queueOn(0, START);
    guest.start();
    add(queue);
    memory.writeU16(START + 16 * 16 + 4, 99);
    guest.notify(0);
    expect(guest.readStatus() & NEEDS_RESET).toBe(NEEDS_RESET);
    expect(sink.count(0)).toBe(1);
    expect(guest.client.read(0, 0x1000, 1)).toBe(2);
    expect(pci.work()).toBe(false);
    guest.writeStatus(0);
    expect(guest.readStatus()).toBe(0);
    guest.negotiate(-1, VERSION_1);
    const again = queueOn(0, START);
    guest.start();
    add(again);
    guest.notify(0);
    expect(again.getUsed()).toBeGreaterThanOrEqual(0);
  });
});

describe("queues", () => {
  it("that do not exist read 0 and ignore writes (V171)", () => {
    guest.negotiate(-1, VERSION_1);
    for (const queueIndex of [2, 3, 0x7fff, 0xffff]) {
      guest.set("queueSelect", queueIndex);
      for (const name of [
        "queueSize",
        "queueVector",
        "queueEnable",
        "queueNotifyOffset",
      ] as const) {
        guest.set(name, 1);
        expect(guest.get(name)).toBe(0);
      }
      guest.set("queueReset", 1);
    }
    expect(device.events).not.toContain("reset 2");
  });

  it("stay as they are while enabled, and enable only by 1 after FEATURES_OK (V172)", () => {
    guest.set("queueSelect", 0);
    guest.set("queueDescriptorLow", START);
    guest.set("queueDriverLow", START + 0x1000);
    guest.set("queueDeviceLow", START + 0x2000);
    guest.set("queueEnable", 1);
    expect(guest.get("queueEnable")).toBe(0);
    guest.writeStatus(0);
    guest.negotiate(-1, VERSION_1);
    queueOn(0, START);
    guest.set("queueEnable", 0);
    guest.set("queueSize", 8);
    guest.set("queueDescriptorLow", 0);
    expect([guest.get("queueEnable"), guest.get("queueSize")]).toEqual([1, 16]);
    expect(guest.get("queueDescriptorLow")).toBe(START);
  });

  it.each([
    ["a size of 0", { size: 0 }],
    ["a size that is no power of two", { size: 12 }],
    ["a size above the largest", { size: 32 }],
    ["a misaligned table", { descriptor: START + 8 }],
    ["a ring outside of memory", { driver: 0x1000 }],
    ["a ring that ends outside of memory", { device: START + 0x10_0000 - 8 }],
    ["a ring above 2^53", { driver: 2 ** 60 }],
  ])("with %s stay disabled (V131)", (_, change) => {
    guest.negotiate(-1, VERSION_1);
    const areas = { ...layOutAreas(START, 16), ...change };
    expect(guest.enableQueue(0, areas)).toBe(false);
    expect(guest.enableQueue(0, layOutAreas(START, 16))).toBe(true);
  });

  it("do nothing before DRIVER_OK or without bus mastering (V132, V184)", () => {
    guest.negotiate(-1, VERSION_1);
    const queue = queueOn(0, START);
    add(queue);
    guest.notify(0);
    expect(queue.hasUsed()).toBe(false);
    guest.client.write(CONFIG_REGION, 4, 2, 2);
    guest.start();
    guest.notify(0);
    expect(queue.hasUsed()).toBe(false);
    guest.client.enable();
    guest.wait();
    expect(queue.hasUsed()).toBe(true);
  });

  it("hear a notification of their own number at their own place only (V157, V181)", () => {
    guest.negotiate(-1, VERSION_1);
    const queue = queueOn(1, START, 64);
    guest.start();
    guest.wait();
    add(queue);
    const { client } = guest;
    for (const [offset, bytes, value] of [
      [0x3000, 2, 1],
      [0x3004, 2, 0],
      [0x3004, 1, 1],
      [0x3006, 2, 1],
      [0x3008, 2, 2],
      [0x3ffc, 2, 0x3ff],
    ] as const) {
      client.write(0, offset, bytes, value);
      guest.wait();
      expect(queue.hasUsed()).toBe(false);
    }
    client.write(0, 0x3004, 2, 1);
    guest.wait();
    expect(queue.hasUsed()).toBe(true);
  });

  it("are notified through a page of their own where there is one", () => {
    build(true);
    guest.negotiate(-1, VERSION_1);
    const queue = queueOn(1, START, 64);
    guest.start();
    guest.wait();
    add(queue);
    guest.client.write(0, 0x3004, 2, 1);
    guest.wait();
    expect(queue.hasUsed()).toBe(false);
    guest.client.write(2, 4, 2, 1);
    guest.wait();
    expect(queue.hasUsed()).toBe(true);
  });

  it("are reset one by one, with RING_RESET only (V174, V175)", () => {
    guest.negotiate(-1, VERSION_1);
    queueOn(0, START);
    guest.set("queueReset", 1);
    expect(guest.get("queueEnable")).toBe(1);
    guest.writeStatus(0);
    guest.negotiate(-1, VERSION_1 | RING_RESET);
    const queue = queueOn(0, START);
    const other = queueOn(1, START + 0x1_0000, 64);
    guest.start();
    add(queue);
    guest.set("queueSelect", 0);
    guest.set("queueReset", 1);
    expect([guest.get("queueReset"), guest.get("queueEnable")]).toEqual([0, 0]);
    expect(device.events.at(-1)).toBe("reset 0");
    guest.notify(0);
    expect(queue.hasUsed()).toBe(false);
    const again = queueOn(0, START + 0x2_0000, 8);
    add(again);
    add(other);
    guest.notify(0);
    guest.notify(1);
    expect([again.hasUsed(), other.hasUsed()]).toEqual([true, true]);
  });

  it("wait while their ring is unmapped, and go on when it is back (V156)", () => {
    guest.negotiate(-1, VERSION_1);
    const queue = queueOn(0, START);
    guest.start();
    add(queue);
    const buffer = new ArrayBuffer(0x10_0000);
    new Uint8Array(buffer).set(memory.window(START, 0x10_0000)!.u8.subarray(memory.at));
    memory.removeRegion(START);
    guest.notify(0);
    expect(guest.readStatus() & NEEDS_RESET).toBe(0);
    memory.addRegion({ start: START, bytes: 0x10_0000, backing: { buffer, byteOffset: 0 } });
    guest.wait();
    expect(queue.hasUsed()).toBe(true);
  });

  it("are worked in turns: a full queue is not emptied by one call", () => {
    guest.negotiate(-1, VERSION_1);
    guest.isEager = false;
    const queue = queueOn(0, START);
    guest.start();
    for (let count = 0; count < 8; count += 1) add(queue);
    guest.notify(0);
    expect(pci.work()).toBe(true);
    expect(pci.queues.queues[0]!.usedPosition).toBe(4);
    guest.wait();
    expect(pci.queues.queues[0]!.usedPosition).toBe(8);
  });
});

describe("interrupts", () => {
  it("go to the vector that was set, and none to NO_VECTOR (V179)", () => {
    guest.negotiate(-1, VERSION_1);
    guest.set("configVector", 77);
    expect(guest.get("configVector")).toBe(0xffff);
    guest.set("configVector", 2);
    expect(guest.get("configVector")).toBe(2);
    const queue = queueOn(0, START);
    guest.start();
    add(queue);
    guest.notify(0);
    expect([sink.count(0), sink.count(1), sink.count(2)]).toEqual([0, 1, 0]);
    guest.set("queueVector", 0xffff);
    add(queue);
    queue.getUsed();
    guest.notify(0);
    expect(sink.count(1)).toBe(1);
    device.host!.configChanged();
    expect(sink.count(2)).toBe(1);
  });

  it("show in the ISR until it is read (V178)", () => {
    guest.negotiate(-1, VERSION_1);
    const queue = queueOn(0, START);
    guest.start();
    add(queue);
    guest.notify(0);
    const { client } = guest;
    expect(client.read(0, 0x1001, 1)).toBe(0);
    expect(client.read(0, 0x1000, 1)).toBe(1);
    expect(client.read(0, 0x1000, 1)).toBe(0);
    device.host!.configChanged();
    expect(client.read(0, 0x1000, 4)).toBe(2);
  });

  it("of config changes count generations when the driver had read (V176)", () => {
    const before = guest.get("configGeneration");
    device.host!.configChanged();
    expect(guest.get("configGeneration")).toBe(before);
    guest.readConfig32(0);
    device.host!.configChanged();
    expect(guest.get("configGeneration")).toBe(before + 1);
    for (let count = 0; count < 255; count += 1) {
      guest.readConfig32(0);
      device.host!.configChanged();
    }
    expect(guest.get("configGeneration")).toBe(before);
  });
});

describe("accesses", () => {
  it("read and write device config inside its length only", () => {
    const { client } = guest;
    expect(client.readBytes(0, 0x2008, 8)).toEqual([9, 10, 11, 12, 0, 0, 0, 0]);
    client.write(0, 0x200a, 4, -1);
    expect([...device.config]).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    client.write(0, 0x2008, 4, 0);
    expect([...device.config.slice(8)]).toEqual([0, 0, 0, 0]);
  });

  it("of 8 bytes reach both halves of an address; those by halves of a register none (V164)", () => {
    guest.negotiate(-1, VERSION_1);
    const view = newView(8);
    view.u32.set([0x1234_5670, 0x9abc]);
    expect(pci.write(0, 32, view, 0, 8)).toBe(true);
    expect([guest.get("queueDescriptorLow"), guest.get("queueDescriptorHigh")]).toEqual([
      0x1234_5670, 0x9abc,
    ]);
    guest.client.write(0, 32, 2, 0);
    guest.client.write(0, 34, 4, 0);
    guest.client.write(0, 33, 1, 0);
    expect(guest.get("queueDescriptorLow")).toBe(0x1234_5670);
    expect(guest.client.readBytes(0, 30, 8)).toEqual([0, 0, 0x70, 0x56, 0x34, 0x12, 0xbc, 0x9a]);
  });

  it("outside of a region are refused and change nothing", () => {
    const client = new PciClient(pci);
    for (const [region, offset] of [
      [0, 0x4000],
      [0, 0x3ffd],
      [0, -1],
      [1, 0x1000],
      [2, 0],
      [3, 0],
      [6, 0],
      [7, 253],
      [8, 0],
      [0, Number.NaN],
    ] as const) {
      expect(client.read(region, offset, 4)).toBe(-1);
      expect(client.write(region, offset, 4, 0)).toBe(false);
    }
  });

  it("of any kind in any order never throw, and a reset brings a working device back", () => {
    const random = new Random(0xacce55);
    const view = newView(64);
    for (let round = 0; round < 40; round += 1) {
      for (let step = 0; step < 500; step += 1) {
        const region = [0, 0, 0, 1, 2, 7, 7, 9][random.below(8)]!;
        const base = [0, 0, 0, 0x1000, 0x2000, 0x3000][random.below(6)]!;
        const offset = (region === 0 ? base : 0) + random.below(80);
        const count = [1, 2, 4, 8, random.below(64)][random.below(5)]!;
        for (let at = 0; at < count; at += 1) view.u8[at] = random.below(256);
        if (random.chance(1, 2)) view.u8.fill(random.below(3), 1);
        if (random.chance(1, 2)) pci.write(region, offset, view, 0, count);
        else pci.read(region, offset, view, 0, count);
        if (random.chance(1, 8)) for (let turn = 0; turn < 50 && pci.work(); turn += 1);
      }
      pci.reset();
      guest = new GuestTransport(pci, sink);
      guest.negotiate(-1, VERSION_1);
      const queue = queueOn(0, START);
      guest.start();
      add(queue);
      guest.notify(0);
      expect(queue.getUsed()).toBeGreaterThanOrEqual(0);
    }
  });
});
