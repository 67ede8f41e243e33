/**
 * A guest's memory that is not pinned when it is mapped: the container only notes it, and each page
 * that a device touches first is faulted in, as proposed in 2021 (docs/io-page-faults.md).
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { PROT_RW } from "../../iommu/prot.ts";
import { addressOf } from "../../units.ts";
import { VfioTask } from "../../vfio/file.ts";
import { connect, mapMemory } from "../../vfio/host/connect.ts";
import { FaultingHost } from "../../vfio/iopf/faulting-host.ts";
import { AddressSpace } from "../../vfio/process/address-space.ts";
import { UserProcess } from "../../vfio/process/user-process.ts";
import { DmaUnmap, Type1Request } from "../../vfio/uapi/type1.ts";
import { meteredTrace } from "../host/metered-domain.ts";
import type { MappingParts, RamPlan, VmMapping } from "./vm-mappings.ts";

const DEVICE = "0000:3b:00.0";
/** Beyond the window for interrupts below 4 GiB. */
const RAM_PAGE = 2 ** 24;
/** Page-table memory: leaves of 4 KiB for 120 GiB. */
const TABLE_BYTES = 2 ** 28;
/** Page requests that a device has outstanding. */
const IN_FLIGHT = 8;

/** One mapping; making it includes the pages that a device touches. */
export function faultedRam(parts: MappingParts, plan: RamPlan): VmMapping {
  const { pages, backing, faulting, isTouched } = plan;
  assert(faulting !== undefined, "memory that faults says how");
  const { meter } = parts;
  const faults = new FaultingHost(
    {
      nodes: [{ memory: TABLE_BYTES }],
      units: [{ name: "dmar0", node: 0 }],
      devices: [{ address: DEVICE, unit: "dmar0" }],
    },
    {
      premap: { pages: faulting.premap },
      inFlight: IN_FLIGHT,
      meter,
      domainTrace: meteredTrace(meter),
    },
  );
  const memory = new AddressSpace({ frames: plan.frames(), meter });
  const errno = memory.mmap({ vpn: RAM_PAGE, pages, backing });
  assert(errno === Errno.OK, "guest memory is whole pages of its kind");
  if (isTouched) assert(memory.touch(RAM_PAGE, pages, true) === Errno.OK, "frames suffice");
  const vmm = new VfioTask({ process: new UserProcess({ memory }) });
  const { fd } = connect(faults.host, vmm, [DEVICE]);
  const enabled = vmm.ioctl(fd, Type1Request.ENABLE_IOPF, 0).errno;
  assert(enabled === Errno.OK, "a fresh container takes faults");
  const iova = addressOf(RAM_PAGE);
  const size = addressOf(pages);
  return {
    map() {
      const mapped = mapMemory(vmm, fd, { iova, vaddr: iova, size });
      if (mapped !== Errno.OK || faulting.touchedPages === 0) return mapped;
      const first = { iovaPfn: RAM_PAGE, pages: faulting.touchedPages, access: PROT_RW };
      faults.start(DEVICE, [first]);
      faults.settle();
      return faults.counts(DEVICE).failed === 0 ? Errno.OK : Errno.ENOMEM;
    },
    unmap() {
      const call = DmaUnmap.bytesOf({ argsz: DmaUnmap.bytes, flags: 0, iova, size });
      return vmm.ioctl(fd, Type1Request.UNMAP_DMA, call).errno;
    },
  };
}
