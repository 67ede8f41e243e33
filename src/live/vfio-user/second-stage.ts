/**
 * The host below a virtual machine: its memory in a VFIO container for each device, with the policy
 * that the machine asks for. What a device's DMA reaches, it reaches because this says so.
 *
 * `pin`: memory is pinned, charged and mapped when the VMM maps it, and the device sees all of it.
 * `fault`: nothing is pinned; a device's first access to a page is a page request, which maps it and
 * some around it, and only what was mapped so is memory for the device. Either way an access that
 * finds memory costs what it costs without a second stage: what is mapped *is* the device's guest
 * memory, and only a miss comes here.
 *
 * Frames of the host are modelled, since a process cannot know its own; that pinned pages are there
 * is done by touching each of them (populator.ts).
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import type { GuestMemory } from "../../memory/guest-memory.ts";
import { CountingMeter } from "../../meter.ts";
import { addressOf, PAGE_BYTES } from "../../units.ts";
import { VfioTask } from "../../vfio/file.ts";
import { type Connection, connect } from "../../vfio/host/connect.ts";
import { buildHost, type Host } from "../../vfio/host/host.ts";
import type { HostPlan } from "../../vfio/host/host-plan.ts";
import { FaultingHost } from "../../vfio/iopf/faulting-host.ts";
import type { Type1Faulting } from "../../vfio/iopf/type1-faulting.ts";
import { AddressSpace } from "../../vfio/process/address-space.ts";
import { contiguousFrames, numaFrames } from "../../vfio/process/frame-source.ts";
import type { MappableDevice } from "../../vfio/process/mappable-device.ts";
import { MemoryFile } from "../../vfio/process/memory-file.ts";
import { UserProcess } from "../../vfio/process/user-process.ts";
import { Type1Backend } from "../../vfio/type1/backend.ts";
import { mapDma, mapRequest } from "../../vfio/type1/map.ts";
import { unmapDma, unmapRequest } from "../../vfio/type1/unmap.ts";
import { MapFlag, Type1Request } from "../../vfio/uapi/type1.ts";
import { NO_USER_MEMORY } from "../../vfio/uapi/user-memory.ts";
import type { DmaListener, SavedRegion } from "./dma-table.ts";
import { type FaultEngine, FaultedMemory } from "./faulted-memory.ts";
import { Populator } from "./populator.ts";
import type { FileHold } from "./ports.ts";

/** How memory gets into a device's container. */
export type StagePolicy =
  | { readonly kind: "pin" }
  | {
      readonly kind: "fault";
      /** Pages around a fault that are mapped with it; a power of two, 512 without it. */
      readonly premapPages?: number;
    };

/** What the host is made of. */
export interface StageHostOptions {
  readonly policy: StagePolicy;
  /** NUMA nodes of the host, 1 without it. */
  readonly nodes?: number;
  /** Devices, each behind the IOMMU of its node. */
  readonly devices: readonly { readonly name: string; readonly node?: number }[];
  /** RLIMIT_MEMLOCK; no limit without it. */
  readonly memlockBytes?: number;
  /** A clock in microseconds, for what maps and faults take. */
  readonly now?: () => number;
}

/** What a device's second stage has done so far. */
export interface StageReport {
  readonly policy: StagePolicy["kind"];
  readonly node: number;
  /** Mappings of the container. */
  readonly mappings: number;
  /** Bytes that the VMM has mapped, and of them those that the device reaches without a fault. */
  readonly mappedBytes: number;
  readonly presentBytes: number;
  /** Bytes of other devices' memory, which are mapped and never pinned. */
  readonly deviceBytes: number;
  /** Bytes that were brought in because they are pinned. */
  readonly populatedBytes: number;
  /** Page requests. */
  readonly faults: number;
  readonly mapUs: number;
  readonly populateUs: number;
  readonly faultUs: number;
}

const MIB = 2 ** 20;
/** Each device's copy of the address space begins at a multiple of this, in pages. */
const SPACE_PAGES = 2 ** 30;
/** Pages of files are not counted by the model: what lies beyond the end was refused before. */
const FILE_PAGES = 2 ** 36;
/** Frames of each node's memory. */
const NODE_PAGES = 2 ** 30;

