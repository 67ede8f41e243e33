/**
 * How a page request finds who handles it.
 *
 * Source: drivers/iommu/io-pgfault.c: iommu_report_device_fault, find_fault_handler,
 * report_partial_fault, iopf_group_alloc, iopf_error_response.
 */
import { Errno } from "../../errno.ts";
import type { IommuDevice } from "../device.ts";
import { DomainType, type IommuDomain } from "../domain.ts";
import type { IommuGroup } from "../group.ts";
import { NO_PASID } from "../tag-array.ts";
import { FaultGroup, PARTIALS_MAX, PENDING_MAX } from "./fault-group.ts";
import {
  type AttachHandle,
  type PageRequest,
  PageRequestFlag,
  PageResponse,
} from "./page-request.ts";

/**
 * Reports a page request of a device.
 *
 * @returns 0 when the request is kept, handled, or answered with FAILURE for lack of memory or
 *   because its handler refused; EINVAL when nobody handles it, which is answered with INVALID;
 *   ENOMEM when a request that is not the last of its group could not be kept, without an answer
 */
export function reportDeviceFault(
  group: IommuGroup,
  device: IommuDevice,
  request: PageRequest,
): number {
  const handle = findHandle(group, device, request);
  const param = device.faultParam;
  const handler = handle?.domain.iopfHandler ?? null;
  if (handle === null || handler === null || param === null) {
    device.ops?.pageResponse?.(device, request, PageResponse.INVALID);
    return Errno.EINVAL;
  }
  const { queue } = param;
  if ((request.flags & PageRequestFlag.LAST_PAGE) === 0) {
    if (param.partial.length === PARTIALS_MAX || !queue.allows("partial")) return Errno.ENOMEM;
    param.partial.push(request);
    return Errno.OK;
  }
  const requests = param.partial.length === 0 ? [] : param.takePartials(request.grpid);
  requests.push(request);
  const faults = new FaultGroup(param, handle, requests);
  const hasRoom = param.pending.length <= PENDING_MAX && queue.allows("group");
  const errno = hasRoom ? handler.handle(faults) : Errno.ENOMEM;
  if (errno !== Errno.OK) faults.respond(PageResponse.FAILURE);
  return Errno.OK;
}

/** What the faulting device or PASID was attached with; null when nobody left a handle. */
function findHandle(
  group: IommuGroup,
  device: IommuDevice,
  request: PageRequest,
): AttachHandle<IommuDomain> | null {
  if ((request.flags & PageRequestFlag.PASID_VALID) === 0) {
    return group.handles.get(NO_PASID) ?? null;
  }
  // Linux keeps the requester's own handle under PASID 0, so a request with PASID 0 finds it.
  const ofPasid = group.handles.get(request.pasid === 0 ? NO_PASID : request.pasid);
  if (ofPasid !== undefined) return ofPasid;
  // Where the user manages the PASID table, faults of all PASIDs are the nested domain's.
  if (device.ops?.userPasidTable !== true) return null;
  const ofRid = group.handles.get(NO_PASID);
  return ofRid?.domain.type === DomainType.NESTED ? ofRid : null;
}
