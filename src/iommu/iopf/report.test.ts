import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { AssertionError } from "../../errors.ts";
import { IommuDevice } from "../device.ts";
import { DomainType, IommuDomain } from "../domain.ts";
import { NO_PASID } from "../tag-array.ts";
import { attachPasidHandle, detachGroupHandle, detachPasidHandle } from "./attach-handle.ts";
import { type FaultGroup, PARTIALS_MAX, PENDING_MAX } from "./fault-group.ts";
import { IopfQueue } from "./iopf-queue.ts";
import { makeIopfWorld } from "./iopf-world.suite.ts";
import { PageRequestFlag, PageResponse, pageRequest } from "./page-request.ts";
import { reportDeviceFault } from "./report.ts";
import { SvaHandler } from "./sva-handler.ts";

const { SUCCESS, INVALID, FAILURE } = PageResponse;

/** A world whose handler keeps what it is given. */
function setup(errno = 0) {
  const taken: FaultGroup[] = [];
  const world = makeIopfWorld({
    handle(group) {
      if (errno === 0) taken.push(group);
      return errno;
    },
  });
  expect(world.iopf.addDevice(world.device)).toBe(Errno.OK);
  const report = (pfn: number, parts = {}) =>
    reportDeviceFault(world.group, world.device, pageRequest(pfn, parts));
  return { ...world, world, taken, report, codes: () => world.answers.map(({ code }) => code) };
}

