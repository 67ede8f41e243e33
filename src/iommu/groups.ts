/**
 * All groups of a system: devices join them as they are probed, and leave.
 *
 * Source: drivers/iommu/iommu.c: iommu_group_alloc, __iommu_probe_device, bus_iommu_probe,
 * iommu_group_add_device, __iommu_group_remove_device.
 */
import { Errno } from "../errno.ts";
import { assert } from "../errors.ts";
import { setupDefaultDomain } from "./default-domain.ts";
import type { IommuDevice } from "./device.ts";
import { createDirectMappings } from "./direct-mappings.ts";
import { LowestFree } from "./domain-ids.ts";
import { type GroupSystem, IommuGroup } from "./group.ts";
import { PciGroupFinder } from "./group-rules.ts";
import type { PciFunction } from "./pci-function.ts";

/** A device of a bus walk and how it finds its group. */
export interface ProbedDevice {
  readonly device: IommuDevice;
  /** Position in the PCI functions, or −1 for a device of another bus. */
  readonly pciIndex: number;
}

const GROUPS_MAX = 2 ** 31 - 1;

/** The groups of a system. */
export class IommuGroups {
  readonly system: GroupSystem;
  readonly #ids = new LowestFree(GROUPS_MAX);
  readonly #byDevice = new Map<IommuDevice, IommuGroup>();
  readonly #pciDevices = new Map<number, IommuDevice>();
  readonly #functions: readonly PciFunction[];
  readonly #finder: PciGroupFinder<IommuGroup>;
  /** The group of each driver whose devices all share one. */
  readonly #single = new Map<object, IommuGroup>();

  constructor(system: GroupSystem, functions: readonly PciFunction[] = []) {
    this.system = system;
    this.#functions = functions;
    this.#finder = new PciGroupFinder(functions, (index) => this.ofPci(index));
  }

  /** All groups, by id. */
  get all(): IommuGroup[] {
    return [...new Set(this.#byDevice.values())].sort((a, b) => a.id - b.id);
  }

  /** A device's group, or null. */
  of(device: IommuDevice): IommuGroup | null {
    return this.#byDevice.get(device) ?? null;
  }

  /** The group of the PCI function at a position, or null. */
  ofPci(index: number): IommuGroup | null {
    const device = this.#pciDevices.get(index);
    return device === undefined ? null : this.of(device);
  }

  /**
   * Probes one device: it joins its group and is attached to what the group is attached to.
   *
   * @param pciIndex - position in the PCI functions; −1 gives the device a group of its own
   * @returns an errno, ENODEV when no IOMMU serves the device; on failure it has no group
   */
  add(device: IommuDevice, pciIndex = -1): number {
    if (device.ops === null) return Errno.ENODEV;
    return this.#join(device, this.#findGroup(pciIndex), pciIndex, true);
  }

  /** Probes a device of an IOMMU all of whose devices share one group. @returns an errno */
  addToSingle(device: IommuDevice): number {
    assert(device.ops !== null, "a group of an IOMMU has an IOMMU");
    const group = this.#single.get(device.ops) ?? this.#create();
    this.#single.set(device.ops, group);
    return this.#join(device, group, -1, true);
  }

  /**
   * Makes a group by hand for a device that no IOMMU serves, as VFIO does for mediated devices and
   * for those it hands out unprotected. The group never has a domain.
   */
  addBare(device: IommuDevice): IommuGroup {
    assert(device.ops === null, "a device behind an IOMMU is probed");
    const group = this.#create();
    const errno = this.#join(device, group, -1, false);
    assert(errno === Errno.OK, "a group without a domain takes any device");
    return group;
  }

  /**
   * Probes the devices of a bus: all of them join their groups first, then each new group gets its
   * default domain, so that it sees all its members.
   *
   * @returns the errno of the first group that got none, 0 when all did
   */
  probe(devices: readonly ProbedDevice[]): number {
    const fresh = new Set<IommuGroup>();
    for (const { device, pciIndex } of devices) {
      // A device that no IOMMU serves is passed over.
      if (device.ops === null) continue;
      const group = this.#findGroup(pciIndex);
      const errno = this.#join(device, group, pciIndex, false);
      if (errno !== Errno.OK) return errno;
      if (group.defaultDomain === null) fresh.add(group);
    }
    for (const group of fresh) {
      const errno = setupDefaultDomain(group, null);
      if (errno !== Errno.OK) return errno;
    }
    return Errno.OK;
  }

  /** A device goes away; its group ends with its last member, and the id is free again. */
  remove(device: IommuDevice): void {
    const group = this.#byDevice.get(device);
    assert(group !== undefined, "a device removed has a group");
    const { ops } = device;
    // A device that needs direct mappings is not left blocked.
    const parking =
      device.requireDirect && ops?.identityDomain ? "identityDomain" : "blockedDomain";
    const domain = ops?.[parking] ?? null;
    if (domain !== null && !device.attachDeferred) ops!.attach(device, domain, group.domain);
    this.#leave(device, group);
  }

  #findGroup(pciIndex: number): IommuGroup {
    const found = pciIndex < 0 ? null : this.#finder.find(pciIndex);
    return found ?? this.#create();
  }

  #create(): IommuGroup {
    return new IommuGroup(this.#ids.take(), this.system);
  }

  #join(device: IommuDevice, group: IommuGroup, pciIndex: number, setsUp: boolean): number {
    assert(!this.#byDevice.has(device), "a device is probed once");
    assert(pciIndex < this.#functions.length, "the position is one of the functions");
    group.devices.push(device);
    this.#byDevice.set(device, group);
    if (pciIndex >= 0) this.#pciDevices.set(pciIndex, device);
    group.trace.addDevice(group.id, device.name);
    if (group.defaultDomain !== null) createDirectMappings(group.defaultDomain, device);
    let errno = 0;
    if (group.domain !== null) errno = group.attachOne(device, group.domain, null);
    else if (group.defaultDomain === null && setsUp) errno = setupDefaultDomain(group, null);
    if (errno !== Errno.OK) this.#leave(device, group);
    return errno;
  }

  #leave(device: IommuDevice, group: IommuGroup): void {
    if (group.devices.length === 1) group.dissolve();
    group.devices.splice(group.devices.indexOf(device), 1);
    this.#byDevice.delete(device);
    for (const [index, each] of this.#pciDevices) {
      if (each === device) this.#pciDevices.delete(index);
    }
    group.trace.removeDevice(group.id, device.name);
    if (group.devices.length > 0) return;
    for (const [ops, each] of this.#single) if (each === group) this.#single.delete(ops);
    this.#ids.give(group.id);
  }
}
