/**
 * The VFIO core of a system: which devices are offered to users, in which groups, below /dev/vfio.
 *
 * Source: drivers/vfio/vfio_main.c: __vfio_register_dev, vfio_unregister_group_dev;
 * drivers/vfio/group.c: vfio_group_find_or_alloc, vfio_noiommu_group_alloc, vfio_device_remove_group.
 */
import { Errno } from "../errno.ts";
import { assert } from "../errors.ts";
import type { IommuGroups } from "../iommu/groups.ts";
import type { ContainerBackend } from "./backend.ts";
import { Container } from "./container.ts";
import type { VfioDevice } from "./device-file.ts";
import { type IoctlResult, result, type VfioTask } from "./file.ts";
import { type GroupType, VfioGroup } from "./group.ts";
import { NoIommuBackend, type NoIommuMode } from "./noiommu.ts";

/** What a system's VFIO is made of. */
export interface VfioOptions {
  /** Groups of the IOMMU core. */
  readonly groups: IommuGroups;
  /** Back ends besides the one for no IOMMU, usually type1 alone. */
  readonly backends: readonly ContainerBackend[];
  /** Null for a kernel without CONFIG_VFIO_NOIOMMU. */
  readonly noIommu?: NoIommuMode | null;
  /** Hears what the kernel logs. */
  readonly log?: (line: string) => void;
}

/** VFIO of one system. */
export class Vfio {
  /** Whether the kernel was tainted (TAINT_USER) because a device is handed out unprotected. */
  isTainted = false;
  readonly #iommuGroups: IommuGroups;
  readonly #backends: readonly ContainerBackend[];
  readonly #noIommu: NoIommuMode | null;
  readonly #log: (line: string) => void;
  readonly #groups: VfioGroup[] = [];

  constructor(options: VfioOptions) {
    const { noIommu = null } = options;
    this.#iommuGroups = options.groups;
    this.#noIommu = noIommu;
    const unprotected = noIommu === null ? [] : [new NoIommuBackend(noIommu)];
    this.#backends = [...options.backends, ...unprotected];
    this.#log = options.log ?? (() => {});
  }

  /** Groups that have a file, by id. */
  get groups(): VfioGroup[] {
    return [...this.#groups].sort((a, b) => a.id - b.id);
  }

  /**
   * A VFIO driver takes a device.
   *
   * @returns EINVAL when no IOMMU serves it and unprotected use is not switched on
   */
  register(device: VfioDevice): number {
    const group = this.#groupFor(device);
    if (group === null) return Errno.EINVAL;
    assert(!group.devices.includes(device), "a device is registered once");
    // Devices are looked through in this order when one is asked for by name.
    group.devices.push(device);
    return Errno.OK;
  }

  /**
   * A VFIO driver gives a device up.
   *
   * @returns EBUSY while a user has it open: the kernel asks that user and waits
   */
  unregister(device: VfioDevice): number {
    const group = this.groupOf(device);
    assert(group !== null, "a device given up was registered");
    if (group.isInUse(device)) return Errno.EBUSY;
    group.devices.splice(group.devices.indexOf(device), 1);
    if (group.devices.length > 0) return Errno.OK;
    group.revoke();
    this.#groups.splice(this.#groups.indexOf(group), 1);
    if (group.type !== "iommu") this.#iommuGroups.remove(device.iommuDevice);
    return Errno.OK;
  }

  /** The group of a registered device, or null. */
  groupOf(device: VfioDevice): VfioGroup | null {
    return this.#groups.find((group) => group.devices.includes(device)) ?? null;
  }

  /** A new container, as opening /dev/vfio/vfio makes one. */
  createContainer(): Container {
    return new Container(this.#backends);
  }

  /**
   * open(2) of a file below /dev/vfio: `vfio`, or a group's number.
   *
   * @returns a descriptor, or ENOENT, ENODEV, EPERM, EBUSY, EMFILE
   */
  open(task: VfioTask, path: string): IoctlResult {
    if (task.descriptors.isFull) return result(Errno.EMFILE);
    const name = /^\/dev\/vfio\/([^/]+)$/.exec(path)?.[1];
    if (name === "vfio") return task.open(this.createContainer());
    const group = this.#groups.find((each) => each.fileName === name);
    return group === undefined ? result(Errno.ENOENT) : group.open(task);
  }

  #groupFor(device: VfioDevice): VfioGroup | null {
    const { iommuDevice } = device;
    let type: GroupType = device.isEmulated === true ? "emulated" : "iommu";
    let iommuGroup = this.#iommuGroups.of(iommuDevice);
    if (iommuGroup === null) {
      if (type !== "emulated" && this.#noIommu?.enabled !== true) return null;
      if (type !== "emulated") type = "no-iommu";
      iommuGroup = this.#iommuGroups.addBare(iommuDevice);
      if (type === "no-iommu") this.#taint(iommuDevice.name);
    }
    const known = this.#groups.find((group) => group.iommuGroup === iommuGroup);
    if (known !== undefined) return known;
    const group = new VfioGroup(type, iommuGroup);
    this.#groups.push(group);
    return group;
  }

  #taint(name: string): void {
    this.isTainted = true;
    this.#log(`vfio-pci ${name}: Adding kernel taint for vfio-noiommu group on device`);
  }
}