describe("reportDeviceFault", () => {
  it("row 99: a PASID without a handle is answered INVALID, and is EINVAL", () => {
    const { report, answers, taken } = setup();
    expect(report(5, { pasid: 3, grpid: 7 })).toBe(Errno.EINVAL);
    expect(answers).toEqual([{ device: "0000:3b:00.0", grpid: 7, pasid: 3, code: INVALID }]);
    expect(taken).toEqual([]);
  });

  it("row 100: a request that is not the last gets no answer until its group is complete", () => {
    const { report, answers, taken } = setup();
    expect(report(5, { flags: 0, grpid: 7 })).toBe(Errno.OK);
    expect(report(9, { flags: 0, grpid: 8 })).toBe(Errno.OK);
    expect(report(6, { flags: 0, grpid: 7 })).toBe(Errno.OK);
    expect([taken.length, answers.length]).toEqual([0, 0]);
    expect(report(7, { grpid: 7 })).toBe(Errno.OK);
    expect(taken[0]!.requests.map(({ iovaPfn }) => iovaPfn)).toEqual([5, 6, 7]);
    expect(answers).toEqual([]);
    expect(taken[0]!.respond(SUCCESS)).toBe(true);
    expect(answers.map(({ grpid, code }) => [grpid, code])).toEqual([[7, SUCCESS]]);
    expect(report(1, { grpid: 8 })).toBe(Errno.OK);
    expect(taken[1]!.requests.map(({ iovaPfn }) => iovaPfn)).toEqual([9, 1]);
  });

  it("row 101: a handler that refuses makes the answer FAILURE and the result 0", () => {
    const { report, codes } = setup(Errno.EBUSY);
    expect(report(5)).toBe(Errno.OK);
    expect(codes()).toEqual([FAILURE]);
  });

  it("row 101: a group that cannot be allocated takes its partial requests along", () => {
    const { world, device, report, codes, taken } = setup();
    report(5, { flags: 0, grpid: 2 });
    world.allocations = 0;
    expect(report(6, { grpid: 2 })).toBe(Errno.OK);
    expect(codes()).toEqual([FAILURE]);
    expect(device.faultParam!.partial).toEqual([]);
    expect(device.faultParam!.pending.length).toBe(0);
    world.allocations = 9;
    report(7, { grpid: 2 });
    expect(taken[0]!.requests.length).toBe(1);
  });

  it("a request that cannot be kept for later is ENOMEM without an answer", () => {
    const { world, report, codes } = setup();
    world.allocations = 0;
    expect(report(6, { flags: 0 })).toBe(Errno.ENOMEM);
    expect(codes()).toEqual([]);
  });

  it("a device that never completes a group, or never waits, is kept within bounds", () => {
    const { device, report, codes, taken } = setup();
    for (let index = 0; index < PARTIALS_MAX; index += 1) report(index, { flags: 0, grpid: 1 });
    expect(report(1, { flags: 0, grpid: 1 })).toBe(Errno.ENOMEM);
    expect(device.faultParam!.partial.length).toBe(PARTIALS_MAX);
    expect(report(1, { grpid: 1 })).toBe(Errno.OK);
    expect(taken[0]!.requests.length).toBe(PARTIALS_MAX + 1);
    for (let index = 1; index < PENDING_MAX; index += 1) report(index);
    expect(codes()).toEqual([]);
    report(1);
    expect([codes(), device.faultParam!.pending.length]).toEqual([[FAILURE], PENDING_MAX]);
  });

  it("a domain without a handler, or a device on no queue, is answered INVALID each time", () => {
    const { world, domain, report, codes } = setup();
    domain.iopfHandler = null;
    expect(report(1, { flags: 0 })).toBe(Errno.EINVAL);
    domain.iopfHandler = { handle: () => 0 };
    world.iopf.removeDevice(world.device);
    expect(report(1)).toBe(Errno.EINVAL);
    expect(codes()).toEqual([INVALID, INVALID]);
  });

  it("a group attached without a handle faults in vain", () => {
    const { group, report, codes } = setup();
    detachGroupHandle(group);
    expect(report(1)).toBe(Errno.EINVAL);
    expect(codes()).toEqual([INVALID]);
  });

  it("a PASID goes to its own domain's handler", () => {
    const { group, report, taken } = setup();
    const own: FaultGroup[] = [];
    const domain = group.allocDomain(DomainType.UNMANAGED) as IommuDomain;
    domain.iopfHandler = { handle: (faults) => own.push(faults) - own.length };
    const handle = { domain };
    expect(attachPasidHandle(group, handle, 3)).toBe(Errno.OK);
    report(1, { pasid: 3 });
    expect([taken.length, own.length]).toEqual([0, 1]);
    expect(own[0]!.handle).toBe(handle);
    detachPasidHandle(group, 3);
    expect(report(1, { pasid: 3 })).toBe(Errno.EINVAL);
  });

  it("PASID 0 goes where the device itself is attached, as both have the same number in Linux", () => {
    const { report, taken } = setup();
    expect(report(1, { pasid: 0 })).toBe(Errno.OK);
    expect(taken.length).toBe(1);
  });

  it("any PASID goes to the nested domain where users bring PASID tables of their own", () => {
    const { group, device, report, taken } = setup();
    (device.ops as { userPasidTable?: boolean }).userPasidTable = true;
    expect(report(1, { pasid: 9 })).toBe(Errno.EINVAL);
    const nested = new IommuDomain(DomainType.NESTED, null);
    nested.iopfHandler = group.handles.get(NO_PASID)!.domain.iopfHandler;
    group.handles.set(NO_PASID, { domain: nested });
    expect(report(1, { pasid: 9 })).toBe(Errno.OK);
    expect(taken.length).toBe(1);
  });
});

describe("a group", () => {
  it("is answered once, and no more after its device left", () => {
    const { world, report, taken, codes } = setup();
    report(1, { grpid: 1 });
    report(2, { grpid: 2 });
    expect(taken[0]!.respond(SUCCESS)).toBe(true);
    expect(taken[0]!.respond(INVALID)).toBe(false);
    report(3, { flags: 0, grpid: 3 });
    world.iopf.removeDevice(world.device);
    expect(codes()).toEqual([SUCCESS, INVALID]);
    expect(taken[1]!.respond(SUCCESS)).toBe(false);
    expect(codes().length).toBe(2);
  });
});

