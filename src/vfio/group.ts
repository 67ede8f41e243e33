/**
 * /dev/vfio/N: the one file through which a user gets at the devices of an IOMMU group.
 *
 * A group is first given to a container (or to an iommufd that stands in for one), then its devices
 * can be opened. Source: drivers/vfio/group.c: vfio_group_fops_open, vfio_group_fops_release,
 * vfio_group_ioctl_get_status, _set_container, _unset_container, _get_device_fd, vfio_df_group_open.
 */
import { Errno } from "../errno.ts";
import { assert } from "../errors.ts";
import type { IommuGroup } from "../iommu/group.ts";
import { PAGE_BYTES } from "../units.ts";
import { viewOf } from "../wire/layout.ts";
import { DeviceFile, matchName, type VfioDevice } from "./device-file.ts";
import {
  type FileOperations,
  type IoctlArgument,
  type IoctlResult,
  OpenFile,
  result,
  type VfioTask,
} from "./file.ts";
import { GroupFlag, GroupStatus, VfioRequest } from "./requests.ts";

/** `iommu`: behind an IOMMU; `emulated`: of a mediated device; `no-iommu`: unprotected. */
export type GroupType = "iommu" | "emulated" | "no-iommu";

/** What SET_CONTAINER can give a group to. */
export interface GroupHolder {
  /** @returns an errno; then nothing has changed */
  attachGroup(group: VfioGroup, task: VfioTask): number;
  detachGroup(group: VfioGroup): void;
  /** A device of the group is to be opened. @returns an errno when it must not */
  useGroup(group: VfioGroup, task: VfioTask): number;
  /** A device is opened for the first time. @returns an errno when it must not be */
  addDevice(device: VfioDevice): number;
  /** A device was closed for the last time. */
  removeDevice(device: VfioDevice): void;
}

/** A file that leads to a {@link GroupHolder}. */
export interface HolderFile extends FileOperations {
  readonly groupHolder: GroupHolder;
}

/** A group that has devices for users. */
export class VfioGroup {
  readonly type: GroupType;
  readonly id: number;
  readonly devices: VfioDevice[] = [];
  /** What it was given to, or null. */
  holder: GroupHolder | null = null;
  /** Users of its devices that do not go through it, but through their own files. */
  cdevOpenCount = 0;
  #iommuGroup: IommuGroup | null;
  #openedFile: OpenFile | null = null;
  /** How often each device is open. */
  readonly #openCounts = new Map<VfioDevice, number>();

  constructor(type: GroupType, iommuGroup: IommuGroup) {
    this.type = type;
    this.id = iommuGroup.id;
    this.#iommuGroup = iommuGroup;
  }

  /** Name of its file below /dev/vfio. */
  get fileName(): string {
    return `${this.type === "no-iommu" ? "noiommu-" : ""}${this.id}`;
  }

  /** The group of the IOMMU core; null once the last device is gone. */
  get iommuGroup(): IommuGroup | null {
    return this.#iommuGroup;
  }

  get isOpen(): boolean {
    return this.#openedFile !== null;
  }

  /** Devices that are open. */
  get openDevices(): number {
    return this.#openCounts.size;
  }

