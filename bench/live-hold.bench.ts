/**
 * What the loop of a served machine does while nobody else is answered: the longest turn of each
 * kind of work that a client or a guest can ask for. A processor of the guest that waits for an
 * answer waits at most so long, and its own message's time. Target: 5 ms for anything.
 *
 * The figures are of this thread's own time; the histograms are printed once, of the last round.
 */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FileStore } from "../src/live/block/file-store.ts";
import { openLinuxSystem } from "../src/live/system/linux-system.ts";
import type { Mapping } from "../src/live/system/mapping.ts";
import type { System } from "../src/live/system/system.ts";
import { GuestMemory } from "../src/memory/guest-memory.ts";
import { type MemoryView, newView } from "../src/memory/memory-view.ts";
import {
  AttachRequest,
  MapRequest,
  RequestType,
  UnmapRequest,
} from "../src/virtio/iommu/protocol.ts";
import { GuestTransport } from "../src/virtio/pci/guest.suite.ts";
import { Structure, VirtioBar } from "../src/virtio/pci/layout.ts";
import { DriverQueue } from "../src/virtio/virtqueue-driver.ts";
import { layOutAreas } from "../src/virtio/virtqueue-layout.ts";
import { SegmentList } from "../src/virtio/virtqueue-segments.ts";
import type { Benchmark } from "./harness.ts";
import { LiveWorld, machineOf } from "./live-world.ts";

const system: System | null = process.platform === "linux" ? await openLinuxSystem() : null;
const GIB = 2 ** 30;
const PAGE = 4096;
const QUEUE = 256;
const ENDPOINT = 4 * 8;
const BATCH = 64;
const SLOT = 64;
const FIRST_PFN = 2 ** 33;
const Command = { VERSION: 1, MAP: 2, UNMAP: 3, RESET: 13 } as const;

function words(...values: readonly bigint[]): Uint8Array {
  return new Uint8Array(BigUint64Array.from(values).buffer);
}

/** DMA_MAP or DMA_UNMAP. */
function region(address: number, size: number, offset: number | null, flags: number): Uint8Array {
  const head = 32n | (BigInt(flags) << 32n);
  const rest = [BigInt(address), BigInt(size)];
  if (offset === null) return words(24n | (BigInt(flags) << 32n), ...rest);
  return words(head, BigInt(offset), ...rest);
}

/** The guest: its memory, and the driver of its virtio-iommu. */
class Guest {
  readonly world: LiveWorld;
  readonly ram: number;
  readonly #view: DataView;
  readonly #driver: DriverQueue;
  readonly #list = new SegmentList();
  readonly #iommu: GuestTransport;

  constructor(linux: System, world: LiveWorld) {
    this.world = world;
    this.ram = linux.createMemoryFile("ram", GIB, "client");
    const whole = { fd: this.ram, offset: 0, bytes: GIB, access: "shared" } as const;
    const mapping = linux.map(whole, "client") as Mapping;
    const memory = new GuestMemory();
    memory.addRegion({ start: 0, bytes: GIB, backing: mapping });
    for (const device of ["iommu0", "disk0"]) {
      world.call(device, Command.VERSION, new Uint8Array(4));
      world.kind = "DMA_MAP of 1 GiB";
      world.call(device, Command.MAP, region(0, GIB, 0, 3), [this.ram]);
      world.kind = "memory comes in";
      world.rest();
    }
    world.kind = "driver starts";
    this.#view = new DataView(mapping.buffer, mapping.byteOffset, GIB);
    this.#iommu = new GuestTransport(world.functionOf("iommu0"));
    this.#iommu.silent.add(0);
    this.#iommu.negotiate(0x3000_0000 | 0x7f, 3);
    const areas = layOutAreas(0x1_0000, QUEUE);
    this.#iommu.enableQueue(0, areas);
    this.#iommu.start();
    const options = { areas, eventIndex: true, indirect: null, callbacks: false } as const;
    this.#driver = new DriverQueue(memory, options);
    this.request(AttachRequest.bytes, (view, at) =>
      AttachRequest.encode(
        { type: RequestType.ATTACH, domain: 1, endpoint: ENDPOINT, flags: 0, mustBeZero: 0 },
        view,
        at,
      ),
    );
    this.flush();
  }

  #pending = 0;

