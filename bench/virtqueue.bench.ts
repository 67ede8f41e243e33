/**
 * Split virtqueue: what a chain of two descriptors costs either side, beyond the request itself; and
 * the virtio-iommu driver on a device in the same process.
 */
import { DomainType, IommuDomain } from "../src/iommu/domain.ts";
import { GuestMemory } from "../src/memory/guest-memory.ts";
import { newView } from "../src/memory/memory-view.ts";
import { startLocalPair } from "../src/virtio/iommu/driver-local.ts";
import { type DriverSettings, LINUX_6_4, LINUX_7_2 } from "../src/virtio/iommu/driver-settings.ts";
import { DeviceQueue, Pop } from "../src/virtio/virtqueue-device.ts";
import { DriverQueue } from "../src/virtio/virtqueue-driver.ts";
import { layOutAreas } from "../src/virtio/virtqueue-layout.ts";
import { Chain, SegmentList } from "../src/virtio/virtqueue-segments.ts";
import type { Benchmark } from "./harness.ts";

const SIZE = 256;
const BATCH = 64;
const REQUEST_BYTES = 36;
const REPLY_BYTES = 4;

interface Form {
  readonly isIndirect: boolean;
  readonly isBacked: boolean;
  /** Whether the request is copied in and the reply out, or only the ring is worked. */
  readonly isCopied: boolean;
}

/** Both sides in turns: the driver adds a batch, the device answers it, the driver takes it back. */
function bothSides(form: Form, scale: number): { units: number; round: () => number } {
  const memory = new GuestMemory();
  const bytes = 1 << 20;
  memory.addRegion({
    start: 0x10_0000,
    bytes,
    ...(form.isBacked ? { backing: { buffer: new SharedArrayBuffer(bytes), byteOffset: 0 } } : {}),
  });
  const areas = layOutAreas(0x10_0000, SIZE);
  const features = { indirect: form.isIndirect, eventIndex: true };
  const driver = new DriverQueue(memory, {
    areas,
    eventIndex: true,
    indirect: form.isIndirect ? { start: 0x14_0000, entries: 2 } : null,
    callbacks: false,
  });
  const device = new DeviceQueue(memory, SIZE);
  device.enable(areas, features);
  device.isLive = true;
  const list = new SegmentList();
  const chain = new Chain();
  const readable = newView(256);
  const writable = newView(256);
  // Whole rings, so that every round meets the same heads.
  const units = Math.max(SIZE, Math.floor((2_000_000 * scale) / SIZE) * SIZE);

  const round = (): number => {
    let hash = 0;
    for (let done = 0; done < units; done += BATCH) {
      for (let index = 0; index < BATCH; index += 1) {
        const buffer = 0x18_0000 + driver.nextHead * 64;
        list.clear();
        list.addReadable(buffer, REQUEST_BYTES);
        list.addWritable(buffer + 40, REPLY_BYTES);
        driver.add(list);
      }
      driver.needsKick();
      while (device.pop(chain) === Pop.CHAIN) {
        if (form.isCopied) {
          hash = (hash + device.gather(chain, readable)) | 0;
          device.reply(chain, writable, REPLY_BYTES);
        } else device.complete(chain, REPLY_BYTES);
      }
      device.armNotifications();
      device.shouldNotify();
      for (let head = driver.getUsed(); head >= 0; head = driver.getUsed())
        hash = (hash + driver.usedLength + head) | 0;
    }
    return hash;
  };
  return { units, round };
}

