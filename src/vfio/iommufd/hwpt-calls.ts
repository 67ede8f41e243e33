/**
 * The calls about hardware page tables and the hardware itself: HWPT_ALLOC and GET_HW_INFO.
 *
 * Source: drivers/iommu/iommufd/hw_pagetable.c:iommufd_hwpt_alloc; device.c:iommufd_get_hw_info.
 */
import { Errno } from "../../errno.ts";
import { log2Floor } from "../../units.ts";
import type { BoundDevice } from "./device.ts";
import type { FaultObject } from "./fault-object.ts";
import { allocHwpt, type IoasObject } from "./hwpt.ts";
import type { Objects } from "./objects.ts";
import * as uapi from "./uapi.ts";

/** What GET_HW_INFO gives. */
export interface HardwareInfo {
  readonly errno: number;
  readonly capabilities: bigint;
  readonly maxPasidLog2: number;
}

/** HWPT_ALLOC. @returns an errno, and the number of the table */
export function allocTable(
  objects: Objects,
  call: uapi.Input<typeof uapi.HwptAlloc.fields>,
): { errno: number; hwptId: number } {
  const { flags = 0, devId = 0, ptId = 0, dataType = 0, dataLen = 0, faultId = 0 } = call;
  const failed = (errno: number) => ({ errno, hwptId: 0 });
  if ((call.reserved0 ?? 0) !== 0) return failed(Errno.EOPNOTSUPP);
  if ((dataType === 0) !== (dataLen === 0)) return failed(Errno.EINVAL);
  const device = objects.find(devId, "device") as BoundDevice | null;
  if (device === null) return failed(Errno.ENOENT);
  const parent = objects.any(ptId);
  if (parent === null || (parent.kind !== "ioas" && parent.kind !== "hwpt")) {
    return failed(Errno.EINVAL);
  }
  if (!objects.hasRoom) return failed(Errno.ENOMEM);
  // Tables of guests, which have driver data and lie on another table, are not there.
  if (parent.kind === "hwpt") return failed(dataType === 0 ? Errno.EINVAL : Errno.EOPNOTSUPP);
  if (dataType !== 0) return failed(Errno.EOPNOTSUPP);
  const table = allocHwpt(parent as IoasObject, device.device, flags, null);
  if (typeof table === "number") return failed(table);
  if ((flags & uapi.HwptFlag.FAULT_ID_VALID) !== 0) {
    const fault = objects.find(faultId, "fault") as FaultObject | null;
    if (fault === null) {
      table.destroy();
      return failed(Errno.ENOENT);
    }
    table.setFault(fault);
  }
  objects.add(table);
  return { errno: Errno.OK, hwptId: table.id };
}

/** GET_HW_INFO. */
export function hardwareInfo(
  objects: Objects,
  call: uapi.Input<typeof uapi.HwInfo.fields>,
): HardwareInfo {
  const isReserved = (call.reserved0 ?? []).some((byte) => byte !== 0);
  const none = { capabilities: 0n, maxPasidLog2: 0 };
  if ((call.flags ?? 0) !== 0 || isReserved) return { errno: Errno.EOPNOTSUPP, ...none };
  const bound = objects.find(call.devId ?? 0, "device") as BoundDevice | null;
  if (bound === null) return { errno: Errno.ENOENT, ...none };
  const { device } = bound;
  const tracks = device.ops!.capable?.(device, "dirty-tracking") ?? false;
  return {
    errno: Errno.OK,
    capabilities: tracks ? uapi.HW_CAP_DIRTY_TRACKING : 0n,
    maxPasidLog2: device.maxPasids > 0 ? log2Floor(device.maxPasids) : 0,
  };
}
