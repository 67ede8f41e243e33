/**
 * An IOMMU as far as a recording of VFIO tells of it: which addresses it takes, in which sizes, and
 * what it keeps for itself. All of that belongs to the recorded hardware and is taken from the
 * recording; what becomes of a call does not, and comes out of src/vfio.
 *
 * It keeps mappings as ranges, without page tables, as the virtio-iommu driver does
 * (drivers/iommu/virtio-iommu.c: viommu_domain_map_identity and the rest of its interval tree).
 */
import { Errno } from "../../errno.ts";
import type { IommuOps } from "../../iommu/device.ts";
import { type DomainTrace, DomainType, IommuDomain } from "../../iommu/domain.ts";
import type { DriverDomain } from "../../iommu/driver-domain.ts";
import { type ReservedRegion, ReservedType } from "../../iommu/reserved-regions.ts";
import { MappingShadow } from "../../virtio/iommu/driver-shadow.ts";

/** What a recording tells. Ranges are sorted and apart; `last` is inclusive. */
export interface RecordedIommuFacts {
  /** Bits of page sizes, as GET_INFO tells them. */
  readonly pageSizes: bigint;
  /** What users may map; everything when the list is empty. */
  readonly allowed: readonly { readonly start: bigint; readonly last: bigint }[];
  /** Whether all DMA is cache coherent. */
  readonly isCoherent: boolean;
}

const ADDRESS_LAST = 2n ** 64n - 1n;
const PAGE_SHIFTS = Array.from({ length: 52 }, (_, index) => index + 12);

/** Its driver. */
export function recordedIommuOps(facts: RecordedIommuFacts, trace: DomainTrace | null): IommuOps {
  const reserved = regionsBetween(facts.allowed);
  return {
    name: "recorded",
    identityDomain: new IommuDomain(DomainType.IDENTITY, null),
    blockedDomain: new IommuDomain(DomainType.BLOCKED, null),
    defaultType: () => null,
    allocPaging: () => {
      const driver = new RecordedDomain(facts);
      return new IommuDomain(DomainType.UNMANAGED, driver, trace);
    },
    freePaging: () => {},
    attach: () => Errno.OK,
    attachPasid: () => Errno.EOPNOTSUPP,
    reservedRegions: () => reserved,
  };
}

/** What lies between allowed ranges is reserved; below and above them the aperture ends. */
function regionsBetween(allowed: RecordedIommuFacts["allowed"]): ReservedRegion[] {
  const gaps = allowed.slice(1).map(({ start }, index) => ({
    type: ReservedType.RESERVED,
    start: allowed[index]!.last + 1n,
    last: start - 1n,
    prot: 0,
  }));
  return gaps.filter(({ start, last }) => start <= last);
}

class RecordedDomain implements DriverDomain {
  readonly style = "range";
  readonly pageShifts: readonly number[];
  readonly apertureStartPfn: number;
  readonly apertureLastPfn: number;
  readonly forceAperture = true;
  readonly deferredFlush = false;
  readonly shadowOnFlush = false;
  mappedPages = 0;
  readonly #isCoherent: boolean;
  readonly #mappings = new MappingShadow();

  constructor(facts: RecordedIommuFacts) {
    const { pageSizes, allowed } = facts;
    const shifts = PAGE_SHIFTS.filter((shift) => ((pageSizes >> BigInt(shift)) & 1n) === 1n);
    this.pageShifts = shifts.length === 0 ? [12] : shifts;
    // An aperture has whole frames; one that was recorded otherwise shows in GET_INFO.
    this.apertureStartPfn = Number((allowed[0]?.start ?? 0n) >> 12n);
    this.apertureLastPfn = Number((allowed.at(-1)?.last ?? ADDRESS_LAST) >> 12n);
    this.#isCoherent = facts.isCoherent;
  }

  map(iovaPfn: number, physPfn: number, _pageShift: number, count: number, prot: number): number {
    const isKept = this.#mappings.insert(iovaPfn, iovaPfn + count - 1, physPfn, prot);
    this.mappedPages = isKept ? count : 0;
    return isKept ? Errno.OK : Errno.ENOMEM;
  }

  unmap(iovaPfn: number, _pageShift: number, count: number): number {
    return this.#mappings.remove(iovaPfn, iovaPfn + count - 1);
  }

  iovaToPhys(iovaPfn: number): number {
    return this.#mappings.physOf(iovaPfn);
  }

  enforceCacheCoherency(): boolean {
    return this.#isCoherent;
  }

  iotlbSync(): void {}

  iotlbSyncMap(): number {
    return Errno.OK;
  }

  flushIotlbAll(): void {}

  freeTables(): void {}
}
