/**
 * Devices of a user in iommufd, and which page table each group of them is attached to.
 *
 * Devices of one group share a table: the first to come attaches the group, the last one to go
 * detaches it. Source: drivers/iommu/iommufd/device.c: iommufd_device_bind, iommufd_device_unbind,
 * iommufd_hw_pagetable_attach, iommufd_hw_pagetable_detach, iommufd_device_do_replace,
 * iommufd_device_auto_get_domain, iommufd_device_change_pt; iommufd_private.h:
 * iommufd_hw_pagetable_put.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import type { IommuDevice } from "../../iommu/device.ts";
import type { IommuDomain } from "../../iommu/domain.ts";
import type { IommuGroup } from "../../iommu/group.ts";
import {
  attachGroupHandle,
  detachGroupHandle,
  replaceGroupHandle,
} from "../../iommu/iopf/attach-handle.ts";
import type { AttachHandle } from "../../iommu/iopf/page-request.ts";
import { allocHwpt, type Hwpt, type IoasObject } from "./hwpt.ts";
import type { IommufdObject, Objects } from "./objects.ts";

/** What a group is attached with: page requests name the device by it. */
export interface DeviceHandle extends AttachHandle<IommuDomain> {
  readonly device: BoundDevice;
}

/** A group as one iommufd sees it. */
export class GroupState {
  readonly group: IommuGroup;
  /** What it is attached to; null when none of its devices is. */
  table: Hwpt | null = null;
  handle: DeviceHandle | null = null;
  /** Its devices that are attached. */
  readonly attached = new Set<BoundDevice>();

  constructor(group: IommuGroup) {
    this.group = group;
  }
}

/** A device that a user has. */
export class BoundDevice implements IommufdObject {
  readonly kind = "device";
  id = 0;
  /** The driver that bound it needs it. */
  users = 1;
  readonly device: IommuDevice;
  readonly state: GroupState;

  constructor(device: IommuDevice, state: GroupState) {
    this.device = device;
    this.state = state;
  }

  get isAttached(): boolean {
    return this.state.attached.has(this);
  }

  destroy(): void {
    assert(!this.isAttached, "a device unbound is attached to nothing");
  }
}

/** Attaching or moving a device: gives the table that it left, or null, or an errno. */
type Attach = (device: BoundDevice, table: Hwpt) => Hwpt | null | number;

/** Attaches a device to the table, or to a table of the IOAS, that a number names. */
export function attachDevice(objects: Objects, device: BoundDevice, id: number): AttachReply {
  return changeTable(objects, device, id, attachTable);
}

/** Moves a device, and its group, to another table or IOAS without a state between. */
export function replaceDevice(objects: Objects, device: BoundDevice, id: number): AttachReply {
  return changeTable(objects, device, id, replaceTable);
}

/** What an attach gives. */
export interface AttachReply {
  readonly errno: number;
  /** The table that the device is on now. */
  readonly ptId: number;
}

/** Takes a device off its table; the last one of its group takes the group off. */
export function detachDevice(objects: Objects, device: BoundDevice): void {
  const { state } = device;
  const { table, handle } = state;
  assert(device.isAttached, "a device detached is attached");
  assert(table !== null, "a device detached is attached");
  state.attached.delete(device);
  if (state.attached.size === 0) {
    detachGroupHandle(state.group);
    table.fault?.abandon(handle!);
    state.table = null;
    state.handle = null;
  }
  table.ioas.ioas.space.unreserve(device);
  putTable(objects, table);
}

function changeTable(
  objects: Objects,
  device: BoundDevice,
  id: number,
  attach: Attach,
): AttachReply {
  const object = objects.any(id);
  if (object === null) return { errno: Errno.ENOENT, ptId: 0 };
  let left: Hwpt | null | number = Errno.EINVAL;
  if (object.kind === "hwpt") left = attach(device, object as Hwpt);
  if (object.kind === "ioas") left = attachAuto(objects, device, object as IoasObject, attach);
  if (typeof left === "number") return { errno: left, ptId: 0 };
  const ptId = device.state.table!.id;
  if (left !== null) putTable(objects, left);
  return { errno: Errno.OK, ptId };
}

