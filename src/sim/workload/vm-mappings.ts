/**
 * What a VMM maps for a VM's devices, each mapping with the two calls that make and end it: guest
 * memory through type1, BARs through type1 or as dma-bufs through iommufd.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { PAGE_BYTES } from "../../units.ts";
import { regionPage } from "../../vfio/device/pci-bar.ts";
import { VfioTask } from "../../vfio/file.ts";
import { connect } from "../../vfio/host/connect.ts";
import { buildHost, type Host } from "../../vfio/host/host.ts";
import { Iommufd } from "../../vfio/iommufd/iommufd.ts";
import { MapFlag as IoasMapFlag } from "../../vfio/iommufd/uapi.ts";
import { AddressSpace } from "../../vfio/process/address-space.ts";
import { contiguousFrames, type FrameSource } from "../../vfio/process/frame-source.ts";
import type { FollowRules } from "../../vfio/process/mappable-device.ts";
import type { PinRun } from "../../vfio/process/process-memory.ts";
import { UserProcess } from "../../vfio/process/user-process.ts";
import type { Backing } from "../../vfio/process/vma.ts";
import { Type1Backend } from "../../vfio/type1/backend.ts";
import type { UnmapMode } from "../../vfio/type1/type1.ts";
import { DmaMap, DmaUnmap, MapFlag, Type1Request } from "../../vfio/uapi/type1.ts";
import { meteredTrace } from "../host/metered-domain.ts";
import type { PhasedMeter } from "../host/phased-meter.ts";

/** A guest's memory. */
export interface RamPlan {
  /** 4 KiB pages. */
  readonly pages: number;
  readonly backing: Extract<Backing, { kind: "anonymous" | "hugetlb" }>;
  /** The frames that it gets: a fresh source for each start. */
  readonly frames: () => FrameSource;
  /** Whether something wrote to all of it before. */
  readonly isTouched: boolean;
  /** Pages that the kernel pins at a time: 512, and 1 before Linux 5.12. */
  readonly batchPages: number;
  /** Not pinned when it is mapped: pages that a device touches, and how many a fault maps. */
  readonly faulting?: { readonly touchedPages: number; readonly premap: number };
}

/** How a BAR's frames are found. */
export type BarWay =
  /** By following the process's page table. */
  | "follow"
  /** By MMIO_DONT_PIN: out of the mapping. */
  | "dont-pin"
  /** As a dma-buf, through iommufd. */
  | "dma-buf";

/** Equal BARs. */
export interface BarPlan {
  readonly count: number;
  /** 4 KiB pages of one. */
  readonly pages: number;
  readonly way: BarWay;
  /** How the kernel follows page tables. */
  readonly rules: FollowRules;
  /** Pages by which the process's address misses the BAR's alignment to 1 GiB. */
  readonly processOffset: number;
  /** Pages by which the device's address does: with 1, all leaves are of 4 KiB. */
  readonly deviceOffset: number;
}

/** What mappings are made on. */
export interface MappingParts {
  readonly meter: PhasedMeter;
  readonly unmapMode: UnmapMode;
}

/** One mapping, which can be made and ended again and again: both calls give an errno. */
export interface VmMapping {
  map(): number;
  unmap(): number;
}

const DEVICE = "0000:3b:00.0";
const GIB = 2 ** 18;
/** Guest memory, beyond the window for interrupts below 4 GiB. */
const RAM_PAGE = 64 * GIB;
/** Of it, what is mapped before BARs. */
const FIRST = { vpn: RAM_PAGE, pages: 512 } as const;
/** Firmware puts 64-bit BARs above memory; here both lie in the same 512 GiB. */
const BAR_PAGE = 256 * GIB;
/** Frame of the first BAR, beyond all memory. */
const BAR_PFN = 2 ** 34;
/** Page-table memory: leaves of 4 KiB for 480 GiB. */
const TABLE_BYTES = 2 ** 30;

const bytesOf = (pages: number) => BigInt(pages) * BigInt(PAGE_BYTES);

/** A process whose kernel pins so many pages at a time. */
class BatchedSpace extends AddressSpace {
  batchPages = 512;

  override pinRun(vpn: number, pages: number, isWrite: boolean, most: number, out: PinRun): number {
    return super.pinRun(vpn, pages, isWrite, Math.min(most, this.batchPages), out);
  }
}

/** The guest's memory: one mapping. */
export function ramMapping(parts: MappingParts, plan: RamPlan): VmMapping {
  const { pages, backing, batchPages, isTouched } = plan;
  const frames = plan.frames();
  const memory = new BatchedSpace({ frames, meter: parts.meter });
  memory.batchPages = batchPages;
  const errno = memory.mmap({ vpn: RAM_PAGE, pages, backing });
  assert(errno === Errno.OK, "guest memory is whole pages of its kind");
  if (isTouched) assert(memory.touch(RAM_PAGE, pages, true) === Errno.OK, "frames suffice");
  const vmm = new VfioTask({ process: new UserProcess({ memory }) });
  const { fd } = connect(buildMachine(parts, null), vmm, [DEVICE]);
  const range = { vpn: RAM_PAGE, iova: RAM_PAGE, pages, flags: 0 };
  return throughType1(vmm, fd, range, () => Errno.OK);
}

