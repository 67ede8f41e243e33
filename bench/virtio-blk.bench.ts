/**
 * An endpoint behind a virtio-iommu: what an access costs that the IOTLB knows, and a disk's
 * requests from ring to store, with and without translation.
 */
import { MemoryStore } from "../src/block/memory-store.ts";
import { SegmentCollector } from "../src/memory/device-memory.ts";
import { GuestMemory } from "../src/memory/guest-memory.ts";
import { newView } from "../src/memory/memory-view.ts";
import { VirtioBlk } from "../src/virtio/blk/device.ts";
import { BlockType } from "../src/virtio/blk/protocol.ts";
import { VirtioIommuDevice } from "../src/virtio/iommu/device.ts";
import { IommuTlb } from "../src/virtio/iommu/iommu-tlb.ts";
import { AttachRequest, MapRequest, RequestType } from "../src/virtio/iommu/protocol.ts";
import { TranslatedMemory } from "../src/virtio/iommu/translated-memory.ts";
import { DriverQueue } from "../src/virtio/virtqueue-driver.ts";
import { layOutAreas } from "../src/virtio/virtqueue-layout.ts";
import { SegmentList } from "../src/virtio/virtqueue-segments.ts";
import { DeviceQueues } from "../src/virtio/virtqueue-set.ts";
import type { Benchmark } from "./harness.ts";

const ENDPOINT = 8;
const START = 0x100_0000;
const BYTES = 0x100_0000;
const PAGES = BYTES / 4096;
/** Where the device sees guest memory: elsewhere, page by page in another order. */
const IOVA = 0x8000_0000;

function guestMemory(): GuestMemory {
  const memory = new GuestMemory();
  // As mappings of a guest's memory are: a plain buffer that the guest shares all the same.
  const backing = { buffer: new ArrayBuffer(BYTES), byteOffset: 0 };
  memory.addRegion({ start: START, bytes: BYTES, backing });
  const words = new Uint32Array(backing.buffer);
  for (let index = 0; index < words.length; index += 1) words[index] = index * 2654435761;
  return memory;
}

/** Guest memory behind an IOMMU that maps each page by itself. */
function translated(memory: GuestMemory): TranslatedMemory {
  const device = new VirtioIommuDevice({ endpoints: [{ id: ENDPOINT }], bypass: false });
  device.negotiate(device.features);
  const request = newView(64);
  const reply = newView(600);
  const send = (bytes: Uint8Array): void => {
    request.u8.set(bytes);
    device.handle(request, bytes.length, reply, 4);
  };
  const flags = 0;
  const attach = { type: RequestType.ATTACH, domain: 1, endpoint: ENDPOINT, flags, mustBeZero: 0 };
  send(AttachRequest.bytesOf(attach));
  for (let page = 0; page < PAGES; page += 1) {
    const virtStart = BigInt(IOVA + page * 4096);
    // Pages change places in pairs, so that no two neighbours are neighbours in memory.
    const physStart = BigInt(START + (page ^ 1) * 4096);
    const virtEnd = virtStart + 0xfffn;
    const { MAP: type } = RequestType;
    send(MapRequest.bytesOf({ type, domain: 1, virtStart, virtEnd, physStart, flags: 3 }));
  }
  return new TranslatedMemory({ tlb: new IommuTlb(device), endpoint: ENDPOINT, memory });
}

function accesses(
  scale: number,
  one: (memory: TranslatedMemory, at: number) => number,
): { units: number; round: () => number } {
  const memory = translated(guestMemory());
  const units = Math.max(1024, Math.floor(2_000_000 * scale));
  // Both rights are known before the clock runs.
  for (let at = IOVA; at < IOVA + BYTES; at += 4096) {
    memory.copyOutHalves(at, 0, scratch, 0, 1);
    memory.copyInHalves(at, 0, scratch, 0, 1);
  }
  const round = (): number => {
    let hash = 0;
    for (let step = 0; step < units; step += 1) {
      // 256 pages, so that all of them stay in the IOTLB.
      const at = IOVA + ((step * 7919) % 256) * 4096 + (step % 64) * 16;
      hash = (hash * 31 + one(memory, at)) | 0;
    }
    return hash;
  };
  return { units, round };
}

/** Requests of 4 KiB, 16 at a time, from the ring to a disk in memory and back. */
function requests(isTranslated: boolean, scale: number): { units: number; round: () => number } {
  const guest = guestMemory();
  const seen = isTranslated ? translated(guest) : guest;
  const base = isTranslated ? IOVA : START;
  const size = 64;
  const areas = layOutAreas(base, size);
  const driver = new DriverQueue(seen, {
    areas,
    eventIndex: true,
    indirect: null,
    callbacks: true,
  });
  const queues = new DeviceQueues(seen, [size]);
  const disk = new VirtioBlk({ store: new MemoryStore({ bytes: 2 ** 26 }), queueSize: size });
  disk.attach({ queues, wake() {}, completed() {}, configChanged() {} });
  disk.acceptFeatures(disk.featuresLow);
  queues.queues[0]!.enable(areas, { indirect: false, eventIndex: true });
  queues.start();
  const list = new SegmentList();
  const units = Math.max(64, Math.floor((200_000 * scale) / 16) * 16);
  const header = newView(16);
  const round = (): number => {
    let hash = 0;
    for (let done = 0; done < units; done += 16) {
      for (let index = 0; index < 16; index += 1) {
        const slot = base + 0x1_0000 + index * 0x3000;
        header.u32.set([BlockType.IN, 0, ((done + index) * 8) % 65_536, 0]);
        seen.copyIn(slot, header, 0, 16);
        list.clear();
        list.addReadable(slot, 16);
        list.addWritable(slot + 0x1000, 4096);
        list.addWritable(slot + 32, 1);
        driver.add(list);
      }
      while (disk.work(0) === "more");
      // Not the heads: they come off the free list in another order in each round.
      while (driver.getUsed() >= 0) hash = (hash * 31 + driver.usedLength) | 0;
    }
    return hash;
  };
  return { units, round };
}

const scratch = newView(64);
const list = new SegmentCollector();

export const benchmarks: readonly Benchmark[] = [
  {
    name: "virtio-blk: translated access, located in the IOTLB",
    unit: "access",
    target: { ns: 50 },
    prepare: (scale) =>
      accesses(scale, (memory, at) => memory.locate(at, 16, false)!.u32[memory.at >> 2]!),
  },
  {
    name: "virtio-blk: translated access, 16 bytes copied",
    unit: "access",
    target: { ns: 60 },
    prepare: (scale) =>
      accesses(scale, (memory, at) => {
        memory.copyOutHalves(at, 0, scratch, 0, 16);
        return scratch.u32[0]!;
      }),
  },
  {
    name: "virtio-blk: translated access, 4 pages collected",
    unit: "access",
    prepare: (scale) =>
      accesses(scale / 4, (memory, at) => {
        list.clear();
        memory.collect(at, 0, 4 * 4096, true, list);
        return list.segments.length;
      }),
  },
  {
    name: "virtio-blk: 4 KiB read, direct",
    unit: "request",
    prepare: (scale) => requests(false, scale),
  },
  {
    name: "virtio-blk: 4 KiB read, translated",
    unit: "request",
    prepare: (scale) => requests(true, scale),
  },
];
