/**
 * A group of devices that the IOMMU cannot keep apart: its members, its domains, and the one way in
 * which it moves from one domain to another.
 *
 * Source: drivers/iommu/iommu.c: struct iommu_group, __iommu_group_set_domain_internal,
 * __iommu_device_set_domain, __iommu_group_domain_alloc. What users may ask of a group is in
 * attach.ts, how its default domain comes about in default-domain.ts.
 */
import { Errno } from "../errno.ts";
import { assert } from "../errors.ts";
import { type Meter, NULL_METER, Step } from "../meter.ts";
import type { IommuDevice, IommuOps } from "./device.ts";
import { type DmaCookie, DomainType, type IommuDomain } from "./domain.ts";
import type { AttachHandle } from "./iopf/page-request.ts";
import { combineRegions, type ReservedRegion } from "./reserved-regions.ts";

/** Hears of what groups do, in the order of the `iommu:*` trace events. */
export interface GroupTrace {
  addDevice(groupId: number, device: string): void;
  removeDevice(groupId: number, device: string): void;
  /** A device was attached to a domain; which one, the event does not say. */
  attachDevice(device: string): void;
}

/** What all groups of a system share. */
export interface GroupSystem {
  /** The type of default domain where no driver demands one: DMA, DMA_FQ or IDENTITY. */
  readonly defaultType: DomainType;
  readonly trace?: GroupTrace;
  readonly meter?: Meter;
  /** Makes what the DMA API hangs on a domain; null when memory is short. */
  readonly createDmaCookie?: (domain: IommuDomain) => DmaCookie | null;
}

const NO_TRACE: GroupTrace = { addDevice() {}, removeDevice() {}, attachDevice() {} };

/** A group. */
export class IommuGroup {
  readonly id: number;
  readonly system: GroupSystem;
  readonly devices: IommuDevice[] = [];
  readonly trace: GroupTrace;
  /** What the kernel's own drivers use; null until it is set up. */
  defaultDomain: IommuDomain | null = null;
  /** What the group is attached to while a user owns it and has attached nothing. */
  blockingDomain: IommuDomain | null = null;
  /** What the group is attached to; null before the first attach. */
  domain: IommuDomain | null = null;
  /** A user that owns the group's DMA, or null. */
  owner: object | null = null;
  /** Kernel drivers bound to members, or claims of the owner. */
  ownerCount = 0;
  /** Members that are being reset. */
  recoveryCount = 0;
  /** Domains of PASIDs. */
  readonly pasids = new Map<number, IommuDomain>();
  /** By PASID, or `NO_PASID`: what was attached with a handle, for page requests to find. */
  readonly handles = new Map<number, AttachHandle<IommuDomain>>();
  readonly #meter: Meter;

  constructor(id: number, system: GroupSystem) {
    this.id = id;
    this.system = system;
    this.trace = system.trace ?? NO_TRACE;
    this.#meter = system.meter ?? NULL_METER;
  }

  /** The driver of the first member's IOMMU; null without one. */
  get ops(): IommuOps | null {
    return this.devices[0]?.ops ?? null;
  }

  /** Whether no member's interrupts can be forged by others. */
  get hasIsolatedMsi(): boolean {
    return this.devices.every((device) => device.isolatedMsi);
  }

  /** The members' reserved regions as one list. */
  reservedRegions(): ReservedRegion[] {
    return combineRegions(this.devices.map((device) => device.ops?.reservedRegions(device) ?? []));
  }

  /**
   * Moves all members to a domain, one after the other. A member that refuses makes those before
   * it, and itself, go back to the old domain.
   *
   * @returns the errno of the member that refused, 0 when none did
   */
  setDomain(domain: IommuDomain): number {
    const old = this.domain;
    if (old === domain) return Errno.OK;
    if (this.recoveryCount > 0) return Errno.EBUSY;
    for (const [index, device] of this.devices.entries()) {
      const errno = this.attachOne(device, domain, old);
      if (errno === Errno.OK) continue;
      // Before the first attach there is nothing to go back to.
      if (old !== null) {
        for (const moved of this.devices.slice(0, index + 1)) {
          this.#attachAtAllCosts(moved, old, domain);
        }
      }
      return errno;
    }
    this.domain = domain;
    return Errno.OK;
  }

  /**
   * Moves all members to a domain; one that refuses goes to the blocking domain instead.
   *
   * @returns the errno of the last member that refused, 0 when none did
   */
  setDomainAtAllCosts(domain: IommuDomain): number {
    const old = this.domain;
    if (old === domain) return Errno.OK;
    let result = 0;
    for (const device of this.devices) {
      const errno = this.#attachAtAllCosts(device, domain, old);
      if (errno !== Errno.OK) result = errno;
    }
    this.domain = domain;
    return result;
  }

  /** Moves one member, which may be refused. @returns an errno, 0 on success */
  attachOne(device: IommuDevice, domain: IommuDomain, old: IommuDomain | null): number {
    const { ops } = device;
    if (ops === null) return Errno.ENODEV;
    const blocks = domain.type === DomainType.BLOCKED || domain === this.blockingDomain;
    if (device.requireDirect && blocks) return Errno.EINVAL;
    if (device.attachDeferred) {
      if (domain === this.defaultDomain) return Errno.OK;
      device.attachDeferred = false;
    }
    const errno = ops.attach(device, domain, old);
    if (errno !== Errno.OK) return errno;
    this.#meter.step(Step.attach, 1, 0);
    this.trace.attachDevice(device.name);
    return Errno.OK;
  }

  #attachAtAllCosts(device: IommuDevice, domain: IommuDomain, old: IommuDomain | null): number {
    const errno = this.attachOne(device, domain, old);
    if (errno === Errno.OK) return Errno.OK;
    const blocking = this.blockingDomain;
    if (blocking === null || blocking === domain) return errno;
    if (device.ops?.attach(device, blocking, old) === Errno.OK) {
      this.trace.attachDevice(device.name);
    }
    return errno;
  }

  /**
   * Makes a domain of a type for the group, as its first member's driver can.
   *
   * @returns the domain, or an errno
   */
  allocDomain(type: DomainType): IommuDomain | number {
    const device = this.devices[0];
    const ops = device?.ops ?? null;
    if (device === undefined || ops === null) return Errno.ENODEV;
    if (type === DomainType.IDENTITY) return ops.identityDomain ?? Errno.EOPNOTSUPP;
    if (type === DomainType.BLOCKED) return ops.blockedDomain ?? Errno.EOPNOTSUPP;
    let domain: IommuDomain | number = Errno.EOPNOTSUPP;
    const isDma = type === DomainType.DMA || type === DomainType.DMA_FQ;
    if (isDma && device.maxPasids > 0) domain = ops.allocPaging(device, true);
    if (typeof domain === "number") domain = ops.allocPaging(device, false);
    if (typeof domain === "number") return domain;
    domain.type = type;
    domain.owner = ops;
    return domain;
  }

  /** Gives its domains back, before the last member leaves. */
  dissolve(): void {
    const { defaultDomain, blockingDomain } = this;
    this.domain = null;
    this.defaultDomain = null;
    this.blockingDomain = null;
    if (defaultDomain !== null) this.freeDomain(defaultDomain);
    if (blockingDomain !== null) this.freeDomain(blockingDomain);
  }

  /** Gives a domain back, unless it is one of the driver's own that always exist. */
  freeDomain(domain: IommuDomain): void {
    const { ops } = this;
    assert(domain !== this.domain, "a domain in use is not freed");
    if (ops === null || domain === ops.identityDomain || domain === ops.blockedDomain) return;
    ops.freePaging(domain);
  }
}
