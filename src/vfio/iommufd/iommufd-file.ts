/**
 * /dev/iommu as a file: its ioctls, and its part as the container of groups for programs that know
 * VFIO's containers only.
 *
 * Bound devices, fault files and groups keep it open beyond its descriptors. Source:
 * drivers/iommu/iommufd/main.c: iommufd_fops_open, iommufd_fops_release, iommufd_ctx_from_file;
 * drivers/vfio/iommufd.c: vfio_df_iommufd_bind, vfio_iommufd_compat_attach_ioas,
 * vfio_iommufd_emulated_bind; vfio_compat.c:iommufd_vfio_compat_ioas_create.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import type { IommuGroup } from "../../iommu/group.ts";
import { type Meter, NULL_METER, Step } from "../../meter.ts";
import { pagesOf, pfnOf } from "../../units.ts";
import type { VfioDevice } from "../device-file.ts";
import {
  type FileOperations,
  type IoctlArgument,
  type IoctlResult,
  OpenFile,
  type VfioTask,
} from "../file.ts";
import type { GroupHolder, HolderFile, VfioGroup } from "../group.ts";
import type { Access } from "./access.ts";
import { FaultFile } from "./fault-file.ts";
import { iommufdIoctl, isIommufdRequest } from "./ioctl.ts";
import { Iommufd, type IommufdOptions } from "./iommufd.ts";
import { type MappableFile, NOTHING_MAPPABLE } from "./map.ts";
import { compatIoctl } from "./vfio-compat.ts";

/** How the file is opened. */
export interface IommufdFileOptions extends Omit<IommufdOptions, "process"> {
  readonly meter?: Meter;
}

/** A file that IOAS_MAP_FILE can map. */
export interface MappableOperations extends FileOperations {
  readonly mappable: MappableFile;
}

/** How a device is known here. */
type Binding = { readonly devId: number } | { readonly access: Access };

/** The file. */
export class IommufdFile implements HolderFile, GroupHolder {
  readonly groupHolder = this;
  readonly iommufd: Iommufd;
  readonly #meter: Meter;
  readonly #bindings = new Map<VfioDevice, Binding>();
  readonly #iommuGroups = new Map<VfioDevice, IommuGroup>();
  #references = 1;

  constructor(options: IommufdFileOptions = {}) {
    this.iommufd = new Iommufd(options);
    this.#meter = options.meter ?? NULL_METER;
  }

  ioctl(task: VfioTask, request: number, argument: IoctlArgument): IoctlResult {
    const { iommufd } = this;
    iommufd.caller = { ...iommufd.caller, process: task.process };
    this.#meter.step(Step.userCall, 1, 0);
    if (!isIommufdRequest(request)) return compatIoctl(iommufd, request, argument);
    const bytes = typeof argument === "number" ? new Uint8Array(0) : argument;
    const context = {
      memory: task.userMemory,
      fileOf: (fd: number) => mappableOf(task, fd),
      openFault: (faultId: number) => this.#openFault(task, faultId),
    };
    return { ...iommufdIoctl(iommufd, context, request, bytes), value: 0 };
  }

  release(): void {
    this.put();
  }

  /** Keeps the file open. */
  get(): this {
    this.#references += 1;
    return this;
  }

