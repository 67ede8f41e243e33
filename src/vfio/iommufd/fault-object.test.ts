import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { IommuDevice } from "../../iommu/device.ts";
import { DomainType } from "../../iommu/domain.ts";
import { vtdSecondStage } from "../../iommu/formats/vtd-second-stage.ts";
import { IommuGroups } from "../../iommu/groups.ts";
import { HardwareOps } from "../../iommu/hardware-ops.ts";
import { makePool, makeUnit, reach } from "../../iommu/hardware-world.suite.ts";
import { IopfQueue } from "../../iommu/iopf/iopf-queue.ts";
import { pageRequest } from "../../iommu/iopf/page-request.ts";
import { reportDeviceFault } from "../../iommu/iopf/report.ts";
import { PageTable } from "../../iommu/page-table.ts";
import { CountingMeter } from "../../meter.ts";
import { viewOf } from "../../wire/layout.ts";
import { UserProcess } from "../process/user-process.ts";
import { Iommufd } from "./iommufd.ts";
import { FakeMemory } from "./iommufd-world.suite.ts";
import { HwptFlag, HwptPageResponse, HwptPgfault, MapFlag } from "./uapi.ts";

const PAGE = 4096n;
const FIXED = MapFlag.READABLE | MapFlag.WRITEABLE | MapFlag.FIXED_IOVA;

/** A device attached to a table whose faults go to a fault object. */
function faulting(isEnabled = true) {
  const answers: string[] = [];
  const pool = makePool();
  const unit = makeUnit(new CountingMeter());
  const ops = new HardwareOps({
    name: "intel",
    unitOf: () => unit,
    createDomain() {
      const table = PageTable.create({ format: vtdSecondStage({ levels: 4 }), pool, node: 0 });
      return table === null ? null : { table };
    },
    pageResponse: (_device, last, code) => answers.push(`${last.grpid}:${code}`),
  });
  const groups = new IommuGroups({ defaultType: DomainType.DMA });
  const device = new IommuDevice({ name: "0000:3b:00.0", ops, rid: 0x3b00 });
  groups.add(device);
  const group = groups.of(device)!;
  const iopf = new IopfQueue();
  if (isEnabled) iopf.addDevice(device);
  const memory = new FakeMemory();
  const iommufd = new Iommufd({ process: new UserProcess({ memory }) });
  const { ioasId } = iommufd.ioasAlloc();
  const { devId } = iommufd.bind(device, group);
  const { faultId } = iommufd.faultQueueAlloc();
  const flags = HwptFlag.FAULT_ID_VALID;
  const { hwptId } = iommufd.hwptAlloc({ devId, ptId: ioasId, flags, faultId });
  const { errno } = iommufd.attach(devId, hwptId);
  const fault = iommufd.fault(faultId)!;
  /** Reports a group of page requests. */
  const report = (grpid: number, pfns: readonly number[]) => {
    for (const [index, pfn] of pfns.entries()) {
      const isLast = index === pfns.length - 1;
      reportDeviceFault(
        group,
        device,
        pageRequest(pfn, { grpid, ...(isLast ? {} : { flags: 0 }) }),
      );
    }
  };
  return {
    iommufd,
    unit,
    memory,
    answers,
    fault,
    report,
    errno,
    ids: { ioasId, devId, faultId, hwptId },
  };
}

const answer = (cookie: number, code: number) => HwptPageResponse.bytesOf({ cookie, code });
const both = (...parts: Uint8Array[]) => Uint8Array.from(parts.flatMap((part) => [...part]));

