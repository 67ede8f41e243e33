/**
 * A controller with a host, over plain memory or behind a virtio-iommu: what the tests of this room
 * start from. Behind the IOMMU addresses are contiguous and the pages under them are not.
 */
import type { DeviceMemory } from "../memory/device-memory.ts";
import type { GuestMemory } from "../memory/guest-memory.ts";
import { newView } from "../memory/memory-view.ts";
import {
  attachBytes,
  Rig as IommuRig,
  mapBytes,
  unmapBytes,
} from "../virtio/iommu/device-rig.suite.ts";
import { IommuTlb } from "../virtio/iommu/iommu-tlb.ts";
import { TranslatedMemory } from "../virtio/iommu/translated-memory.ts";
import { NvmeFunction } from "./function.ts";
import {
  type DmaBuffer,
  type DmaSource,
  type HostQueue,
  NvmeHost,
  PlainDma,
  plainMemory,
  TestStore,
} from "./host.suite.ts";
import type { NvmeJournal } from "./journal.ts";

const ENDPOINT = 8;
const DOMAIN = 1;

/** Memory for DMA behind an IOMMU. */
export class TranslatedDma implements DmaSource {
  readonly iommu: IommuRig;
  readonly #memory: GuestMemory;
  /** Pages go up in steps that are coprime to their number: never two neighbours in a row. */
  #page = 0;
  #top = 2 ** 32;

  constructor(memory: GuestMemory, iommu: IommuRig) {
    this.#memory = memory;
    this.iommu = iommu;
  }

  allocate(pages: number): DmaBuffer {
    this.#top -= pages * 4096;
    const address = this.#top;
    const frames: number[] = [];
    for (let page = 0; page < pages; page += 1) {
      frames.push(0x100 + (this.#page % 0x3000));
      this.#page += 1237;
    }
    for (const [page, frame] of frames.entries()) this.map(address + page * 4096, frame);
    const memory = this.#memory;
    const move = (
      at: number,
      bytes: number,
      one: (gpa: number, from: number, count: number) => void,
    ) => {
      for (let done = 0; done < bytes; ) {
        const offset = (at + done) % 4096;
        const count = Math.min(bytes - done, 4096 - offset);
        one(frames[Math.floor((at + done) / 4096)]! * 4096 + offset, done, count);
        done += count;
      }
    };
    return {
      address,
      read(at, bytes) {
        const view = newView(bytes);
        move(at, bytes, (gpa, from, count) => memory.copyOut(gpa, view, from, count));
        return view.u8;
      },
      write(at, bytes) {
        const view = newView(bytes.length);
        view.u8.set(bytes);
        move(at, bytes.length, (gpa, from, count) => memory.copyIn(gpa, view, from, count));
      },
    };
  }

  map(iova: number, frame: number, flags = 3): void {
    const start = BigInt(iova);
    this.iommu.status(mapBytes(DOMAIN, start, start + 4095n, BigInt(frame) * 4096n, flags));
  }

  unmap(iova: number, pages: number): void {
    const start = BigInt(iova);
    this.iommu.status(unmapBytes(DOMAIN, start, start + BigInt(pages) * 4096n - 1n));
  }
}

/** What a rig is made of. */
export interface RigOptions {
  readonly queues?: number;
  readonly isTranslated?: boolean;
  readonly store?: TestStore;
  readonly memory?: GuestMemory;
  readonly journal?: NvmeJournal;
  /** Puts something between the controller and memory. */
  readonly wrap?: (memory: DeviceMemory) => DeviceMemory;
}

/** A controller with all that is around it. */
export class NvmeRig {
  readonly memory: GuestMemory;
  readonly store: TestStore;
  readonly dma: PlainDma | TranslatedDma;
  readonly raised: number[] = [];
  readonly host: NvmeHost;
  readonly seen: DeviceMemory;
  device: NvmeFunction;
  readonly #options: RigOptions;

  constructor(options: RigOptions = {}) {
    this.#options = options;
    this.memory = options.memory ?? plainMemory();
    this.store = options.store ?? new TestStore();
    if (options.isTranslated === true) {
      const iommu = new IommuRig({ pageSizeMask: 0x1000n, bypass: false });
      iommu.status(attachBytes(DOMAIN, ENDPOINT, 0, 0));
      const tlb = new IommuTlb(iommu.device);
      this.seen = new TranslatedMemory({ tlb, endpoint: ENDPOINT, memory: this.memory });
      this.dma = new TranslatedDma(this.memory, iommu);
    } else {
      this.seen = this.memory;
      this.dma = new PlainDma(this.memory);
    }
    this.device = this.build();
    this.host = new NvmeHost(this.device, this.dma);
  }

  /** Another controller with the same surroundings: who takes over. */
  build(journal = this.#options.journal): NvmeFunction {
    const { queues = 2, wrap = (memory: DeviceMemory) => memory } = this.#options;
    return new NvmeFunction({
      memory: wrap(this.seen),
      store: this.store,
      queues,
      interrupts: { raise: (vector) => this.raised.push(vector) },
      ...(journal === undefined ? {} : { journal }),
    });
  }

  /** Lets another controller take over what this one saves. */
  handOver(): void {
    const state: unknown = JSON.parse(JSON.stringify(this.device.save()));
    this.device = this.build();
    this.device.restore(state);
    this.host.device = this.device;
  }

  /** The first I/O queue. */
  get queue(): HostQueue {
    return this.host.queues[0]!;
  }
}
