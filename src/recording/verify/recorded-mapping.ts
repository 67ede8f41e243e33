/**
 * One recorded mapping through a container of ours: MAP_DMA, the calls of iommu_map that it makes,
 * and UNMAP_DMA.
 */

import { addressOf } from "../../units.ts";
import { AddressSpace } from "../../vfio/process/address-space.ts";
import { contiguousFrames, type FrameRun, listedFrames } from "../../vfio/process/frame-source.ts";
import type { DeviceMapper, MappableDevice } from "../../vfio/process/mappable-device.ts";
import { VfioExtension } from "../../vfio/requests.ts";
import { DmaMap, DmaUnmap, MapFlag, Type1Request } from "../../vfio/uapi/type1.ts";
import { NO_USER_MEMORY } from "../../vfio/uapi/user-memory.ts";
import { viewOf } from "../../wire/layout.ts";
import { RecordedContainer } from "./recorded-container.ts";

/**
 * Pages of a mapping that is rebuilt: anonymous memory has a state for each page, device memory an
 * entry for each GiB at best.
 */
export const PAGES_MAX = { bar: 2 ** 30, anon: 2 ** 24 } as const;

/** What is mapped. */
export type RecordedMemory =
  | {
      readonly kind: "bar";
      /** Frame of the BAR's first page. */
      readonly pfn: number;
      readonly barPages: number;
      /** Whether the device lets it be mapped at all. */
      readonly isMappable: boolean;
    }
  | { readonly kind: "anon"; readonly runs: readonly FrameRun[] };

/** A mapping. */
export interface RecordedMapping {
  readonly iovaPfn: number;
  readonly pages: number;
  readonly isHuge: boolean;
  readonly memory: RecordedMemory;
}

/** What came of it. */
export interface MappedRuns {
  /** Of MAP_DMA. */
  readonly errno: number;
  readonly unmapErrno: number;
  /** Bytes that the structure tells of. */
  readonly unmapped: bigint;
  /** Calls of iommu_map, in order. */
  readonly runs: readonly { readonly physPfn: number; readonly pages: number }[];
  /** Calls of iommu_unmap. */
  readonly unmaps: readonly { readonly iovaPfn: number; readonly pages: number }[];
}

/** The recorded program aligns a BAR to 1 GiB, so that the CPU's entries are as large as can be. */
const GIB_PAGES = 2 ** 18;
const VPN = 0x7_0000_0000;
const DMA_ENTRY_LIMIT = 65535;
const EVERY_SIZE = 0xffff_ffff_ffff_f000n;

/** Maps and unmaps. */
export function mapRecorded(mapping: RecordedMapping): MappedRuns {
  const { iovaPfn, pages, memory } = mapping;
  const runs: { physPfn: number; pages: number }[] = [];
  const unmaps: { iovaPfn: number; pages: number }[] = [];
  const container = new RecordedContainer({
    iommu: { pageSizes: EVERY_SIZE, allowed: [], isCoherent: true },
    type: VfioExtension.TYPE1_V2,
    dmaEntryLimit: DMA_ENTRY_LIMIT,
    memory: memory.kind === "bar" ? barSpace(memory) : anonymousSpace(mapping, memory.runs),
    memlockBytes: null,
    userMemory: NO_USER_MEMORY,
    trace: {
      map: (_iovaPfn, physPfn, mapped) => runs.push({ physPfn, pages: mapped }),
      unmap: (iova, asked) => unmaps.push({ iovaPfn: iova, pages: asked }),
    },
  });
  const map = new Uint8Array(DmaMap.bytes);
  const view = viewOf(map);
  DmaMap.set.argsz(view, 0, DmaMap.bytes);
  DmaMap.set.flags(view, 0, MapFlag.READ | MapFlag.WRITE);
  DmaMap.setAddress.vaddr(view, 0, VPN, 0);
  DmaMap.setAddress.iova(view, 0, iovaPfn, 0);
  DmaMap.setAddress.size(view, 0, pages, 0);
  const { errno } = container.ioctl(Type1Request.MAP_DMA, map);
  const unmap = new Uint8Array(DmaUnmap.bytes);
  DmaUnmap.set.argsz(viewOf(unmap), 0, DmaUnmap.bytes);
  DmaUnmap.setAddress.iova(viewOf(unmap), 0, iovaPfn, 0);
  DmaUnmap.setAddress.size(viewOf(unmap), 0, pages, 0);
  const unmapped = container.ioctl(Type1Request.UNMAP_DMA, unmap);
  const left = viewOf(unmapped.bytes ?? unmap);
  return {
    errno,
    unmapErrno: unmapped.errno,
    unmapped: addressOf(DmaUnmap.pfn.size(left, 0)) + BigInt(DmaUnmap.pageOffset.size(left, 0)),
    runs,
    unmaps,
  };
}

function anonymousSpace(mapping: RecordedMapping, runs: readonly FrameRun[]): AddressSpace {
  const space = new AddressSpace({ frames: listedFrames(runs) });
  const backing = { kind: "anonymous", isHuge: mapping.isHuge } as const;
  space.mmap({ vpn: VPN, pages: mapping.pages, backing });
  return space;
}

/** A process that has mapped the whole BAR, where the device lets it. */
function barSpace(memory: Extract<RecordedMemory, { kind: "bar" }>) {
  const space = new AddressSpace({ frames: contiguousFrames({ basePfn: 1, pages: 1 }) });
  const device: MappableDevice = {
    isAccessible: true,
    mappers: new Set<DeviceMapper>(),
    mapPages(filePage, _pages, _isShared, out) {
      out.pfn = memory.pfn + filePage;
      return 0;
    },
  };
  const pages = memory.isMappable ? Math.min(memory.barPages, PAGES_MAX.bar) : 0;
  const vpn = VPN - (VPN % GIB_PAGES);
  if (pages > 0) space.mmap({ vpn, pages, backing: { kind: "device", device, filePage: 0 } });
  return space;
}