describe("IopfQueue", () => {
  it("takes a device once, if its IOMMU can answer", () => {
    const { world, device } = setup();
    expect(world.iopf.addDevice(device)).toBe(Errno.EBUSY);
    expect(new IopfQueue().addDevice(device)).toBe(Errno.EBUSY);
    expect(new IopfQueue().addDevice(new IommuDevice({ name: "x", ops: null }))).toBe(Errno.ENODEV);
    world.iopf.removeDevice(device);
    world.allocations = 0;
    expect(world.iopf.addDevice(device)).toBe(Errno.ENOMEM);
    expect(device.faultParam).toBe(null);
    expect(() => world.iopf.removeDevice(device)).toThrow(AssertionError);
  });

  it("does the work in the order that is picked, the oldest first without", () => {
    const { world, report, taken } = setup();
    const order: number[] = [];
    const note = (group: FaultGroup) => {
      order.push(group.last.grpid);
      group.respond(SUCCESS);
    };
    for (let grpid = 0; grpid < 5; grpid += 1) {
      report(1, { grpid });
      taken[grpid]!.defer(note);
    }
    expect(world.iopf.workCount).toBe(5);
    expect(world.iopf.run(2, (count) => count - 1)).toBe(2);
    expect(world.iopf.run()).toBe(3);
    expect(order).toEqual([4, 3, 0, 1, 2]);
    expect(world.iopf.runOne()).toBe(false);
  });

  it("drops the work of a device that leaves, and can do it first", () => {
    const { world, device, report, taken, codes } = setup();
    report(1);
    taken[0]!.defer((group) => group.respond(SUCCESS));
    world.iopf.flushDevice(device);
    expect(codes()).toEqual([SUCCESS]);
    report(2);
    taken[1]!.defer(() => expect.unreachable());
    world.iopf.removeDevice(device);
    expect([codes(), world.iopf.run()]).toEqual([[SUCCESS, INVALID], 0]);
  });

  it("stays small while it works for long", () => {
    const { world, report, taken } = setup();
    for (let index = 0; index < 5000; index += 1) {
      report(index);
      taken.pop()!.defer((group) => group.respond(SUCCESS));
      if (index % 3 !== 0) world.iopf.runOne();
    }
    expect(world.iopf.workCount).toBe(1667);
    expect(world.iopf.run()).toBe(1667);
    expect(world.answers.length).toBe(5000);
  });

  it("forgets partial groups when hardware lost requests", () => {
    const { world, report, taken } = setup();
    report(1, { flags: 0, grpid: 4 });
    report(2, { flags: 0, grpid: 5 });
    expect(world.iopf.discardPartials()).toBe(2);
    report(3, { grpid: 4 });
    expect(taken[0]!.requests.length).toBe(1);
  });
});

describe("SvaHandler", () => {
  const faults: number[] = [];
  function share(holes: number[]) {
    faults.length = 0;
    const handler = new SvaHandler({
      handleFault(vpn) {
        faults.push(vpn);
        return !holes.includes(vpn);
      },
    });
    const world = makeIopfWorld(null);
    world.iopf.addDevice(world.device);
    world.domain.iopfHandler = handler;
    attachPasidHandle(world.group, { domain: world.domain }, 1);
    return world;
  }
  const { PASID_VALID, LAST_PAGE } = PageRequestFlag;

  it("faults every page of a group in, from the queue", () => {
    const { group, device, iopf, answers } = share([]);
    const part = { pasid: 1, flags: PASID_VALID };
    reportDeviceFault(group, device, pageRequest(7, part));
    reportDeviceFault(group, device, pageRequest(8, { ...part, flags: PASID_VALID | LAST_PAGE }));
    expect(answers).toEqual([]);
    expect(iopf.run()).toBe(1);
    expect(faults).toEqual([7, 8]);
    expect(answers.map(({ code, pasid }) => [code, pasid])).toEqual([[SUCCESS, 1]]);
  });

  it("stops at the first error, which is the group's answer", () => {
    const { group, device, iopf, answers } = share([8]);
    for (const pfn of [7, 8]) {
      reportDeviceFault(group, device, pageRequest(pfn, { pasid: 1, flags: PASID_VALID }));
    }
    reportDeviceFault(group, device, pageRequest(9, { pasid: 1 }));
    iopf.run();
    expect(faults).toEqual([7, 8]);
    expect(answers.map(({ code }) => code)).toEqual([INVALID]);
  });

  it("answers a request without PASID with INVALID", () => {
    const { group, device, iopf, answers } = share([]);
    reportDeviceFault(group, device, pageRequest(9));
    iopf.run();
    expect([faults, answers.map(({ code }) => code)]).toEqual([[], [INVALID]]);
  });
});