describe("a fault object", () => {
  it("gives whole groups of 40-byte records only (row 102)", () => {
    const { fault, report, ids } = faulting();
    report(7, [0x100, 0x101, 0x102]);
    expect(fault.read(80)).toBe(Errno.EINVAL);
    expect(fault.read(41)).toBe(Errno.ESPIPE);
    const bytes = fault.read(120) as Uint8Array;
    expect(bytes).toHaveLength(120);
    const records = [0, 40, 80].map((at) => HwptPgfault.decode(viewOf(bytes), at));
    expect(records.map(({ addr, flags }) => [addr, flags])).toEqual([
      [0x100n * PAGE, 0],
      [0x101n * PAGE, 0],
      [0x102n * PAGE, 2],
    ]);
    const common = { devId: ids.devId, grpid: 7, pasid: 0, perm: 1, length: 0, cookie: 1 };
    for (const record of records) expect(record).toMatchObject(common);
    expect(fault.read(120)).toHaveLength(0);
  });

  it("reads no count that is none, and takes no answers that are no bytes", () => {
    const { fault, report, answers } = faulting();
    report(7, [0x100]);
    const counts: unknown[] = [-40, Number.NaN, Number.POSITIVE_INFINITY, 80n, null, "80"];
    for (const count of [...counts, new Uint8Array(80)]) {
      expect(fault.read(count as number)).toBe(Errno.EINVAL);
    }
    expect([fault.isReadable, fault.read(40)]).toEqual([true, expect.any(Uint8Array)]);
    for (const bytes of [null, 8, [1, 0, 0, 0, 0, 0, 0, 0]] as unknown[]) {
      expect(fault.write(bytes as Uint8Array)).toEqual({ errno: Errno.EFAULT, done: 0 });
    }
    expect(answers).toEqual([]);
  });

  it("takes an answer once, and only success or invalid (row 103)", () => {
    const { fault, report, answers } = faulting();
    report(7, [0x100]);
    fault.read(40);
    expect(fault.write(answer(1, 2))).toEqual({ errno: Errno.EINVAL, done: 0 });
    expect(fault.write(answer(1, 0))).toEqual({ errno: 0, done: 8 });
    expect(fault.write(answer(1, 0))).toEqual({ errno: Errno.EINVAL, done: 0 });
    expect(fault.write(new Uint8Array(7))).toEqual({ errno: Errno.ESPIPE, done: 0 });
    expect(answers).toEqual(["7:0"]);
  });

  it("tells how many answers it took when a later one is wrong", () => {
    const { fault, report, answers } = faulting();
    report(1, [0x100]);
    report(2, [0x200]);
    expect(fault.read(400)).toHaveLength(80);
    const bytes = both(answer(2, 1), answer(9, 0), answer(1, 0));
    expect(fault.write(bytes)).toEqual({ errno: 0, done: 8 });
    expect([answers, fault.unanswered]).toEqual([["2:1"], 1]);
  });

  it("reads as many groups as fit, and leaves the next one", () => {
    const { fault, report } = faulting();
    report(1, [1]);
    report(2, [2, 3]);
    expect(fault.read(80)).toHaveLength(40);
    expect(fault.isReadable).toBe(true);
    expect(fault.read(80)).toHaveLength(80);
  });

  it("answers INVALID what was read and what was not when the device is detached", () => {
    const { fault, report, answers, iommufd, ids } = faulting();
    report(1, [1]);
    report(2, [2]);
    fault.read(40);
    iommufd.detach(ids.devId);
    expect(answers).toEqual(["1:1", "2:1"]);
    expect([fault.isReadable, fault.unanswered]).toEqual([false, 0]);
    expect(fault.write(answer(1, 0)).errno).toBe(Errno.EINVAL);
  });

  it("answers INVALID when the device moves to a table without faults", () => {
    const { report, answers, iommufd, ids } = faulting();
    report(1, [1]);
    expect(iommufd.attach(ids.devId, ids.ioasId).errno).toBe(Errno.OK);
    expect(answers).toEqual(["1:1"]);
    report(2, [2]);
    expect(answers).toEqual(["1:1", "2:1"]);
  });

  it("stays while a table uses it (EBUSY)", () => {
    const { iommufd, ids } = faulting();
    expect(iommufd.destroy(ids.faultId)).toBe(Errno.EBUSY);
    iommufd.detach(ids.devId);
    iommufd.destroy(ids.hwptId);
    expect(iommufd.destroy(ids.faultId)).toBe(Errno.OK);
  });

  it("needs a device that can report page requests (ENODEV)", () => {
    expect(faulting(false).errno).toBe(Errno.ENODEV);
  });

  it("lets a user serve a fault by mapping ahead: later accesses find memory (seed 3)", () => {
    const { fault, report, iommufd, unit, memory, answers, ids } = faulting();
    expect(reach(unit, 0x3b00, 0x205)).toBe(-1);
    report(9, [0x205]);
    const [record] = fault.next(8)!;
    // The user maps the aligned 2 MiB around, of which only this much is pinned.
    const start = record!.addr & ~0x1f_ffffn;
    const call = { ioasId: ids.ioasId, flags: FIXED, userVa: start, iova: start };
    expect(iommufd.ioasMap({ ...call, length: 512n * PAGE }).errno).toBe(Errno.OK);
    expect(fault.respond(record!.cookie, 0)).toBe(Errno.OK);
    expect(answers).toEqual(["9:0"]);
    expect(reach(unit, 0x3b00, 0x205)).toBe(memory.frameOf(0x205));
    expect(reach(unit, 0x3b00, 0x3ff)).toBe(memory.frameOf(0x3ff));
    expect(memory.pins.size).toBe(512);
  });
});