  /** open(2). @returns a descriptor, or ENODEV, EPERM, EBUSY, EMFILE */
  open(task: VfioTask): IoctlResult {
    if (task.descriptors.isFull) return result(Errno.EMFILE);
    if (this.devices.length === 0) return result(Errno.ENODEV);
    if (this.type === "no-iommu" && !task.canRawIo) return result(Errno.EPERM);
    if (this.cdevOpenCount > 0 || this.isOpen) return result(Errno.EBUSY);
    this.#openedFile = new OpenFile(new GroupFile(this));
    return task.descriptors.install(this.#openedFile);
  }

  /** The file of the group is released; no device is open then. */
  released(): void {
    assert(this.openDevices === 0, "open devices hold the file of their group");
    this.holder?.detachGroup(this);
    this.holder = null;
    this.#openedFile = null;
  }

  /** GROUP_GET_STATUS, as flags. */
  get flags(): number {
    if (this.holder !== null) return GroupFlag.VIABLE | GroupFlag.CONTAINER_SET;
    return this.#iommuGroup!.ownerCount === 0 ? GroupFlag.VIABLE : 0;
  }

  /** GROUP_SET_CONTAINER with what a descriptor leads to. @returns an errno */
  setContainer(task: VfioTask, file: OpenFile | null): number {
    if (file === null) return Errno.EBADF;
    if (this.holder !== null) return Errno.EINVAL;
    if (this.#iommuGroup === null) return Errno.ENODEV;
    const holder = (file.operations as Partial<HolderFile>).groupHolder ?? null;
    if (holder === null) return Errno.EBADFD;
    const errno = holder.attachGroup(this, task);
    if (errno === Errno.OK) this.holder = holder;
    return errno;
  }

  /** GROUP_UNSET_CONTAINER. @returns EINVAL, or EBUSY while a device is open */
  unsetContainer(): number {
    if (this.holder === null) return Errno.EINVAL;
    if (this.openDevices > 0) return Errno.EBUSY;
    this.holder.detachGroup(this);
    this.holder = null;
    return Errno.OK;
  }

  /** GROUP_GET_DEVICE_FD. @returns a descriptor, or ENODEV, EINVAL, EPERM, EMFILE, … */
  getDevice(task: VfioTask, text: string): IoctlResult {
    let device: VfioDevice | null = null;
    for (const each of this.devices) {
      const match = matchName(each, text);
      if (match < 0) return result(-match);
      if (match > 0) device ??= each;
    }
    if (device === null) return result(Errno.ENODEV);
    if (task.descriptors.isFull) return result(Errno.EMFILE);
    const errno = this.#use(task, device);
    if (errno !== Errno.OK) return result(errno);
    const used = device;
    return task.open(new DeviceFile(used, () => this.#unuse(used)));
  }

  /** The last device is gone: nobody can use the group again. */
  revoke(): void {
    assert(this.devices.length === 0, "a group ends with its last device");
    this.holder?.detachGroup(this);
    this.holder = null;
    this.#iommuGroup = null;
  }

  /** Whether a device is open. */
  isInUse(device: VfioDevice): boolean {
    return this.#openCounts.has(device);
  }

  #use(task: VfioTask, device: VfioDevice): number {
    const { holder } = this;
    if (holder === null) return Errno.EINVAL;
    const count = this.#openCounts.get(device) ?? 0;
    if (count === 0) {
      const useErrno = holder.useGroup(this, task);
      if (useErrno !== Errno.OK) return useErrno;
      const addErrno = holder.addDevice(device);
      if (addErrno !== Errno.OK) return addErrno;
      const openErrno = device.open?.() ?? Errno.OK;
      if (openErrno !== Errno.OK) {
        holder.removeDevice(device);
        return openErrno;
      }
      // An open device keeps the group open, whoever closes the descriptor.
      this.#openedFile!.get();
    }
    this.#openCounts.set(device, count + 1);
    return Errno.OK;
  }

  #unuse(device: VfioDevice): void {
    const count = this.#openCounts.get(device);
    assert(count !== undefined, "a device closed was open");
    if (count > 1) {
      this.#openCounts.set(device, count - 1);
      return;
    }
    this.#openCounts.delete(device);
    device.close?.();
    this.holder!.removeDevice(device);
    this.#openedFile!.put();
  }
}

/** The file of a group. */
class GroupFile implements FileOperations {
  readonly #group: VfioGroup;

  constructor(group: VfioGroup) {
    this.#group = group;
  }

  ioctl(task: VfioTask, request: number, argument: IoctlArgument): IoctlResult {
    const group = this.#group;
    switch (request) {
      case VfioRequest.GROUP_GET_STATUS:
        return getStatus(group, argument);
      case VfioRequest.GROUP_SET_CONTAINER: {
        const fd = readFd(argument);
        if (fd === null) return result(Errno.EFAULT);
        return result(group.setContainer(task, task.descriptors.find(fd)));
      }
      case VfioRequest.GROUP_UNSET_CONTAINER:
        return result(group.unsetContainer());
      case VfioRequest.GROUP_GET_DEVICE_FD: {
        const text = readText(argument);
        return typeof text === "number" ? result(text) : group.getDevice(task, text);
      }
      default:
        return result(Errno.ENOTTY);
    }
  }

  release(): void {
    this.#group.released();
  }
}

function getStatus(group: VfioGroup, argument: IoctlArgument): IoctlResult {
  if (typeof argument === "number" || argument.length < GroupStatus.bytes) {
    return result(Errno.EFAULT);
  }
  const bytes = argument.slice();
  const view = viewOf(bytes);
  if (GroupStatus.get.argsz(view, 0) < GroupStatus.bytes) return result(Errno.EINVAL);
  if (group.iommuGroup === null) return result(Errno.ENODEV);
  GroupStatus.set.flags(view, 0, group.flags);
  return { errno: Errno.OK, value: 0, bytes };
}

/** The int that an argument points to, or null. */
function readFd(argument: IoctlArgument): number | null {
  if (typeof argument === "number" || argument.length < 4) return null;
  return viewOf(argument).getInt32(0, true);
}

/** The string that an argument points to; EFAULT when it does not end, EINVAL past a page. */
function readText(argument: IoctlArgument): string | number {
  if (typeof argument === "number") return Errno.EFAULT;
  const end = argument.subarray(0, PAGE_BYTES).indexOf(0);
  if (end < 0) return argument.length < PAGE_BYTES ? Errno.EFAULT : Errno.EINVAL;
  let text = "";
  for (const byte of argument.subarray(0, end)) text += String.fromCharCode(byte);
  return text;
}