/** One BAR: mapped again, it is as the next one of the same size. */
export function barMapping(parts: MappingParts, plan: BarPlan): VmMapping {
  const { pages, way, rules, processOffset, deviceOffset } = plan;
  const host = buildMachine(parts, pages);
  const frames = contiguousFrames({ basePfn: 1, pages: FIRST.pages });
  const memory = new AddressSpace({ frames, rules, meter: parts.meter });
  const vmm = new VfioTask({ process: new UserProcess({ memory }) });
  const iova = BAR_PAGE + deviceOffset;
  // Memory is mapped before BARs are, so their upper page tables are there.
  const errno = memory.mmap({ ...FIRST, backing: { kind: "anonymous", isHuge: false } });
  assert(errno === Errno.OK, "memory can be mapped");
  if (way === "dma-buf") return throughIommufd(host, vmm, iova, pages);
  const { fd } = connect(host, vmm, [DEVICE]);
  const first = throughType1(vmm, fd, { ...FIRST, iova: FIRST.vpn, flags: 0 }, () => Errno.OK);
  assert(first.map() === Errno.OK, "memory can be mapped for devices");
  const vpn = BAR_PAGE + processOffset;
  const device = host.device(DEVICE).vfio!;
  const backing = { kind: "device", device, filePage: regionPage(0) } as const;
  const flags = way === "dont-pin" ? MapFlag.MMIO_DONT_PIN : 0;
  const prepare = () => memory.mmap({ vpn, pages, backing });
  return throughType1(vmm, fd, { vpn, iova, pages, flags }, prepare);
}

/** A host with one device, which has one BAR of so many pages or none. */
function buildMachine(parts: MappingParts, barPages: number | null): Host {
  const { meter, unmapMode } = parts;
  const bars = barPages === null ? [] : [{ pfn: BAR_PFN, bytes: barPages * PAGE_BYTES }];
  return buildHost(
    {
      nodes: [{ memory: TABLE_BYTES }],
      units: [{ name: "dmar0", node: 0 }],
      devices: [{ address: DEVICE, unit: "dmar0", bars }],
    },
    {
      meter,
      backends: [new Type1Backend({ meter, unmapMode, hasMmioDontPin: true })],
      domainTrace: meteredTrace(meter),
    },
  );
}

/** @param prepare - makes the process's own mapping; gives an errno */
function throughType1(
  vmm: VfioTask,
  fd: number,
  range: { vpn: number; iova: number; pages: number; flags: number },
  prepare: () => number,
): VmMapping {
  const iova = bytesOf(range.iova);
  const size = bytesOf(range.pages);
  const flags = MapFlag.READ | MapFlag.WRITE | range.flags;
  const vaddr = bytesOf(range.vpn);
  return {
    map() {
      const errno = prepare();
      if (errno !== Errno.OK) return errno;
      const call = DmaMap.bytesOf({ argsz: DmaMap.bytes, flags, vaddr, iova, size });
      return vmm.ioctl(fd, Type1Request.MAP_DMA, call).errno;
    },
    unmap() {
      const call = DmaUnmap.bytesOf({ argsz: DmaUnmap.bytes, flags: 0, iova, size });
      return vmm.ioctl(fd, Type1Request.UNMAP_DMA, call).errno;
    },
  };
}

function throughIommufd(host: Host, vmm: VfioTask, iovaPfn: number, pages: number): VmMapping {
  const { iommuDevice, vfio } = host.device(DEVICE);
  const iommufd = new Iommufd({ process: vmm.process });
  const { ioasId } = iommufd.ioasAlloc();
  const { devId } = iommufd.bind(iommuDevice, host.groups.of(iommuDevice)!);
  const { hwptId } = iommufd.hwptAlloc({ devId, ptId: ioasId });
  assert(iommufd.attach(devId, hwptId).errno === Errno.OK, "the device is free");
  const length = bytesOf(pages);
  const iova = bytesOf(iovaPfn);
  const buffer = vfio!.exportDmaBuf(0, [{ offset: 0n, length }]);
  assert(typeof buffer !== "number", "a BAR can be exported");
  const flags = IoasMapFlag.FIXED_IOVA | IoasMapFlag.READABLE | IoasMapFlag.WRITEABLE;
  const at = bytesOf(FIRST.vpn);
  const first = { iova: at, userVa: at, length: bytesOf(FIRST.pages) };
  assert(iommufd.ioasMap({ ioasId, flags, ...first }).errno === Errno.OK, "memory can be mapped");
  const file = { kind: "dma-buf", buffer } as const;
  return {
    map: () => iommufd.ioasMapFile({ ioasId, flags, iova, length }, file).errno,
    unmap: () => iommufd.ioasUnmap({ ioasId, iova, length }).errno,
  };
}
