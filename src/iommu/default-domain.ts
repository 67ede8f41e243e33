/**
 * The default domain of a group: which type it gets at boot, on a driver's or a user's demand, and
 * how it is set up and changed through the group's `type` file.
 *
 * Source: drivers/iommu/iommu.c: iommu_get_default_domain_type, iommu_group_alloc_default_domain,
 * iommu_setup_default_domain, iommu_group_show_type, iommu_group_store_type;
 * drivers/iommu/dma-iommu.c:iommu_dma_init_domain.
 */
import { Errno } from "../errno.ts";
import { createDirectMappings } from "./direct-mappings.ts";
import { DomainType, type IommuDomain } from "./domain.ts";
import type { IommuGroup } from "./group.ts";

/** What a write to a group's `type` file can ask for. */
type RequestedType = typeof DomainType.IDENTITY | typeof DomainType.DMA | typeof DomainType.DMA_FQ;

/**
 * The type that a group's members demand together, or that is asked for.
 *
 * @param requested - null to let drivers and system decide
 * @returns a type, null when nobody cares, or −1 when demands cannot be met
 */
export function demandedType(
  group: IommuGroup,
  requested: RequestedType | null,
): DomainType | -1 | null {
  let demanded: DomainType | null = null;
  let isUntrusted = false;
  for (const device of group.devices) {
    const type = device.ops?.defaultType(device) ?? null;
    // Drivers that disagree get the identity domain.
    if (demanded === null || type === DomainType.IDENTITY) demanded = type ?? demanded;
    if (device.untrusted) isUntrusted = true;
  }
  if (isUntrusted) {
    if (demanded !== null && demanded !== DomainType.DMA) return -1;
    demanded = DomainType.DMA;
  }
  if (requested === null) return demanded;
  return demanded !== null && demanded !== requested ? -1 : requested;
}

/**
 * Gives a group its default domain, or another one: direct regions are mapped first, then all
 * members move. A failure leaves the old one in place.
 *
 * @returns an errno: EINVAL when demands cannot be met, else of allocation or of a member's driver
 */
export function setupDefaultDomain(group: IommuGroup, requested: RequestedType | null): number {
  const type = demandedType(group, requested);
  if (type === -1) return Errno.EINVAL;
  const domain = allocDefault(group, type);
  if (typeof domain === "number") return domain;
  const old = group.defaultDomain;
  if (old === domain) return Errno.OK;
  const cookieErrno = hangDmaCookie(group, domain);
  if (cookieErrno !== Errno.OK) {
    group.freeDomain(domain);
    return cookieErrno;
  }
  let isDirectMissing = false;
  for (const device of group.devices) {
    if (createDirectMappings(domain, device) !== Errno.OK) isDirectMissing = true;
  }
  group.defaultDomain = domain;
  let errno = group.domain === null ? group.setDomainAtAllCosts(domain) : group.setDomain(domain);
  // Some drivers take mappings only once a device is attached.
  if (errno === Errno.OK && isDirectMissing) {
    for (const device of group.devices) {
      errno = createDirectMappings(domain, device);
      if (errno !== Errno.OK) break;
    }
    if (errno !== Errno.OK && old !== null) group.setDomainAtAllCosts(old);
  }
  if (errno !== Errno.OK && old !== null) {
    group.defaultDomain = old;
    group.freeDomain(domain);
    return errno;
  }
  if (old !== null) group.freeDomain(old);
  return errno;
}

function allocDefault(group: IommuGroup, type: DomainType | null): IommuDomain | number {
  if (type !== null) return reuseOrAlloc(group, type);
  const { defaultType } = group.system;
  const domain = reuseOrAlloc(group, defaultType);
  if (typeof domain !== "number") return domain;
  return defaultType === DomainType.DMA ? Errno.EINVAL : reuseOrAlloc(group, DomainType.DMA);
}

function reuseOrAlloc(group: IommuGroup, type: DomainType): IommuDomain | number {
  return group.defaultDomain?.type === type ? group.defaultDomain : group.allocDomain(type);
}

function hangDmaCookie(group: IommuGroup, domain: IommuDomain): number {
  const create = group.system.createDmaCookie;
  if (!domain.isDma || create === undefined) return Errno.OK;
  const dma = create(domain);
  if (dma === null) return Errno.ENOMEM;
  domain.cookie = { kind: "dma", dma };
  return Errno.OK;
}

/**
 * The DMA API's first use of a domain: a flush queue that cannot be had makes it a strict one.
 *
 * @returns whether the domain has a flush queue
 */
export function settleFlushQueue(domain: IommuDomain): boolean {
  if (domain.type !== DomainType.DMA_FQ) return false;
  const supported = domain.driver?.deferredFlush === true;
  if (supported && initFlushQueue(domain) === Errno.OK) return true;
  domain.type = DomainType.DMA;
  return false;
}

function initFlushQueue(domain: IommuDomain): number {
  return domain.cookie.kind === "dma" ? domain.cookie.dma.initFlushQueue() : Errno.OK;
}

/** What a group's `type` file says: the type of the default domain, whoever has the group. */
export function showType(group: IommuGroup): string {
  switch (group.defaultDomain?.type) {
    case DomainType.BLOCKED:
      return "blocked";
    case DomainType.IDENTITY:
      return "identity";
    case DomainType.UNMANAGED:
      return "unmanaged";
    case DomainType.DMA:
      return "DMA";
    case DomainType.DMA_FQ:
      return "DMA-FQ";
    default:
      return "unknown";
  }
}

const requests = new Map<string, RequestedType | null>([
  ["identity", DomainType.IDENTITY],
  ["DMA", DomainType.DMA],
  ["DMA-FQ", DomainType.DMA_FQ],
  ["auto", null],
]);

/**
 * Handles a write to a group's `type` file.
 *
 * @param text - one word, with or without a line feed
 * @param isPrivileged - whether the writer has CAP_SYS_ADMIN and CAP_SYS_RAWIO
 * @returns EACCES, EINVAL (no such type, no default domain, a demand against it), EPERM (in use), or
 *   what the change failed with; DMA to DMA-FQ also works while drivers are bound
 */
export function storeType(group: IommuGroup, text: string, isPrivileged: boolean): number {
  if (!isPrivileged) return Errno.EACCES;
  const current = group.defaultDomain;
  if (current === null) return Errno.EINVAL;
  const requested = requests.get(text.replace(/\n$/, ""));
  if (requested === undefined) return Errno.EINVAL;
  if (requested === DomainType.DMA_FQ && current.type === DomainType.DMA) {
    const errno = initFlushQueue(current);
    if (errno === Errno.OK) current.type = DomainType.DMA_FQ;
    return errno;
  }
  if (group.devices.length === 0 || group.ownerCount > 0) return Errno.EPERM;
  return setupDefaultDomain(group, requested);
}
