/**
 * Attaching with a handle, so that page requests find the domain of who attached.
 *
 * Source: drivers/iommu/iommu.c: iommu_attach_group_handle, iommu_detach_group_handle,
 * iommu_replace_group_handle, iommu_attach_device_pasid, iommu_attach_handle_get. A plain
 * iommu_attach_group leaves no handle, which is why type1 could not handle faults even if it tried.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { attachGroup, attachPasid, detachGroup, detachPasid } from "../attach.ts";
import type { IommuDomain } from "../domain.ts";
import type { IommuGroup } from "../group.ts";
import { NO_PASID } from "../tag-array.ts";
import type { AttachHandle } from "./page-request.ts";

/** Attaches a group to the handle's domain. @returns an errno; EBUSY when a handle is there */
export function attachGroupHandle(group: IommuGroup, handle: AttachHandle<IommuDomain>): number {
  if (group.handles.has(NO_PASID)) return Errno.EBUSY;
  const errno = attachGroup(group, handle.domain);
  if (errno === Errno.OK) group.handles.set(NO_PASID, handle);
  return errno;
}

/** Ends {@link attachGroupHandle}. */
export function detachGroupHandle(group: IommuGroup): void {
  assert(group.handles.delete(NO_PASID), "a group detached by handle was attached by one");
  detachGroup(group);
}

/** Moves a group to another handle's domain, without a state between. @returns an errno */
export function replaceGroupHandle(group: IommuGroup, handle: AttachHandle<IommuDomain>): number {
  const errno = group.setDomain(handle.domain);
  if (errno === Errno.OK) group.handles.set(NO_PASID, handle);
  return errno;
}

/** Attaches a PASID to the handle's domain. @returns an errno, as `attachPasid` gives it */
export function attachPasidHandle(
  group: IommuGroup,
  handle: AttachHandle<IommuDomain>,
  pasid: number,
): number {
  const errno = attachPasid(group, handle.domain, pasid);
  if (errno === Errno.OK) group.handles.set(pasid, handle);
  return errno;
}

/** Ends {@link attachPasidHandle}. */
export function detachPasidHandle(group: IommuGroup, pasid: number): void {
  assert(group.handles.delete(pasid), "a PASID detached by handle was attached by one");
  detachPasid(group, pasid);
}
