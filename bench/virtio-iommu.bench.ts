/**
 * The virtio-iommu device through its request queue: chains off the ring, parsed, validated, applied
 * and completed, with 65 536 and a million live mappings of 4 KiB.
 *
 * Half of the requests unmap a mapping and half map it again, so the live count stays. The driver's
 * part is what cannot be left out: it writes the addresses into the request buffers and moves the
 * available index. Targets: 5 M requests/s, 3 M with a million, a spanning UNMAP in 20 ms.
 */
import { GuestMemory } from "../src/memory/guest-memory.ts";
import { newView } from "../src/memory/memory-view.ts";
import { Random } from "../src/random.ts";
import { highHalfOf, lowHalfOf } from "../src/units.ts";
import { VirtioIommuDevice } from "../src/virtio/iommu/device.ts";
import { X86_MSI_REGION } from "../src/virtio/iommu/device-config.ts";
import { IommuQueues } from "../src/virtio/iommu/device-queue.ts";
import {
  AttachRequest,
  FEATURES_ALL,
  MapRequest,
  RequestType,
  UnmapRequest,
} from "../src/virtio/iommu/protocol.ts";
import { DeviceQueue } from "../src/virtio/virtqueue-device.ts";
import { DriverQueue } from "../src/virtio/virtqueue-driver.ts";
import { layOutAreas } from "../src/virtio/virtqueue-layout.ts";
import { SegmentList } from "../src/virtio/virtqueue-segments.ts";
import type { Benchmark } from "./harness.ts";

const SIZE = 256;
/** Requests offered at once. */
const BATCH = 64;
const SLOT_BYTES = 64;
const ENDPOINT = 8;
const DOMAIN = 1;
/** Every second page is mapped, from here on: above 4 GiB, as Linux does when that is full. */
const FIRST_PFN = 2 ** 33;

interface Form {
  readonly live: number;
  readonly order: "sequential" | "random";
}

/** A device with `live` mappings. */
function mappedDevice(live: number): VirtioIommuDevice {
  const device = new VirtioIommuDevice({
    endpoints: [{ id: ENDPOINT, reserved: [X86_MSI_REGION] }],
    domainMappingsMax: 2 ** 22,
  });
  device.negotiate(FEATURES_ALL);
  const request = newView(72);
  const reply = newView(1024);
  const view = new DataView(request.u8.buffer);
  const head = { domain: DOMAIN, endpoint: ENDPOINT, flags: 0, mustBeZero: 0 };
  AttachRequest.encode({ type: RequestType.ATTACH, ...head }, view);
  device.handle(request, AttachRequest.bytes, reply, 4);
  fill(device, live);
  return device;
}

/** Maps every second page. */
function fill(device: VirtioIommuDevice, live: number): void {
  const request = newView(72);
  const reply = newView(1024);
  const view = new DataView(request.u8.buffer);
  const map = { type: RequestType.MAP, domain: DOMAIN, flags: 3 };
  MapRequest.encode({ ...map, virtStart: 0n, virtEnd: 0n, physStart: 0n }, view);
  for (let index = 0; index < live; index += 1) {
    MapRequest.setAddress.virtStart(view, 0, FIRST_PFN + 2 * index, 0);
    MapRequest.setAddress.virtEnd(view, 0, FIRST_PFN + 2 * index, 0xfff);
    MapRequest.setAddress.physStart(view, 0, index, 0);
    device.handle(request, MapRequest.bytes, reply, 4);
  }
}

/** Addresses in the order in which they are unmapped and mapped again, by halves. */
function orderOf(form: Form): { low: Uint32Array; high: Uint32Array } {
  const pages = Float64Array.from({ length: form.live }, (_, index) => FIRST_PFN + 2 * index);
  const random = new Random(1);
  for (let index = pages.length - 1; index > 0 && form.order === "random"; index -= 1) {
    const other = random.below(index + 1);
    const page = pages[index]!;
    pages[index] = pages[other]!;
    pages[other] = page;
  }
  return {
    low: Uint32Array.from(pages, (pfn) => lowHalfOf(pfn)),
    high: Uint32Array.from(pages, (pfn) => highHalfOf(pfn)),
  };
}

