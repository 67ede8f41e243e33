/**
 * An accelerator that faults, behind an SMMU that stalls it: passed to a VM whose container has
 * faults on, or on a process's own address space. Queues, handlers and tables are the real ones.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { IommuDevice } from "../../iommu/device.ts";
import { DomainType } from "../../iommu/domain.ts";
import { formatByName } from "../../iommu/formats/catalog.ts";
import { IommuGroups } from "../../iommu/groups.ts";
import { HardwareOps } from "../../iommu/hardware-ops.ts";
import { attachPasidHandle } from "../../iommu/iopf/attach-handle.ts";
import { IopfQueue } from "../../iommu/iopf/iopf-queue.ts";
import type { DmaSegment } from "../../iommu/iopf/page-stream.ts";
import { StallDevice } from "../../iommu/iopf/stall-device.ts";
import { StallQueue } from "../../iommu/iopf/stall-queue.ts";
import { SvaHandler } from "../../iommu/iopf/sva-handler.ts";
import { PageTable } from "../../iommu/page-table.ts";
import { PROT_RW } from "../../iommu/prot.ts";
import { TranslationUnit } from "../../iommu/translation-unit.ts";
import { PagePool } from "../../memory/page-pool.ts";
import type { Meter } from "../../meter.ts";
import { addressOf } from "../../units.ts";
import { VfioTask } from "../../vfio/file.ts";
import { connect, mapMemory } from "../../vfio/host/connect.ts";
import { unitKinds } from "../../vfio/host/unit-kinds.ts";
import { FaultingHost } from "../../vfio/iopf/faulting-host.ts";
import { AddressSpace } from "../../vfio/process/address-space.ts";
import { contiguousFrames } from "../../vfio/process/frame-source.ts";
import { createPinRun } from "../../vfio/process/process-memory.ts";
import { UserProcess } from "../../vfio/process/user-process.ts";
import { Type1Request } from "../../vfio/uapi/type1.ts";

/** How an accelerator reaches memory. */
export interface AcceleratorPath {
  readonly kind: "vfio" | "sva";
  /** Pages that a fault of VFIO maps. */
  readonly premap: number;
  /** Accesses in flight. */
  readonly inFlight: number;
  /** Frames of the memory; the device's frame {@link RAM_PFN} is its first. */
  readonly pages: number;
  readonly meter: Meter;
}

/** An accelerator. */
export interface FaultingAccelerator {
  /** Has a CPU write pages, so that they are there when the device comes. */
  touch(page: number, pages: number): void;
  start(segments: readonly DmaSegment[]): void;
  readonly isBusy: boolean;
  /** Pages reached so far; none is ever refused. */
  readonly done: number;
  /** Lets the device, its driver and the handlers work once. */
  step(): void;
}

const DEVICE = "0000:75:00.0";
const RID = 0x7500;
const MIB = 2 ** 20;
/** Where the device has the memory: 1 GiB, as on Arm's "virt" machine. */
export const RAM_PFN = 2 ** 18;
/** Where the process has it. */
const VPN = 2 ** 24;
const BASE_PFN = 2 ** 23;

/** Makes one. */
export function createAccelerator(path: AcceleratorPath): FaultingAccelerator {
  const { pages, meter } = path;
  const frames = contiguousFrames({ basePfn: BASE_PFN, pages });
  const memory = new AddressSpace({ frames, meter });
  const backing = { kind: "anonymous", isHuge: false } as const;
  assert(memory.mmap({ vpn: VPN, pages, backing }) === Errno.OK, "the process has room");
  const parts = path.kind === "vfio" ? passedThrough(path, memory) : shared(path, memory);
  return {
    ...parts,
    get isBusy() {
      return parts.isBusy();
    },
    get done() {
      return parts.done();
    },
    touch(page, count) {
      for (let index = 0; index < count; index += 1) faultIn(memory, VPN - RAM_PFN + page + index);
    },
  };
}

interface Parts {
  start(segments: readonly DmaSegment[]): void;
  isBusy(): boolean;
  done(): number;
  step(): void;
}