  /** Offers a request; a batch at most before it is flushed. */
  request(bytes: number, write: (view: DataView, at: number) => void): void {
    const at = 0x8_0000 + this.#pending * SLOT;
    write(this.#view, at);
    this.#view.setUint32(at + bytes, 0xffff_ffff, true);
    this.#list.clear();
    this.#list.addReadable(at, bytes);
    this.#list.addWritable(at + bytes, 4);
    this.#driver.add(this.#list);
    this.#pending += 1;
    if (this.#pending === BATCH) this.flush();
  }

  /** Kicks by a posted message, and waits for the used ring as Linux does. */
  flush(): void {
    const kick = new Uint8Array(18);
    const view = new DataView(kick.buffer);
    view.setUint32(0, Structure.NOTIFY, true);
    view.setUint32(8, VirtioBar.REGISTERS, true);
    view.setUint32(12, 2, true);
    this.world.send("iommu0", 10, kick);
    this.world.until(() => {
      while (this.#driver.getUsed() >= 0) this.#pending -= 1;
      return this.#pending === 0;
    });
  }

  map(pfn: number, pages: number): void {
    const start = BigInt(pfn) << 12n;
    const last = start + BigInt(pages * PAGE) - 1n;
    const body = { type: RequestType.MAP, domain: 1, virtStart: start, virtEnd: last } as const;
    this.request(MapRequest.bytes, (view, at) =>
      MapRequest.encode({ ...body, physStart: 0x10_0000n, flags: 3 }, view, at),
    );
  }

  unmap(pfn: number, pages: number): void {
    const start = BigInt(pfn) << 12n;
    const last = start + BigInt(pages) * 4096n - 1n;
    const body = { type: RequestType.UNMAP, domain: 1, virtStart: start, virtEnd: last } as const;
    this.request(UnmapRequest.bytes, (view, at) => UnmapRequest.encode(body, view, at));
  }

  /** A register write that has to be kept with everything else: the bypass field. */
  change(isBypassed: boolean): void {
    this.#iommu.writeConfig8(36, isBypassed ? 1 : 0);
  }
}

/** Everything that may take long. @returns the longest turn, microseconds */
function everything(linux: System, scale: number): LiveWorld {
  const folder = mkdtempSync(join(tmpdir(), "iommukit-bench-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  const world = new LiveWorld(linux, machineOf(folder, 2 ** 28, "message"));
  const guest = new Guest(linux, world);
  const many = Math.max(2000, Math.floor(2 ** 20 * scale) - 1);
  const some = Math.floor(many / 10);

  world.control(Math.floor(20_000 * scale));
  world.kind = "sync of one MAP";
  for (let index = 0; index < 20_000 * scale; index += 1) {
    guest.map(FIRST_PFN + index * 2, 1);
    guest.flush();
    guest.unmap(FIRST_PFN + index * 2, 1);
    guest.flush();
  }
  world.kind = `${some} MAPs`;
  for (let index = 0; index < some; index += 1) guest.map(FIRST_PFN + index * 2, 1);
  guest.flush();
  world.kind = `register kept with ${some} mappings`;
  for (let index = 0; index < 100; index += 1) guest.change(index % 2 === 0);
  world.kind = `MAP and UNMAP with ${some} mappings`;
  for (let index = 0; index < some; index += 1) {
    guest.unmap(FIRST_PFN + index * 2, 1);
    guest.map(FIRST_PFN + index * 2, 1);
  }
  guest.flush();
  world.kind = `${many} MAPs`;
  for (let index = some; index < many; index += 1) guest.map(FIRST_PFN + index * 2, 1);
  guest.flush();
  world.kind = `register kept with ${many} mappings`;
  for (let index = 0; index < 10; index += 1) guest.change(index % 2 === 0);
  world.kind = `UNMAP of ${many} mappings`;
  guest.unmap(FIRST_PFN, 2 * many);
  guest.flush();
  regions(world, guest, Math.max(100, Math.floor(65_000 * scale)));
  flushes(linux, world, folder, Math.ceil(20 * scale));
  world.control(Math.floor(20_000 * scale));
  world.kind = "DEVICE_RESET";
  world.call("iommu0", Command.RESET, new Uint8Array(0));
  world.dispose();
  return world;
}

/** Syncs of a disk that has much to write, while the loop goes round. */
function flushes(linux: System, world: LiveWorld, folder: string, count: number): void {
  const path = join(folder, "written");
  writeFileSync(path, "");
  truncateSync(path, 2 ** 28);
  const store = FileStore.open(linux, world.loop, { path, id: "written", name: "written" });
  const view = newView(2 ** 20);
  world.kind = "disk synced with 32 MiB to write";
  for (let index = 0; index < count; index += 1) {
    for (let part = 0; part < 32; part += 1)
      store.write(part * 2 ** 20, [{ view, at: 0, bytes: 2 ** 20 }], () => {});
    let isDone = false;
    store.flush(() => {
      isDone = true;
    });
    world.until(() => isDone);
  }
  store.dispose();
}

/** Regions of guest memory in great number: a few fewer than a process has places for mappings. */
function regions(world: LiveWorld, guest: Guest, count: number): void {
  const first = 2 ** 36;
  const zero = { u8: new Uint8Array(4) } as unknown as MemoryView;
  world.kind = `DMA_MAP of ${count} regions`;
  for (let index = 0; index < count; index += 1) {
    const address = first + index * 2 * PAGE;
    world.call("disk0", Command.MAP, region(address, PAGE, index * PAGE, 3), [guest.ram]);
  }
  world.kind = `register kept with ${count} regions`;
  world.functionOf("disk0").write(VirtioBar.MSIX, 12, zero, 0, 4);
  world.kind = `DMA_UNMAP of ${count} regions`;
  world.call("disk0", Command.UNMAP, region(0, 0, null, 2));
}

export const benchmarks: readonly Benchmark[] = [
  {
    name: "live: longest turn of the loop, anything asked for",
    unit: "run",
    roundsMax: 1,
    prepare(scale) {
      let isFirst = true;
      const round = () => {
        if (system === null) return 0;
        const world = everything(system, scale);
        if (!isFirst) for (const line of world.holds.lines()) console.log(`    ${line}`);
        isFirst = false;
        return 1;
      };
      return { units: 1, round };
    },
  },
];
