/**
 * A device that may fault, with the real way of its faults: an SMMU that stalls it, or ATS with page
 * requests; the driver's queue, the core, and a handler that maps what is asked for.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { claimGroup } from "../../iommu/attach.ts";
import { IommuDevice } from "../../iommu/device.ts";
import { DomainType, type IommuDomain } from "../../iommu/domain.ts";
import type { PageTableFormat } from "../../iommu/formats/format.ts";
import { IommuGroups } from "../../iommu/groups.ts";
import { HardwareOps } from "../../iommu/hardware-ops.ts";
import { attachGroupHandle } from "../../iommu/iopf/attach-handle.ts";
import { IopfQueue } from "../../iommu/iopf/iopf-queue.ts";
import { PageResponse } from "../../iommu/iopf/page-request.ts";
import { PageRequestQueue } from "../../iommu/iopf/page-request-queue.ts";
import { enablePri, PriInterface } from "../../iommu/iopf/pri-interface.ts";
import { StallQueue } from "../../iommu/iopf/stall-queue.ts";
import { PageTable } from "../../iommu/page-table.ts";
import { NO_PASID } from "../../iommu/tag-array.ts";
import { Outcome, Translation, type TranslationUnit } from "../../iommu/translation-unit.ts";
import type { PagePool } from "../../memory/page-pool.ts";
import type { FaultPort } from "./fault-service.ts";
import type { WalkBill } from "./walk-bill.ts";

/** How a device faults. */
export type FaultKind = "stall" | "pri";

/** What the device is behind. */
export interface FaultingDeviceOptions {
  readonly kind: FaultKind;
  readonly unit: TranslationUnit;
  readonly pool: PagePool;
  readonly format: PageTableFormat;
  readonly node: number;
  readonly rid: number;
  readonly bill: WalkBill;
  /** Maps a page that was asked for. @returns whether it is there */
  map(domain: IommuDomain, iovaPfn: number): boolean;
}

/** The device's domain, and who serves its faults. */
export interface FaultingDevice {
  readonly domain: IommuDomain;
  readonly port: FaultPort;
}

const STALL_MAX = 64;
const REQUESTS_MAX = 32;

/** Makes one, attached. */
export function faultingDevice(options: FaultingDeviceOptions): FaultingDevice {
  const { kind, unit, pool, format, node, rid, bill } = options;
  const iopf = new IopfQueue();
  const queue =
    kind === "stall"
      ? new StallQueue({ unit, iopf, stallMax: STALL_MAX, meter: bill })
      : new PageRequestQueue({ iopf, meter: bill, node });
  const ops = new HardwareOps({
    name: kind,
    unitOf: () => unit,
    createDomain() {
      const table = PageTable.create({ format, pool, node, meter: bill });
      return table === null ? null : { table };
    },
    pageResponse: (device, last, code) => queue.respond(device, last, code),
  });
  const device = new IommuDevice({ name: "device", ops, rid, maxPasids: 0 });
  const groups = new IommuGroups({ defaultType: DomainType.DMA });
  groups.add(device);
  const group = groups.of(device);
  assert(group !== null, "a device has a group");
  claimGroup(group, {});
  const domain = group.allocDomain(DomainType.UNMANAGED);
  assert(typeof domain !== "number", "the driver has a domain");
  domain.iopfHandler = {
    handle: (faults) =>
      faults.defer((work) => {
        const isThere = work.requests.every(({ iovaPfn }) => options.map(domain, iovaPfn));
        work.respond(isThere ? PageResponse.SUCCESS : PageResponse.INVALID);
      }),
  };
  assert(attachGroupHandle(group, { domain }) === Errno.OK, "the device is attached");
  if (queue instanceof StallQueue) {
    assert(queue.enableDevice(group, device) === Errno.OK, "the device can fault");
    return { domain, port: stallPort(queue, iopf, bill) };
  }
  const pri = new PriInterface({ rid, capacity: REQUESTS_MAX, sink: queue });
  unit.devices.ensure(rid);
  queue.connect(pri);
  assert(enablePri(pri, REQUESTS_MAX) === Errno.OK, "page requests are switched on");
  assert(queue.enableDevice(group, device) === Errno.OK, "the device can fault");
  return { domain, port: priPort(queue, pri, iopf) };
}

function stallPort(queue: StallQueue, iopf: IopfQueue, bill: WalkBill): FaultPort {
  const out = new Translation();
  let isReached = false;
  const dma = {
    resumed(found: number) {
      isReached = found === Outcome.MEMORY;
    },
  };
  return {
    serve(rid, iovaPfn, access) {
      isReached = false;
      // The walk that missed is paid already.
      bill.isOff = true;
      const first = queue.access(rid, NO_PASID, iovaPfn, 0, access, out, dma);
      bill.isOff = false;
      if (first === Outcome.MEMORY) return true;
      queue.drain();
      iopf.run();
      return isReached;
    },
  };
}

function priPort(queue: PageRequestQueue, pri: PriInterface, iopf: IopfQueue): FaultPort {
  return {
    serve(_rid, iovaPfn, access) {
      let isThere = false;
      pri.send(NO_PASID, [iovaPfn], access, (code) => {
        isThere = code === PageResponse.SUCCESS;
      });
      queue.drain();
      iopf.run();
      return isThere;
    },
  };
}