/** Attaches to the first table of the IOAS that the device's IOMMU can use, or to a new one. */
function attachAuto(
  objects: Objects,
  device: BoundDevice,
  ioas: IoasObject,
  attach: Attach,
): Hwpt | null | number {
  for (const table of ioas.tables) {
    if (!table.isAuto) continue;
    const left = attach(device, table);
    // EINVAL says that the hardware differs, and another table may do.
    if (left !== Errno.EINVAL) return left;
  }
  if (!objects.hasRoom) return Errno.ENOMEM;
  const isFirst = attach === attachTable;
  let first: AttachedDomain | null = null;
  const table = allocHwpt(ioas, device.device, 0, {
    to(domain) {
      if (!isFirst) return Errno.OK;
      const outcome = attachDomain(device, domain, ioas);
      if (typeof outcome === "number") return outcome;
      first = outcome;
      return Errno.OK;
    },
    undo() {
      if (first !== null) undoAttach(device, ioas, first);
    },
  });
  if (typeof table === "number") return table;
  let left: Hwpt | null | number = null;
  if (isFirst) settle(device, table, first!);
  else left = attach(device, table);
  if (typeof left === "number") {
    table.destroy();
    return left;
  }
  table.isAuto = true;
  objects.add(table);
  return left;
}

/** A domain that a device is on, before the table around it is there. */
interface AttachedDomain {
  /** Null when another device of the group had it attached. */
  readonly handle: DeviceHandle | null;
}

function attachTable(device: BoundDevice, table: Hwpt): null | number {
  const outcome = attachDomain(device, table.domain, table.ioas);
  if (typeof outcome === "number") return outcome;
  settle(device, table, outcome);
  return null;
}

function attachDomain(
  device: BoundDevice,
  domain: IommuDomain,
  { ioas }: IoasObject,
): AttachedDomain | number {
  const { state } = device;
  if (device.isAttached) return Errno.EBUSY;
  if (state.table !== null && state.table.domain !== domain) return Errno.EINVAL;
  const regions = device.device.ops!.reservedRegions(device.device);
  const errno = ioas.reserveRegions(regions, device);
  if (errno !== Errno.OK) return errno;
  if (state.table !== null) return { handle: null };
  const handle: DeviceHandle = { domain, device };
  const attachErrno = canFault(device, domain) ? attachGroupHandle(state.group, handle) : ENODEV;
  if (attachErrno === Errno.OK) return { handle };
  ioas.space.unreserve(device);
  return attachErrno;
}

function undoAttach(device: BoundDevice, { ioas }: IoasObject, attached: AttachedDomain): void {
  if (attached.handle !== null) detachGroupHandle(device.state.group);
  ioas.space.unreserve(device);
}

function settle(device: BoundDevice, table: Hwpt, { handle }: AttachedDomain): void {
  const { state } = device;
  if (handle !== null) {
    state.table = table;
    state.handle = handle;
  }
  state.attached.add(device);
  table.users += 1;
}

function replaceTable(device: BoundDevice, table: Hwpt): Hwpt | null | number {
  const { state } = device;
  const old = state.table;
  if (old === null || !device.isAttached) return Errno.EINVAL;
  if (old === table) return null;
  if (table.domain.owner !== state.group.ops) return Errno.EINVAL;
  const movesIoas = table.ioas !== old.ioas;
  if (movesIoas) {
    const errno = reserveForGroup(state, table);
    if (errno !== Errno.OK) return errno;
  }
  const handle: DeviceHandle = { domain: table.domain, device };
  const errno = canFault(device, table.domain) ? replaceGroupHandle(state.group, handle) : ENODEV;
  if (errno !== Errno.OK) {
    if (movesIoas) for (const each of state.attached) table.ioas.ioas.space.unreserve(each);
    return errno;
  }
  old.fault?.abandon(state.handle!);
  if (movesIoas) for (const each of state.attached) old.ioas.ioas.space.unreserve(each);
  state.table = table;
  state.handle = handle;
  table.users += state.attached.size;
  // One of the users is left for the caller to put.
  old.users -= state.attached.size - 1;
  return old;
}

function reserveForGroup(state: GroupState, table: Hwpt): number {
  const { ioas } = table.ioas;
  for (const each of state.attached) {
    const errno = ioas.reserveRegions(each.device.ops!.reservedRegions(each.device), each);
    if (errno === Errno.OK) continue;
    for (const undone of state.attached) ioas.space.unreserve(undone);
    return errno;
  }
  return Errno.OK;
}

const { ENODEV } = Errno;

/** Whether a device can report the page requests that a domain wants to hear of. */
function canFault(device: BoundDevice, domain: IommuDomain): boolean {
  return domain.iopfHandler === null || device.device.faultParam !== null;
}

/** One user of a table fewer; one that was made for its devices goes with the last of them. */
function putTable(objects: Objects, table: Hwpt): void {
  table.users -= 1;
  if (table.isAuto && table.users === 0) objects.remove(table);
}
