/**
 * What becomes of a fault above the hardware: a domain's handler, the trace event, the log line.
 *
 * Source: drivers/iommu/iommu.c: report_iommu_fault, iommu_set_fault_handler;
 * drivers/iommu/intel/dmar.c:dmar_fault_do_one; drivers/iommu/amd/iommu.c:
 * amd_iommu_report_page_fault. VT-d, SMMUv3 and virtio-iommu only log; AMD and SMMUv2 report.
 */
import { Errno } from "../errno.ts";
import { addressOf, hex } from "../units.ts";
import type { FaultHandler, IommuDomain } from "./domain.ts";
import { type FaultRecord, vtdFaultReason } from "./fault-queue.ts";
import { pciName } from "./pci-function.ts";
import { Prot } from "./prot.ts";
import { NO_PASID } from "./tag-array.ts";

/** Sets who hears of a domain's faults. @returns false when the domain is in use for anything */
export function setFaultHandler(domain: IommuDomain, handle: FaultHandler): boolean {
  if (domain.cookie.kind !== "none") return false;
  domain.cookie = { kind: "fault-handler", handle };
  return true;
}

/**
 * Reports a fault to a domain's handler and to the trace.
 *
 * @param flags - 0 for a read, 1 for a write
 * @param trace - hears of it, handled or not
 * @returns what the handler said, ENOSYS without one
 */
export function reportFault(
  domain: IommuDomain,
  device: string,
  iovaPfn: number,
  flags: number,
  trace: (device: string, iovaPfn: number, flags: number) => void,
): number {
  const { cookie } = domain;
  const errno =
    cookie.kind === "fault-handler" ? cookie.handle(device, iovaPfn, flags) : Errno.ENOSYS;
  trace(device, iovaPfn, flags);
  return errno;
}

/** A fault record as the VT-d driver logs it, up to the words for the reason. */
export function vtdFaultLine(segment: number, record: FaultRecord): string {
  const isWrite = (record.access & Prot.WRITE) !== 0;
  const pasid = record.pasid === NO_PASID ? "NO_PASID" : `PASID ${hex(record.pasid)}`;
  const device = pciName({ segment, bus: record.rid >> 8, devfn: record.rid & 255 });
  const reason = vtdFaultReason(record.reason, record.access);
  return (
    `DMAR: [DMA ${isWrite ? "Write" : "Read"} ${pasid}] Request device [${device}] ` +
    `fault addr ${hex(addressOf(record.iovaPfn))} [fault reason ${hex(reason, 2)}]`
  );
}