function throughQueue(form: Form, scale: number): { units: number; round: () => number } {
  const memory = new GuestMemory();
  memory.addRegion({ start: 0, bytes: 1 << 20 });
  const areas = layOutAreas(0, SIZE);
  const driver = new DriverQueue(memory, {
    areas,
    eventIndex: true,
    indirect: null,
    callbacks: false,
  });
  const list = new SegmentList();
  const slots = 0x1_0000;
  const view = memory.window(slots, BATCH * SLOT_BYTES)!;
  const base = memory.at;
  const words = view.u32;
  const bytes = new DataView(view.u8.buffer, view.u8.byteOffset, view.u8.byteLength);
  const addresses = { virtStart: 0n, virtEnd: 0n };
  for (let slot = 0; slot < BATCH; slot += 1) {
    const at = slots + slot * SLOT_BYTES;
    const isMap = slot % 2 === 1;
    const where = base + slot * SLOT_BYTES;
    const map = { ...addresses, type: RequestType.MAP, domain: DOMAIN, physStart: 0n, flags: 3 };
    if (isMap) MapRequest.encode(map, bytes, where);
    else
      UnmapRequest.encode({ ...addresses, type: RequestType.UNMAP, domain: DOMAIN }, bytes, where);
    list.clear();
    list.addReadable(at, isMap ? MapRequest.bytes : UnmapRequest.bytes);
    list.addWritable(at + 48, 4);
    driver.add(list);
  }
  for (let entry = BATCH; entry < SIZE; entry += 1) {
    const head = memory.readU16(areas.driver + 4 + 2 * (entry % BATCH));
    memory.writeU16(areas.driver + 4 + 2 * entry, head);
  }
  const queue = new DeviceQueue(memory, SIZE);
  queue.enable(areas, { indirect: false, eventIndex: true });
  queue.isLive = true;
  const device = mappedDevice(form.live);
  const queues = new IommuQueues(device, queue, new DeviceQueue(memory, SIZE));
  const ring = memory.window(areas.driver, 4)!;
  const indexAt = (memory.at >> 1) + 1;
  const { low, high } = orderOf(form);
  const units = Math.max(BATCH, Math.floor((2_000_000 * scale) / BATCH) * BATCH);
  let next = 0;
  const round = (): number => {
    let hash = 0;
    for (let done = 0; done < units; done += BATCH) {
      for (let slot = 0; slot < BATCH; slot += 2) {
        const at = (base + slot * SLOT_BYTES) >> 2;
        writePage(words, at, low[next]!, high[next]!);
        writePage(words, at + SLOT_BYTES / 4, low[next]!, high[next]!);
        next = next + 1 === low.length ? 0 : next + 1;
      }
      ring.u16[indexAt] = (queue.position + BATCH) & 0xffff;
      queues.handleRequests(BATCH);
      queue.armNotifications();
      queue.shouldNotify();
      for (let slot = 0; slot < BATCH; slot += 1) {
        hash = (hash + words[(base + slot * SLOT_BYTES + 48) >> 2]!) | 0;
      }
    }
    return hash + device.mappingCount;
  };
  return { units, round };
}

/** Writes virt_start and virt_end of one page into a request, as a driver does. */
function writePage(words: Uint32Array, at: number, low: number, high: number): void {
  words[at + 2] = low;
  words[at + 3] = high;
  words[at + 4] = low + 0xfff;
  words[at + 5] = high;
}

/** One UNMAP over everything; filling up again is not part of the measured work. */
function spanning(scale: number): { units: number; round: () => number } {
  const live = Math.max(1024, Math.floor(2 ** 20 * scale));
  const devices: VirtioIommuDevice[] = [];
  // A round for each device: the harness runs one to warm up and seven measured ones.
  for (let index = 0; index < 8; index += 1) devices.push(mappedDevice(live));
  const request = newView(72);
  const reply = newView(1024);
  const whole = { virtStart: 0n, virtEnd: 2n ** 64n - 1n };
  UnmapRequest.encode(
    { type: RequestType.UNMAP, domain: DOMAIN, ...whole },
    new DataView(request.u8.buffer),
  );
  let next = 0;
  const round = (): number => {
    const device = devices[next]!;
    next += 1;
    const used = device.handle(request, UnmapRequest.bytes, reply, 4);
    return used + reply.u32[0]! + device.mappingCount;
  };
  return { units: 1, round };
}

function requests(form: Form, perSecond: number): Benchmark {
  return {
    name: `virtio-iommu requests, ${form.live} live, ${form.order}`,
    unit: "request",
    target: { perSecond },
    prepare: (scale) =>
      throughQueue({ ...form, live: Math.max(1024, Math.floor(form.live * scale)) }, scale),
  };
}

export const benchmarks: readonly Benchmark[] = [
  requests({ live: 65_536, order: "sequential" }, 5e6),
  requests({ live: 65_536, order: "random" }, 5e6),
  requests({ live: 2 ** 20, order: "sequential" }, 3e6),
  requests({ live: 2 ** 20, order: "random" }, 3e6),
  {
    name: "virtio-iommu UNMAP over 1048576 mappings",
    unit: "UNMAP",
    target: { ns: 20e6 },
    prepare: spanning,
  },
];