  /** Ends one {@link get}; with the last one everything ends. */
  put(): void {
    assert(this.#references > 0, "a file is closed once");
    this.#references -= 1;
    if (this.#references === 0) this.iommufd.close();
  }

  /** A group of a program that takes this for a container: it gets an IOAS, if there is none. */
  attachGroup(group: VfioGroup): number {
    // Groups without an IOMMU would need a mode in which nothing else works.
    if (group.type === "no-iommu") return Errno.EINVAL;
    if (this.iommufd.vfioIoas === null) {
      const { errno, ioasId } = this.iommufd.ioasAlloc();
      if (errno !== Errno.OK) return errno;
      this.iommufd.vfioIoas = this.iommufd.ioas(ioasId);
    }
    for (const device of group.devices) this.#iommuGroups.set(device, group.iommuGroup!);
    this.get();
    return Errno.OK;
  }

  detachGroup(group: VfioGroup): void {
    for (const device of group.devices) this.#iommuGroups.delete(device);
    this.put();
  }

  useGroup(): number {
    return Errno.OK;
  }

  /** A device of such a group is opened: it is bound, and attached to the IOAS for containers. */
  addDevice(device: VfioDevice): number {
    const ioas = this.iommufd.vfioIoas;
    const group = this.#iommuGroups.get(device);
    assert(group !== undefined, "a device opened belongs to a group attached");
    const errno = this.bindDevice(device, group);
    if (errno !== Errno.OK) return errno;
    const attachErrno = ioas === null ? Errno.ENODEV : this.attachDevice(device, ioas.id).errno;
    if (attachErrno !== Errno.OK) this.removeDevice(device);
    return attachErrno;
  }

  /** A device is closed. */
  removeDevice(device: VfioDevice): void {
    const binding = this.#bindingOf(device);
    this.#bindings.delete(device);
    if ("devId" in binding) this.iommufd.unbind(binding.devId);
    else this.iommufd.destroyAccess(binding.access.id);
  }

  /** Binds a device. @returns what {@link Iommufd.bind} gives */
  bindDevice(device: VfioDevice, group: IommuGroup): number {
    assert(!this.#bindings.has(device), "a device is bound once");
    if (device.isEmulated === true) {
      const { errno, accessId } = this.iommufd.createAccess({
        unmap: (iova, length) => unmapEmulated(device, iova, length),
      });
      if (errno === Errno.OK) {
        this.#bindings.set(device, { access: this.iommufd.access(accessId) });
      }
      return errno;
    }
    const { errno, devId } = this.iommufd.bind(device.iommuDevice, group);
    if (errno === Errno.OK) this.#bindings.set(device, { devId });
    return errno;
  }

  /** Number of a device that is bound. */
  idOf(device: VfioDevice): number {
    const binding = this.#bindingOf(device);
    return "devId" in binding ? binding.devId : binding.access.id;
  }

  /** Attaches a device to a table or an IOAS. @returns an errno, and the table's number */
  attachDevice(device: VfioDevice, ptId: number): { errno: number; ptId: number } {
    const binding = this.#bindingOf(device);
    if ("devId" in binding) return this.iommufd.attach(binding.devId, ptId);
    return { errno: this.iommufd.attachAccess(binding.access.id, ptId), ptId };
  }

  detachDevice(device: VfioDevice): void {
    const binding = this.#bindingOf(device);
    if ("devId" in binding) this.iommufd.detach(binding.devId);
    else binding.access.moveTo(null);
  }

  /** Through what an emulated device gets at memory; null of another or one that is not bound. */
  accessOf(device: VfioDevice): Access | null {
    const binding = this.#bindings.get(device);
    return binding !== undefined && "access" in binding ? binding.access : null;
  }

  #bindingOf(device: VfioDevice): Binding {
    const binding = this.#bindings.get(device);
    assert(binding !== undefined, "the device is bound");
    return binding;
  }

  #openFault(task: VfioTask, faultId: number): number {
    const fault = this.iommufd.fault(faultId)!;
    const file = new OpenFile(new FaultFile(fault, this));
    const { errno, value } = task.descriptors.install(file);
    if (errno === Errno.OK) return value;
    file.put();
    return -errno;
  }
}

function mappableOf(task: VfioTask, fd: number): MappableFile | null {
  const file = task.descriptors.find(fd);
  if (file === null) return null;
  return (file.operations as Partial<MappableOperations>).mappable ?? NOTHING_MAPPABLE;
}

function unmapEmulated(device: VfioDevice, iova: bigint, length: bigint): void {
  device.pinning?.dmaUnmap(pfnOf(iova), pagesOf(Number(length)));
}