function passedThrough(path: AcceleratorPath, memory: AddressSpace): Parts {
  const { premap, inFlight, pages, meter } = path;
  const faults = new FaultingHost(
    {
      nodes: [{ memory: 64 * MIB }],
      units: [{ name: "smmu0", kind: "smmu", node: 0 }],
      devices: [{ address: DEVICE, unit: "smmu0" }],
    },
    { premap: { pages: premap }, inFlight, meter },
  );
  const vmm = new VfioTask({ process: new UserProcess({ memory }) });
  const { fd } = connect(faults.host, vmm, [DEVICE]);
  const enabled = vmm.ioctl(fd, Type1Request.ENABLE_IOPF, 0).errno;
  assert(enabled === Errno.OK, "faults are switched on");
  const mapping = { iova: addressOf(RAM_PFN), vaddr: addressOf(VPN), size: addressOf(pages) };
  assert(mapMemory(vmm, fd, mapping) === Errno.OK, "the guest's memory is mapped");
  return {
    start: (segments) => faults.start(DEVICE, segments),
    isBusy: () => faults.isBusy(DEVICE),
    done: () => reached(faults.counts(DEVICE)),
    step: () => void faults.step(),
  };
}

function shared(path: AcceleratorPath, memory: AddressSpace): Parts {
  const { inFlight, meter } = path;
  const format = formatByName(unitKinds.smmu.format);
  assert(format !== null, "an SMMU has a format");
  const pool = new PagePool([{ node: 0, basePfn: 2 ** 24, frameCount: 2 ** 14 }]);
  const unit = new TranslationUnit({
    name: "smmu0",
    node: 0,
    iotlb: { sets: 16, ways: 4, replacement: "lru", pageShifts: [12, 21, 30] },
    pagingCache: { sets: 8, ways: 4, replacement: "lru" },
    selective: unitKinds.smmu.selective,
    meter,
  });
  const iopf = new IopfQueue();
  const queue = new StallQueue({ unit, iopf, stallMax: 64, meter });
  const ops = new HardwareOps({
    name: unitKinds.smmu.driver,
    unitOf: () => unit,
    createDomain() {
      const table = PageTable.create({ format, pool, node: 0, meter });
      return table === null ? null : { table };
    },
    pageResponse: (device, last, code) => queue.respond(device, last, code),
  });
  const device = new IommuDevice({ name: DEVICE, ops, rid: RID, maxPasids: 2 });
  const groups = new IommuGroups({ defaultType: DomainType.DMA });
  groups.add(device);
  const group = groups.of(device);
  assert(group !== null, "the device has a group");
  const domain = group.allocDomain(DomainType.UNMANAGED);
  assert(typeof domain !== "number", "the driver has a domain");
  // The IOMMU walks the process's own tables; here they are filled as the process faults.
  domain.iopfHandler = new SvaHandler({
    handleFault(page) {
      const pfn = faultIn(memory, VPN - RAM_PFN + page);
      return pfn >= 0 && domain.map(page, pfn, 1, PROT_RW) === Errno.OK;
    },
  });
  assert(attachPasidHandle(group, { domain }, 1) === Errno.OK, "the process is attached");
  assert(queue.enableDevice(group, device) === Errno.OK, "the device can fault");
  const engine = new StallDevice(queue, { rid: RID, pasid: 1, inFlightMax: inFlight });
  return {
    start: (segments) => engine.start(segments),
    isBusy: () => engine.isBusy,
    done: () => reached(engine.counts),
    step() {
      engine.run();
      queue.drain();
      iopf.run();
    },
  };
}

function reached(counts: { readonly done: number; readonly failed: number }): number {
  assert(counts.failed === 0, "an accelerator reaches its buffers");
  return counts.done;
}

/** @returns the frame behind a page after a fault of the process, −1 when there is none */
function faultIn(memory: AddressSpace, vpn: number): number {
  const run = createPinRun();
  if (memory.pinRun(vpn, 1, true, 1, run) !== Errno.OK) return -1;
  memory.unpin(run.pfn, 1, true);
  return run.pfn;
}
