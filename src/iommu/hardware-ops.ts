/**
 * The driver of a kind of hardware IOMMU: what the core asks of it, done with translation units.
 *
 * Source: drivers/iommu/intel/iommu.c: intel_iommu_attach_device, device_block_translation,
 * identity_domain_attach_dev, blocking_domain_attach_dev, intel_iommu_set_dev_pasid;
 * drivers/iommu/amd/iommu.c:amd_iommu_attach_device.
 */
import { Errno } from "../errno.ts";
import { assert } from "../errors.ts";
import type { DemandedType, IommuCapability, IommuDevice, IommuOps } from "./device.ts";
import { type DomainTrace, DomainType, IommuDomain } from "./domain.ts";
import { HardwareDomain, type HardwareDomainOptions } from "./hardware-domain.ts";
import type { ReservedRegion } from "./reserved-regions.ts";
import { NO_PASID } from "./tag-array.ts";
import type { TranslationUnit } from "./translation-unit.ts";

/** What makes one kind of IOMMU differ from another. */
export interface HardwareOpsOptions {
  readonly name: string;
  /** The unit that a device is behind; null when it is behind none. */
  unitOf(device: IommuDevice): TranslationUnit | null;
  /** What a new domain for a device is made of; null when memory is short. */
  createDomain(device: IommuDevice, unit: TranslationUnit): HardwareDomainOptions | null;
  /**
   * Whether translation is blocked before a new domain is looked at (VT-d), so that a device that
   * is refused stays blocked.
   */
  readonly blocksFirst?: boolean;
  /** Whether the hardware can let DMA pass untranslated; it can without this. */
  readonly passThrough?: boolean;
  defaultType?(device: IommuDevice): DemandedType;
  reservedRegions?(device: IommuDevice): readonly ReservedRegion[];
  /** Answers groups of page requests, where the hardware takes them. */
  readonly pageResponse?: NonNullable<IommuOps["pageResponse"]>;
  /** Whether page tables note what devices have written; they do not without this. */
  readonly tracksDirty?: boolean;
  /** Hears of every map and unmap of the domains made. */
  readonly trace?: DomainTrace;
}

/** A driver of hardware IOMMUs. */
export class HardwareOps implements IommuOps {
  readonly name: string;
  readonly identityDomain: IommuDomain | null;
  readonly pageResponse?: NonNullable<IommuOps["pageResponse"]>;
  readonly blockedDomain = new IommuDomain(DomainType.BLOCKED, null);
  readonly #options: HardwareOpsOptions;
  readonly #attached = new Map<IommuDevice, HardwareDomain>();
  readonly #attachedPasids = new Map<IommuDevice, Map<number, HardwareDomain>>();

  constructor(options: HardwareOpsOptions) {
    this.name = options.name;
    const passes = options.passThrough ?? true;
    this.identityDomain = passes ? new IommuDomain(DomainType.IDENTITY, null) : null;
    if (options.pageResponse !== undefined) this.pageResponse = options.pageResponse;
    this.#options = options;
  }

  defaultType(device: IommuDevice): DemandedType {
    return this.#options.defaultType?.(device) ?? null;
  }

  capable(device: IommuDevice, capability: IommuCapability): boolean {
    if (capability === "dirty-tracking") return this.#options.tracksDirty ?? false;
    return this.#options.unitOf(device)?.snoopControl ?? false;
  }

  reservedRegions(device: IommuDevice): readonly ReservedRegion[] {
    return this.#options.reservedRegions?.(device) ?? [];
  }

  allocPaging(device: IommuDevice, _forPasid: boolean): IommuDomain | number {
    const unit = this.#options.unitOf(device);
    if (unit === null) return Errno.ENODEV;
    const parts = this.#options.createDomain(device, unit);
    if (parts === null) return Errno.ENOMEM;
    const driver = new HardwareDomain(parts);
    const domain = new IommuDomain(DomainType.UNMANAGED, driver, this.#options.trace ?? null);
    domain.operations = `${this.name}/${parts.operations ?? parts.table.format.name}`;
    return domain;
  }

  freePaging(domain: IommuDomain): void {
    hardwareOf(domain).destroy();
  }

  attach(device: IommuDevice, domain: IommuDomain): number {
    const unit = this.#options.unitOf(device);
    if (unit === null) return Errno.ENODEV;
    if (domain === this.blockedDomain || domain === this.identityDomain) {
      this.#leave(device, unit);
      const kind = domain === this.blockedDomain ? "blocked" : "identity";
      unit.devices.attach(device.rid, NO_PASID, { kind });
      return Errno.OK;
    }
    const hardware = hardwareOf(domain);
    unit.devices.ensure(device.rid).node = device.node;
    if (this.#options.blocksFirst !== true && !hardware.suits(unit)) return Errno.EINVAL;
    this.#leave(device, unit);
    const errno = hardware.attach(unit, device.rid);
    if (errno === Errno.OK) this.#attached.set(device, hardware);
    return errno;
  }

  attachPasid(device: IommuDevice, domain: IommuDomain | null, pasid: number): number {
    const unit = this.#options.unitOf(device);
    if (unit === null) return Errno.ENODEV;
    let pasids = this.#attachedPasids.get(device);
    if (pasids === undefined) {
      pasids = new Map();
      this.#attachedPasids.set(device, pasids);
    }
    pasids.get(pasid)?.detach(unit, device.rid, pasid);
    pasids.delete(pasid);
    if (domain === null) return Errno.OK;
    if (domain.driver === null) return Errno.EOPNOTSUPP;
    const hardware = hardwareOf(domain);
    const errno = hardware.attach(unit, device.rid, pasid);
    if (errno === Errno.OK) pasids.set(pasid, hardware);
    return errno;
  }

  /** Blocks a device that is on a paging domain. */
  #leave(device: IommuDevice, unit: TranslationUnit): void {
    const hardware = this.#attached.get(device);
    if (hardware !== undefined) hardware.detach(unit, device.rid);
    else unit.devices.attach(device.rid, NO_PASID, { kind: "blocked" });
    this.#attached.delete(device);
  }
}

function hardwareOf(domain: IommuDomain): HardwareDomain {
  const { driver } = domain;
  assert(driver instanceof HardwareDomain, "the domain is one of this driver's");
  return driver;
}