/** Other devices' memory: frames far from those of memory. */
class ForeignMemory implements MappableDevice {
  readonly isAccessible = true;
  readonly mappers = new Set<never>();

  mapPages(filePage: number, _pages: number, _isShared: boolean, out: { pfn: number }): number {
    out.pfn = 2 ** 36 + filePage;
    return Errno.OK;
  }
}

/** The host of one virtual machine. */
export class StageHost {
  readonly policy: StagePolicy;
  /** What its tables, pins and faults took, by kind of step. */
  readonly meter = new CountingMeter();
  /** The process that serves the machine. */
  readonly process: UserProcess;
  readonly memory: AddressSpace;
  readonly #host: Host;
  readonly #faults: FaultingHost | null;
  readonly #task: VfioTask;
  readonly #options: StageHostOptions;
  readonly #files = new Map<string, MemoryFile>();

  constructor(options: StageHostOptions) {
    const { policy, memlockBytes } = options;
    this.policy = policy;
    this.#options = options;
    const nodes = options.nodes ?? 1;
    const plan: HostPlan = {
      nodes: Array.from({ length: nodes }, () => ({ memory: 256 * MIB })),
      units: Array.from({ length: nodes }, (_, node) => ({ name: `iommu${node}`, node })),
      devices: options.devices.map(({ node = 0 }, index) => ({
        address: addressAt(index),
        unit: `iommu${Math.min(node, nodes - 1)}`,
      })),
    };
    const { meter } = this;
    if (policy.kind === "fault") {
      const premap = { pages: policy.premapPages ?? 512, reach: "aligned" } as const;
      this.#faults = new FaultingHost(plan, { premap, meter });
      this.#host = this.#faults.host;
    } else {
      this.#faults = null;
      const backends = [new Type1Backend({ hasMmioDontPin: true, meter })];
      this.#host = buildHost(plan, { backends, meter });
    }
    const frames = numaFrames(
      new Map(
        Array.from({ length: nodes }, (_, node) => {
          const basePfn = (node + 1) * NODE_PAGES;
          return [node, contiguousFrames({ basePfn, pages: NODE_PAGES, node })];
        }),
      ),
    );
    const pagesMax = SPACE_PAGES * (options.devices.length + 1);
    this.memory = new AddressSpace({ frames, meter, pagesMax });
    const limit = memlockBytes === undefined ? {} : { memlockPages: memlockBytes / PAGE_BYTES };
    this.process = new UserProcess({ memory: this.memory, ...limit });
    this.#task = new VfioTask({ process: this.process });
  }

  /** Frames of page tables on each node. */
  tablePages(): number[] {
    return this.#host.tablePages();
  }

  /**
   * The second stage of a device, empty.
   *
   * @param memory - what the device sees as memory of the machine
   */
  stageOf(name: string, memory: GuestMemory): SecondStage {
    const index = this.#options.devices.findIndex((device) => device.name === name);
    assert(index >= 0, "the host has the device");
    const connection = connect(this.#host, this.#task, [addressAt(index)]);
    const faults = this.#faults;
    let faulting: Type1Faulting | null = null;
    if (faults !== null) {
      const { errno } = this.#task.ioctl(connection.fd, Type1Request.ENABLE_IOPF, 0);
      assert(errno === Errno.OK, "a new container takes page faults");
      faulting = faults.faultings.at(-1)!;
    }
    const engine =
      faults === null ? null : { faults, faulting: faulting!, address: addressAt(index) };
    return new SecondStage(this, connection, {
      index,
      node: this.#options.devices[index]!.node ?? 0,
      memory,
      engine,
      now: this.#options.now ?? (() => 0),
    });
  }

  /** The model of a file, the same for all devices. */
  fileOf(key: string): MemoryFile {
    let file = this.#files.get(key);
    if (file === undefined) {
      file = new MemoryFile({ pages: FILE_PAGES });
      this.#files.set(key, file);
    }
    return file;
  }
}

interface StageParts {
  readonly index: number;
  readonly node: number;
  readonly memory: GuestMemory;
  readonly engine: FaultEngine | null;
  readonly now: () => number;
}

/** The container of one device. */
export class SecondStage implements DmaListener {
  readonly #host: StageHost;
  readonly #connection: Connection;
  readonly #parts: StageParts;
  readonly #faulted: FaultedMemory | null;
  readonly #foreign = new ForeignMemory();
  readonly #populator: Populator;
  #mappedBytes = 0;
  #deviceBytes = 0;
  #mapUs = 0;

