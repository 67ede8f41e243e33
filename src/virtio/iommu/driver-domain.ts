/**
 * A paging domain of the virtio-iommu driver, under the IOMMU core.
 *
 * Source: drivers/iommu/virtio-iommu.c of Linux 7.2: viommu_map_pages, viommu_unmap_pages,
 * viommu_iova_to_phys, viommu_iotlb_sync, viommu_iotlb_sync_map, viommu_flush_iotlb_all,
 * viommu_replay_mappings. The device frees a domain's mappings when its last endpoint leaves, hence
 * the shadow and the replay.
 */
import { Errno } from "../../errno.ts";
import type { DriverDomain } from "../../iommu/driver-domain.ts";
import type { IotlbGather } from "../../iommu/gather.ts";
import { Prot } from "../../iommu/prot.ts";
import { PAGE_SHIFT } from "../../units.ts";
import type { RequestQueue } from "./driver-requests.ts";
import type { DriverSettings } from "./driver-settings.ts";
import { MappingShadow } from "./driver-shadow.ts";
import { MapFlag } from "./protocol.ts";

/** Rights that become a flag of MAP when the device knows it; the others are ignored. */
const FLAG_PROTS = Prot.READ | Prot.WRITE | Prot.MMIO;

/** What a device says about every domain on it, from its config space. */
export interface DomainGeometry {
  /** Page sizes, log2 of bytes, ascending; none below 4 KiB. */
  readonly pageShifts: readonly number[];
  readonly apertureStartPfn: number;
  readonly apertureLastPfn: number;
  /** Flags of MAP that may be set. */
  readonly mapFlags: number;
}

/** What a domain works with. */
export interface DomainParts {
  readonly geometry: DomainGeometry;
  readonly settings: DriverSettings;
  /** The queue in use: another one after a recovery. */
  readonly requests: () => RequestQueue;
  readonly allocationFails: () => boolean;
}

/** The identity domain of a device with BYPASS_CONFIG. */
export interface BypassDomain {
  readonly kind: "bypass";
  readonly id: number;
  endpointCount: number;
}

/** A domain with mappings. */
export class ViommuDomain implements DriverDomain {
  readonly kind = "paging";
  readonly style = "pages";
  readonly id: number;
  readonly pageShifts: readonly number[];
  readonly apertureStartPfn: number;
  readonly apertureLastPfn: number;
  readonly forceAperture = true;
  readonly deferredFlush: boolean;
  readonly shadowOnFlush: boolean;
  mappedPages = 0;
  /** Endpoints attached, as Linux counts them: 32 bits that may wrap below 0 (V195). */
  endpointCount = 0;
  readonly #parts: DomainParts;
  readonly #mapFlags: number;
  readonly #shadow = new MappingShadow();

  constructor(id: number, parts: DomainParts) {
    this.id = id;
    this.#parts = parts;
    this.pageShifts = parts.geometry.pageShifts;
    this.apertureStartPfn = parts.geometry.apertureStartPfn;
    this.apertureLastPfn = parts.geometry.apertureLastPfn;
    this.#mapFlags = parts.geometry.mapFlags;
    this.deferredFlush = parts.settings.deferredFlush;
    this.shadowOnFlush = parts.settings.shadowOnFlush;
  }

  /** Mappings remembered. */
  get mappingCount(): number {
    return this.#shadow.count;
  }

  map(iovaPfn: number, physPfn: number, pageShift: number, count: number, prot: number): number {
    this.mappedPages = 0;
    const flags = flagsOf(prot);
    if ((flags & ~this.#mapFlags) !== 0) return Errno.EINVAL;
    const pages = count * 2 ** (pageShift - PAGE_SHIFT);
    const lastPfn = iovaPfn + pages - 1;
    const remembered = this.remember(iovaPfn, lastPfn, physPfn, flags);
    if (remembered !== Errno.OK) return remembered;
    if (this.endpointCount > 0) {
      const requests = this.#parts.requests();
      const errno = this.#parts.settings.syncMap
        ? requests.addMap(this.id, iovaPfn, lastPfn, physPfn, flags)
        : requests.sendMap(this.id, iovaPfn, lastPfn, physPfn, flags);
      if (errno !== Errno.OK) {
        this.#shadow.remove(iovaPfn, lastPfn);
        return errno;
      }
    }
    this.mappedPages = pages;
    return Errno.OK;
  }

  /** Puts a mapping into the shadow alone, for the next attach. @returns an errno, 0 on success */
  remember(startPfn: number, lastPfn: number, physPfn: number, flags: number): Errno {
    if (this.#parts.allocationFails()) return Errno.ENOMEM;
    return this.#shadow.insert(startPfn, lastPfn, physPfn, flags) ? Errno.OK : Errno.ENOMEM;
  }

  unmap(iovaPfn: number, pageShift: number, count: number, _gather: IotlbGather): number {
    const pages = count * 2 ** (pageShift - PAGE_SHIFT);
    const unmapped = this.#shadow.remove(iovaPfn, iovaPfn + pages - 1);
    // A hole: what was taken out before it stays mapped in the device.
    if (unmapped < pages) return 0;
    if (this.endpointCount === 0) return unmapped;
    const errno = this.#parts.requests().addUnmap(this.id, iovaPfn, iovaPfn + unmapped - 1);
    return errno === Errno.OK ? unmapped : 0;
  }

  iovaToPhys(iovaPfn: number): number {
    return this.#shadow.physOf(iovaPfn);
  }

  iotlbSync(_gather: IotlbGather): void {
    if (this.#parts.settings.guardIotlbSync && this.endpointCount === 0) return;
    this.#parts.requests().sync();
  }

  iotlbSyncMap(_iovaPfn: number, _pages: number): number {
    if (!this.#parts.settings.syncMap || this.endpointCount === 0) return Errno.OK;
    const requests = this.#parts.requests();
    const errno = requests.sync();
    return errno === Errno.OK ? requests.takeMapErrno(this.id) : errno;
  }

  flushIotlbAll(): void {
    if (this.endpointCount > 0) this.#parts.requests().sync();
  }

  /** The device keeps no tables of the guest's. */
  freeTables(): void {}

  /** Sends every mapping again, one by one. @returns the errno of the first that failed */
  replay(): Errno {
    const requests = this.#parts.requests();
    return this.#shadow.visit((startPfn, lastPfn, physPfn, flags) =>
      requests.sendMap(this.id, startPfn, lastPfn, physPfn, flags),
    );
  }

  /** Forgets every mapping, without telling the device. */
  forget(): void {
    this.#shadow.clear();
  }
}

/** The flags of MAP for `Prot` bits; rights a MAP cannot express are ignored. */
function flagsOf(prot: number): number {
  const known = prot & FLAG_PROTS;
  return (
    ((known & Prot.READ) !== 0 ? MapFlag.READ : 0) |
    ((known & Prot.WRITE) !== 0 ? MapFlag.WRITE : 0) |
    ((known & Prot.MMIO) !== 0 ? MapFlag.MMIO : 0)
  );
}
