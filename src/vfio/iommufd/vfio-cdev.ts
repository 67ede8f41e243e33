/**
 * /dev/vfio/devices/vfioN: a device's own file, which needs no group and no container but an
 * iommufd to be bound to.
 *
 * Source: drivers/vfio/device_cdev.c: vfio_df_ioctl_bind_iommufd, vfio_df_ioctl_attach_pt,
 * vfio_df_ioctl_detach_pt, vfio_df_unbind_iommufd; vfio_main.c:vfio_device_fops_unl_ioctl;
 * include/uapi/linux/vfio.h. PASIDs of a device and VF tokens are refused.
 */
import { Errno } from "../../errno.ts";
import { type Layout, layout, viewOf } from "../../wire/layout.ts";
import type { VfioDevice } from "../device-file.ts";
import {
  type FileOperations,
  type IoctlArgument,
  type IoctlResult,
  result,
  type VfioTask,
} from "../file.ts";
import type { VfioGroup } from "../group.ts";
import { IommufdFile } from "./iommufd-file.ts";
import type { Fields } from "./uapi.ts";

/** Request numbers. */
export const CdevRequest = {
  BIND_IOMMUFD: 0x3b76,
  ATTACH_IOMMUFD_PT: 0x3b77,
  DETACH_IOMMUFD_PT: 0x3b78,
} as const;

const argsz = { kind: "u32", at: 0, doc: "size of the structure" } as const;
const flags = { kind: "u32", at: 4, doc: "bit 0 announces what is behind these fields" } as const;

export const BindIommufd = layout("vfio_device_bind_iommufd", 16, {
  argsz,
  flags,
  iommufd: { kind: "u32", at: 8, doc: "descriptor of /dev/iommu" },
  outDevid: { kind: "u32", at: 12, doc: "number of the device in the iommufd" },
});

export const AttachIommufdPt = layout("vfio_device_attach_iommufd_pt", 12, {
  argsz,
  flags,
  ptId: { kind: "u32", at: 8, doc: "in: page table or IOAS; out: the page table" },
});

export const DetachIommufdPt = layout("vfio_device_detach_iommufd_pt", 8, { argsz, flags });

/** The flag that announces a PASID, or of BIND_IOMMUFD a token. */
const MORE = 1;

/** A device that has such a file. */
export class VfioCdev {
  readonly device: VfioDevice;
  readonly group: VfioGroup;
  /** Whether one of its files is bound; there can be one only. */
  isBound = false;

  constructor(device: VfioDevice, group: VfioGroup) {
    this.device = device;
    this.group = group;
  }

  /** open(2). @returns a descriptor, or EMFILE */
  open(task: VfioTask): IoctlResult {
    return task.open(new CdevFile(this));
  }
}

/** An open file of the device. */
class CdevFile implements FileOperations {
  readonly #cdev: VfioCdev;
  #file: IommufdFile | null = null;

  constructor(cdev: VfioCdev) {
    this.#cdev = cdev;
  }

  ioctl(task: VfioTask, request: number, argument: IoctlArgument): IoctlResult {
    const bytes = typeof argument === "number" ? new Uint8Array(0) : argument;
    if (request === CdevRequest.BIND_IOMMUFD) return this.#bind(task, bytes);
    // Nothing works before the device is bound.
    const file = this.#file;
    if (file === null) return result(Errno.EINVAL);
    if (request === CdevRequest.ATTACH_IOMMUFD_PT) return this.#attach(file, bytes);
    if (request === CdevRequest.DETACH_IOMMUFD_PT) return this.#detach(file, bytes);
    return this.#cdev.device.ioctl?.(task, request, argument) ?? result(Errno.ENOTTY);
  }

  release(): void {
    const { device, group } = this.#cdev;
    const file = this.#file;
    if (file === null) return;
    device.close?.();
    file.removeDevice(device);
    file.put();
    this.#cdev.isBound = false;
    group.cdevOpenCount -= 1;
  }

  #bind(task: VfioTask, bytes: Uint8Array): IoctlResult {
    const view = viewOf(bytes);
    const errno = checkHead(BindIommufd, bytes);
    if (errno !== Errno.OK) return result(errno);
    const { group, device } = this.#cdev;
    const fd = BindIommufd.get.iommufd(view, 0);
    if (hasFlag(bytes) || fd > 0x7fff_ffff) return result(Errno.EINVAL);
    if (group.isOpen) return result(Errno.EBUSY);
    if (this.#file !== null) return result(Errno.EINVAL);
    const operations = task.descriptors.find(fd)?.operations ?? null;
    if (operations === null) return result(Errno.EBADF);
    if (!(operations instanceof IommufdFile)) return result(Errno.EBADFD);
    if (this.#cdev.isBound) return result(Errno.EINVAL);
    const bindErrno = operations.bindDevice(device, group.iommuGroup!);
    if (bindErrno !== Errno.OK) return result(bindErrno);
    const openErrno = device.open?.() ?? Errno.OK;
    if (openErrno !== Errno.OK) {
      operations.removeDevice(device);
      return result(openErrno);
    }
    this.#file = operations.get();
    this.#cdev.isBound = true;
    group.cdevOpenCount += 1;
    const out = bytes.slice();
    BindIommufd.set.outDevid(viewOf(out), 0, operations.idOf(device));
    return { errno: Errno.OK, value: 0, bytes: out };
  }

  #attach(file: IommufdFile, bytes: Uint8Array): IoctlResult {
    const errno = checkHead(AttachIommufdPt, bytes);
    if (errno !== Errno.OK) return result(errno);
    if (hasFlag(bytes)) return result(Errno.EOPNOTSUPP);
    const out = bytes.slice();
    const view = viewOf(out);
    const reply = file.attachDevice(this.#cdev.device, AttachIommufdPt.get.ptId(view, 0));
    if (reply.errno !== Errno.OK) return result(reply.errno);
    AttachIommufdPt.set.ptId(view, 0, reply.ptId);
    return { errno: Errno.OK, value: 0, bytes: out };
  }

  #detach(file: IommufdFile, bytes: Uint8Array): IoctlResult {
    const errno = checkHead(DetachIommufdPt, bytes);
    if (errno !== Errno.OK) return result(errno);
    if (hasFlag(bytes)) return result(Errno.EOPNOTSUPP);
    file.detachDevice(this.#cdev.device);
    return result(Errno.OK);
  }
}

/** Whether a structure is there, as long as it must be, and has no flag that nobody knows. */
function checkHead(shape: Layout<Fields>, bytes: Uint8Array): number {
  if (bytes.length < shape.bytes) return Errno.EFAULT;
  const view = viewOf(bytes);
  if (view.getUint32(0, true) < shape.bytes) return Errno.EINVAL;
  return (view.getUint32(4, true) & ~MORE) === 0 ? Errno.OK : Errno.EINVAL;
}

function hasFlag(bytes: Uint8Array): boolean {
  return (viewOf(bytes).getUint32(4, true) & MORE) !== 0;
}