/** The device's side alone, over a ring that is filled once and offered again and again. */
function deviceSide(form: Form, scale: number): { units: number; round: () => number } {
  const memory = new GuestMemory();
  const bytes = 1 << 20;
  memory.addRegion({
    start: 0x10_0000,
    bytes,
    ...(form.isBacked ? { backing: { buffer: new SharedArrayBuffer(bytes), byteOffset: 0 } } : {}),
  });
  const areas = layOutAreas(0x10_0000, SIZE);
  const driver = new DriverQueue(memory, {
    areas,
    eventIndex: true,
    indirect: form.isIndirect ? { start: 0x14_0000, entries: 2 } : null,
    callbacks: false,
  });
  const list = new SegmentList();
  const perRing = form.isIndirect ? SIZE : SIZE / 2;
  for (let index = 0; index < perRing; index += 1) {
    const buffer = 0x18_0000 + index * 64;
    list.clear();
    memory.writeU32(buffer, index);
    list.addReadable(buffer, REQUEST_BYTES);
    list.addWritable(buffer + 40, REPLY_BYTES);
    driver.add(list);
  }
  for (let index = perRing; index < SIZE; index += 1)
    memory.writeU16(
      areas.driver + 4 + 2 * index,
      memory.readU16(areas.driver + 4 + 2 * (index - perRing)),
    );
  const device = new DeviceQueue(memory, SIZE);
  device.enable(areas, { indirect: form.isIndirect, eventIndex: true });
  device.isLive = true;
  const chain = new Chain();
  const readable = newView(256);
  const writable = newView(256);
  const view = memory.window(areas.driver, 4)!;
  const indexAt = (memory.at >> 1) + 1;
  // Whole rings, so that every round meets the same heads.
  const units = Math.max(SIZE, Math.floor((4_000_000 * scale) / SIZE) * SIZE);
  const round = (): number => {
    let hash = 0;
    for (let done = 0; done < units; done += BATCH) {
      view.u16[indexAt] = (device.position + BATCH) & 0xffff;
      while (device.pop(chain) === Pop.CHAIN) {
        if (form.isCopied) {
          hash = (hash + device.gather(chain, readable)) | 0;
          device.reply(chain, writable, REPLY_BYTES);
        } else device.complete(chain, REPLY_BYTES);
        hash = (hash * 31 + chain.head) | 0;
      }
      device.armNotifications();
      device.shouldNotify();
    }
    return hash;
  };
  return { units, round };
}

/** Maps and unmaps one page strictly, beside a live set, through driver, queue and device. */
function driverAndDevice(
  settings: DriverSettings,
  live: number,
  scale: number,
): { units: number; round: () => number } {
  const { driver, device } = startLocalPair({ device: { endpoints: [{ id: 8 }] }, settings })
    .value!;
  const domain = driver.createDomain().value!;
  driver.attach(driver.addEndpoint([8]).value!, domain);
  const core = new IommuDomain(DomainType.UNMANAGED, domain);
  for (let at = 0; at < live; at += 1) core.mapNoSync(2 * at, at, 1, 3);
  const units = Math.max(64, Math.floor(300_000 * scale));
  const round = (): number => {
    let hash = 0;
    for (let step = 0; step < units; step += 1) {
      const pfn = 2 * ((step * 7919) % live) + 1;
      hash = (hash + core.map(pfn, step, 1, 3) + core.unmap(pfn, 1)) | 0;
    }
    return hash + device.mappingCount;
  };
  return { units, round };
}

const direct: Form = { isIndirect: false, isBacked: false, isCopied: false };

export const benchmarks: readonly Benchmark[] = [
  {
    name: "virtqueue device, 2 descriptors, ring only",
    unit: "chain",
    target: { ns: 60 },
    prepare: (scale) => deviceSide(direct, scale),
  },
  {
    name: "virtqueue device, 2 descriptors, request and reply copied",
    unit: "chain",
    target: { ns: 130 },
    prepare: (scale) => deviceSide({ ...direct, isCopied: true }, scale),
  },
  {
    name: "virtqueue device, indirect, request and reply copied",
    unit: "chain",
    target: { ns: 130 },
    prepare: (scale) => deviceSide({ ...direct, isIndirect: true, isCopied: true }, scale),
  },
  {
    name: "virtqueue device, shared memory, request and reply copied",
    unit: "chain",
    prepare: (scale) => deviceSide({ ...direct, isBacked: true, isCopied: true }, scale),
  },
  {
    name: "virtqueue both sides, indirect, request and reply copied",
    unit: "chain",
    target: { ns: 200 },
    prepare: (scale) => bothSides({ ...direct, isIndirect: true, isCopied: true }, scale),
  },
  {
    name: "virtqueue: virtio-iommu driver, strict map and unmap, 4096 live",
    unit: "pair",
    target: { perSecond: 500_000 },
    prepare: (scale) => driverAndDevice(LINUX_7_2, 4096, scale),
  },
  {
    name: "virtqueue: virtio-iommu driver of 6.4, the same",
    unit: "pair",
    prepare: (scale) => driverAndDevice(LINUX_6_4, 4096, scale),
  },
];