  constructor(host: StageHost, connection: Connection, parts: StageParts) {
    this.#host = host;
    this.#connection = connection;
    this.#parts = parts;
    const { engine, memory, now } = parts;
    this.#populator = new Populator(now);
    this.#faulted =
      engine === null ? null : new FaultedMemory(connection.type1, engine, memory, now);
  }

  /** Whether memory appears when it is touched; what is mapped is the device's at once otherwise. */
  get showsMemory(): boolean {
    return this.#faulted !== null;
  }

  get report(): StageReport {
    const { engine, node } = this.#parts;
    return {
      policy: this.#host.policy.kind,
      node,
      mappings: this.#connection.type1.mappings.count,
      mappedBytes: this.#mappedBytes,
      presentBytes: this.#faulted?.presentBytes ?? this.#mappedBytes,
      deviceBytes: this.#deviceBytes,
      populatedBytes: this.#populator.bytes,
      faults: engine?.faulting.counts.requests ?? 0,
      mapUs: this.#mapUs,
      populateUs: this.#populator.us,
      faultUs: this.#faulted?.faultUs ?? 0,
    };
  }

  mapped(region: SavedRegion, key: string | null, hold: FileHold | null): number {
    const start = this.#parts.now();
    const errno = this.#map(region, key);
    this.#mapUs += this.#parts.now() - start;
    if (errno !== Errno.OK) return errno;
    if (hold === null) this.#deviceBytes += region.pages * PAGE_BYTES;
    else {
      this.#mappedBytes += region.pages * PAGE_BYTES;
      if (this.#faulted === null) this.#populator.add(hold);
      else this.#faulted.add(region, hold);
    }
    return Errno.OK;
  }

  unmapped(region: SavedRegion, hold: FileHold | null): void {
    const { pfn, pages } = region;
    const bytes = pages * PAGE_BYTES;
    if (hold === null) this.#deviceBytes -= bytes;
    else {
      this.#faulted?.remove(region);
      this.#populator.remove(hold);
      this.#mappedBytes -= bytes;
    }
    const request = unmapRequest(0, addressOf(pfn), BigInt(bytes));
    const errno = unmapDma(this.#connection.type1, request, NO_USER_MEMORY);
    assert(errno === Errno.OK, "a whole mapping can be unmapped");
    const gone = this.#host.memory.munmap(this.#vpnOf(pfn), pages);
    assert(gone === Errno.OK, "what was mapped is unmapped");
  }

  work(): boolean {
    return this.#populator.work();
  }

  #map({ pfn, pages, filePage, flags }: SavedRegion, key: string | null): number {
    if (pfn + pages > SPACE_PAGES) return Errno.EINVAL;
    const vpn = this.#vpnOf(pfn);
    const { memory, process } = this.#host;
    const backing =
      key === null
        ? ({ kind: "device", device: this.#foreign, filePage: pfn } as const)
        : ({ kind: "file", file: this.#host.fileOf(key), filePage, isShared: true } as const);
    const errno = memory.mmap({ vpn, pages, backing, node: this.#parts.node });
    if (errno !== Errno.OK) return errno;
    const isDirect = key === null && this.#faulted === null;
    const rights = flags | (isDirect ? MapFlag.MMIO_DONT_PIN : 0);
    const size = BigInt(pages) << 12n;
    const request = mapRequest(rights, addressOf(vpn), addressOf(pfn), size);
    const mapped = mapDma(this.#connection.type1, process, request);
    if (mapped !== Errno.OK) memory.munmap(vpn, pages);
    return mapped;
  }

  #vpnOf(pfn: number): number {
    return (this.#parts.index + 1) * SPACE_PAGES + pfn;
  }
}

function addressAt(index: number): string {
  return `0000:${(index + 1).toString(16).padStart(2, "0")}:00.0`;
}
