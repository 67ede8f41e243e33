import { describe, expect, it } from "vitest";
import { Errno } from "../errno.ts";
import { AssertionError } from "../errors.ts";
import { DomainType, IommuDomain } from "./domain.ts";
import { faultEventText } from "./events.ts";
import {
  createFaultRecord,
  FaultQueue,
  FaultReason,
  virtioFaultReason,
  vtdFaultReason,
} from "./fault-queue.ts";
import { reportFault, setFaultHandler, vtdFaultLine } from "./fault-report.ts";
import { Prot } from "./prot.ts";
import { NO_PASID } from "./tag-array.ts";

describe("FaultQueue", () => {
  it("gives records back in order, and counts what came while it was full", () => {
    const queue = new FaultQueue(3);
    for (let index = 0; index < 5; index += 1) {
      const kept = queue.put(FaultReason.NOT_PRESENT, 0x3b00 + index, index, 2 ** 40 + index, 1);
      expect(kept).toBe(index < 3);
    }
    expect([queue.count, queue.recorded, queue.lost]).toEqual([3, 3, 2]);
    const record = createFaultRecord();
    for (let index = 0; index < 3; index += 1) {
      expect(queue.take(record)).toBe(true);
      expect(record).toEqual({
        reason: FaultReason.NOT_PRESENT,
        rid: 0x3b00 + index,
        pasid: index,
        iovaPfn: 2 ** 40 + index,
        access: 1,
      });
    }
    expect(queue.take(record)).toBe(false);
  });

  it("has room again after a record was taken, around the end of its ring", () => {
    const queue = new FaultQueue(2);
    const record = createFaultRecord();
    for (let index = 0; index < 7; index += 1) {
      expect(queue.put(FaultReason.NO_WRITE, index, NO_PASID, index, Prot.WRITE)).toBe(true);
      queue.take(record);
      expect(record.rid).toBe(index);
    }
    expect(queue.lost).toBe(0);
  });

  it("refuses to be empty or to hold more than 65536 records", () => {
    expect(() => new FaultQueue(0)).toThrow(AssertionError);
    expect(() => new FaultQueue(65537)).toThrow(AssertionError);
  });
});

describe("reasons", () => {
  it("of a page that is not mapped name the right that VT-d misses", () => {
    expect(vtdFaultReason(FaultReason.NOT_PRESENT, Prot.READ)).toBe(6);
    expect(vtdFaultReason(FaultReason.NOT_PRESENT, Prot.WRITE)).toBe(5);
    expect(vtdFaultReason(FaultReason.NO_DOMAIN, Prot.READ)).toBe(2);
  });

  it("are DOMAIN when unattached and MAPPING when unmapped or forbidden (V119)", () => {
    expect(virtioFaultReason(FaultReason.NO_DOMAIN)).toBe(1);
    for (const reason of [FaultReason.NOT_PRESENT, FaultReason.NO_READ, FaultReason.NO_WRITE]) {
      expect(virtioFaultReason(reason)).toBe(2);
    }
    expect(virtioFaultReason(FaultReason.RESERVED_RANGE)).toBe(2);
    expect(virtioFaultReason(FaultReason.TABLE_ACCESS)).toBe(0);
  });
});

describe("reportFault", () => {
  it("asks the handler of a domain that has one, and always reaches the trace", () => {
    const domain = new IommuDomain(DomainType.UNMANAGED, null);
    const lines: string[] = [];
    const trace = (device: string, pfn: number, flags: number) => {
      lines.push(faultEventText("amd_iommu", device, BigInt(pfn) << 12n, flags));
    };
    expect(reportFault(domain, "0000:3b:00.0", 5, 1, trace)).toBe(Errno.ENOSYS);
    const seen: unknown[] = [];
    const handler = (...args: unknown[]) => {
      seen.push(args);
      return Errno.OK;
    };
    expect(setFaultHandler(domain, handler)).toBe(true);
    expect(reportFault(domain, "0000:3b:00.0", 6, 0, trace)).toBe(Errno.OK);
    expect(seen).toEqual([["0000:3b:00.0", 6, 0]]);
    expect(lines).toEqual([
      "IOMMU:amd_iommu 0000:3b:00.0 iova=0x0000000000005000 flags=0x0001",
      "IOMMU:amd_iommu 0000:3b:00.0 iova=0x0000000000006000 flags=0x0000",
    ]);
  });

  it("does not let a handler onto a domain that the DMA API uses", () => {
    const domain = new IommuDomain(DomainType.DMA, null);
    domain.cookie = { kind: "dma", dma: { initFlushQueue: () => Errno.OK } };
    expect(setFaultHandler(domain, () => Errno.OK)).toBe(false);
    expect(reportFault(domain, "d", 0, 0, () => {})).toBe(Errno.ENOSYS);
  });
});

describe("vtdFaultLine", () => {
  it("names the kind of access, the device, the address and the reason", () => {
    const record = {
      reason: FaultReason.NOT_PRESENT,
      rid: 0x3b09,
      pasid: NO_PASID,
      iovaPfn: 0xf_edcb,
      access: Prot.WRITE,
    };
    expect(vtdFaultLine(0, record)).toBe(
      "DMAR: [DMA Write NO_PASID] Request device [0000:3b:01.1] fault addr 0xfedcb000 " +
        "[fault reason 0x05]",
    );
    expect(vtdFaultLine(1, { ...record, pasid: 18, access: Prot.READ })).toContain(
      "[DMA Read PASID 0x12] Request device [0001:3b:01.1]",
    );
  });
});
