import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { Prot } from "../prot.ts";
import { NO_PASID } from "../tag-array.ts";
import { MappingHandler, makeIopfWorld, RID } from "./iopf-world.suite.ts";
import { PageRequestPerm, PageResponse } from "./page-request.ts";
import { PageRequestQueue } from "./page-request-queue.ts";
import { PriDevice } from "./pri-device.ts";
import {
  disablePri,
  enablePri,
  PRG_COUNT,
  PriControl,
  PriInterface,
  PriStatus,
  resetPri,
} from "./pri-interface.ts";

const { SUCCESS, INVALID, FAILURE } = PageResponse;
const { READ, WRITE } = Prot;

function setup(options: { entries?: number; capacity?: number; allocation?: number } = {}) {
  const handler = new MappingHandler();
  const world = makeIopfWorld(handler);
  handler.domain = world.domain;
  const { iopf, meter, unit, group, device } = world;
  const queue = new PageRequestQueue({ iopf, meter, entries: options.entries ?? 64 });
  world.onAnswer = (to, last, code) => queue.respond(to, last, code);
  const pri = new PriInterface({ rid: RID, capacity: options.capacity ?? 32, sink: queue });
  queue.connect(pri);
  expect(queue.enableDevice(group, device)).toBe(Errno.ENODEV);
  expect(enablePri(pri, options.allocation ?? 32)).toBe(Errno.OK);
  expect(queue.enableDevice(group, device)).toBe(Errno.OK);
  unit.enableAts(RID, { sets: 16, ways: 4, replacement: "lru", pageShifts: [12, 21] });
  const codes: number[] = [];
  const send = (pfns: number[], perm: number = PageRequestPerm.READ, pasid = NO_PASID) =>
    pri.send(pasid, pfns, perm, (code) => codes.push(code));
  return { ...world, world, handler, queue, pri, codes, send };
}

describe("a page request", () => {
  it("travels from function to handler and back, and the retried DMA succeeds", () => {
    const { unit, pri, queue, iopf, handler, meter } = setup();
    const nic = new PriDevice({ unit, pri, groupPages: 4 });
    nic.start([{ iovaPfn: 100, pages: 10, access: READ | WRITE }]);
    for (let turn = 0; nic.isBusy && turn < 10; turn += 1) {
      nic.run();
      queue.drain();
      iopf.run();
    }
    expect(nic.counts).toEqual({ done: 10, failed: 0 });
    expect(handler.seen).toEqual([100, 101, 102, 103, 104, 105, 106, 107, 108, 109]);
    expect(queue.counts.reported).toBe(10);
    expect([meter.amount("pageRequest"), meter.amount("pageResponse")]).toEqual([10, 3]);
    expect(unit.faults.recorded).toBe(0);
    nic.start([{ iovaPfn: 100, pages: 10, access: READ }]);
    nic.run();
    expect([nic.isBusy, nic.counts.done]).toEqual([false, 20]);
  });

  it("for a page that is not to be had ends the group's pages, and the device goes on", () => {
    const { unit, pri, queue, iopf, handler } = setup();
    handler.holes.add(102);
    const nic = new PriDevice({ unit, pri });
    nic.start([{ iovaPfn: 100, pages: 5, access: READ }]);
    while (nic.isBusy) {
      nic.run();
      queue.drain();
      iopf.run();
    }
    expect(nic.counts).toEqual({ done: 4, failed: 1 });
  });

  it("is asked for again when the page went away between the answer and the retry", () => {
    const { unit, pri, queue, iopf, domain } = setup();
    const nic = new PriDevice({ unit, pri, triesMax: 3 });
    nic.start([{ iovaPfn: 100, pages: 1, access: READ }]);
    let requests = 0;
    while (nic.isBusy) {
      nic.run();
      requests += queue.drain();
      iopf.run();
      domain.unmap(100, 1);
    }
    expect([requests, nic.counts]).toEqual([3, { done: 0, failed: 1 }]);
  });

  it("fails at once while the interface is off", () => {
    const { unit, pri } = setup();
    disablePri(pri);
    const nic = new PriDevice({ unit, pri });
    nic.start([{ iovaPfn: 100, pages: 3, access: READ }]);
    nic.run();
    expect([nic.isBusy, nic.counts.failed]).toEqual([false, 3]);
  });
});

describe("the ring", () => {
  it("holds requests in the layout of the hardware", () => {
    const { queue } = setup();
    const perm = PageRequestPerm.WRITE | PageRequestPerm.EXEC | PageRequestPerm.PRIV;
    queue.pageRequest(RID, 0xabcde, 2 ** 51 + 0x12345, perm, 0x155, true);
    expect([...queue.ring.subarray(0, 8)]).toEqual([
      0x3b00_0101, 0x003a_bcde, 0x1234_5aae, 0x8000_0000, 0, 0, 0, 0,
    ]);
  });

  it("full: the last of a group is answered SUCCESS by the hardware, others are dropped", () => {
    const { queue, send, codes, iopf, device } = setup({ entries: 4 });
    send([1, 2, 3, 4]);
    expect([queue.count, queue.hasOverflow, codes]).toEqual([3, true, [SUCCESS]]);
    send([5, 6]);
    expect(codes).toEqual([SUCCESS, SUCCESS]);
    expect(queue.counts).toMatchObject({ overflows: 1, autoAnswered: 2, dropped: 1 });
    expect(queue.drain()).toBe(3);
    expect(queue.hasOverflow).toBe(false);
    expect(queue.counts.discardedPartials).toBe(3);
    expect(device.faultParam!.partial).toEqual([]);
    send([1]);
    queue.drain();
    iopf.run();
    expect(codes).toEqual([SUCCESS, SUCCESS, SUCCESS]);
  });

  it("off: a group is answered FAILURE, which stops the function", () => {
    const { queue, pri, send, codes } = setup();
    queue.isEnabled = false;
    send([1]);
    expect([codes, pri.status & PriStatus.RF, pri.canSend]).toEqual([
      [FAILURE],
      PriStatus.RF,
      false,
    ]);
    expect(send([1])).toBe(-1);
  });

  it.each([
    ["a non-canonical address", 2 ** 35, PageRequestPerm.READ],
    ["a privileged access", 5, PageRequestPerm.READ | PageRequestPerm.PRIV],
    ["a fetch", 5, PageRequestPerm.READ | PageRequestPerm.EXEC],
  ])("the driver refuses %s", (_what, pfn, perm) => {
    const { queue, send, codes, handler } = setup();
    send([pfn], perm);
    expect(queue.drain()).toBe(1);
    expect([codes, queue.counts.refused, handler.seen]).toEqual([[INVALID], 1, []]);
  });

  it("the driver takes addresses of both canonical halves", () => {
    const { queue, send, device } = setup();
    send([2 ** 35 - 1, 2 ** 52 - 2 ** 35, 2 ** 52 - 1]);
    queue.drain();
    expect([queue.counts.refused, device.faultParam!.pending.length]).toEqual([0, 1]);
  });

  it("a stop marker is dropped without an answer", () => {
    const { queue, pri, answers } = setup();
    pri.sendStopMarker(3);
    queue.drain();
    expect([queue.counts.stopMarkers, answers]).toEqual([1, []]);
  });

  it("a requester nobody enabled is answered INVALID", () => {
    const { queue, device, send, codes } = setup();
    queue.disableDevice(device);
    send([1, 2]);
    queue.drain();
    expect([codes, queue.counts.refused]).toEqual([[INVALID], 2]);
  });

  it("disabling a device answers what is in ring and queue", () => {
    const { queue, device, send, codes, iopf } = setup();
    send([1]);
    queue.drain();
    send([2, 3]);
    queue.disableDevice(device);
    expect([codes, iopf.run()]).toEqual([[INVALID, INVALID], 0]);
  });
});

describe("the page request interface", () => {
  it("sends no more requests than are allocated", () => {
    const { pri, send } = setup({ capacity: 8, allocation: 100 });
    expect(pri.allocation).toBe(8);
    expect(send([1, 2, 3, 4, 5])).toBe(0);
    expect([pri.room, send([1, 2, 3, 4])]).toEqual([3, -1]);
    expect(send([1, 2, 3])).toBe(1);
    expect([pri.room, pri.outstanding, pri.groupsOutstanding]).toEqual([0, 8, 2]);
  });

  it("has an index for 512 groups, and reuses those that are free", () => {
    const { pri, queue, send, iopf } = setup({ capacity: 4096, allocation: 4096, entries: 1024 });
    for (let index = 0; index < PRG_COUNT; index += 1) expect(send([index])).toBe(index);
    expect([pri.room, send([1])]).toEqual([0, -1]);
    queue.drain();
    iopf.runOne((count) => count - 1);
    expect(send([1])).toBe(PRG_COUNT - 1);
  });

  it("sets UPRGI for an answer that nobody waits for, and keeps going", () => {
    const { pri, send } = setup();
    pri.respond(NO_PASID, 5, SUCCESS);
    expect([pri.status, send([1])]).toEqual([PriStatus.UPRGI, 0]);
    pri.writeStatus(PriStatus.UPRGI);
    expect(pri.status).toBe(0);
  });

  it("sets UPRGI when each request of a group is answered, as happens without a handler", () => {
    const { pri, queue, domain, send, codes } = setup();
    domain.iopfHandler = null;
    send([1, 2, 3]);
    queue.drain();
    expect([codes, pri.status]).toEqual([[INVALID], PriStatus.UPRGI]);
  });

  it("wants the PASID back if it says so", () => {
    const { queue } = setup();
    const pri = new PriInterface({ rid: 7, capacity: 4, pasidRequired: true, sink: queue });
    enablePri(pri, 4);
    const codes: number[] = [];
    const index = pri.send(9, [1], 1, (code) => codes.push(code));
    pri.respond(NO_PASID, index, SUCCESS);
    expect([codes, pri.status]).toEqual([[], PriStatus.PASID_REQUIRED | PriStatus.UPRGI]);
    pri.respond(9, index, SUCCESS);
    expect(codes).toEqual([SUCCESS]);
  });

  it("after FAILURE ends all groups, ignores answers, and starts anew when enabled again", () => {
    const { pri, send, codes } = setup();
    const first = send([1]);
    send([2, 3]);
    pri.respond(NO_PASID, first, FAILURE);
    expect([codes, pri.outstanding]).toEqual([[FAILURE, FAILURE], 0]);
    expect(pri.status).toBe(PriStatus.RF | PriStatus.STOPPED);
    pri.respond(NO_PASID, 1, SUCCESS);
    expect(pri.status).toBe(PriStatus.RF | PriStatus.STOPPED);
    disablePri(pri);
    expect(enablePri(pri, 4)).toBe(Errno.OK);
    expect([pri.status, send([1])]).toEqual([0, 2]);
  });

  it("is stopped once it is off and all is answered", () => {
    const { pri, send, codes } = setup();
    const index = send([1]);
    disablePri(pri);
    expect([pri.status, enablePri(pri, 4)]).toEqual([0, Errno.EBUSY]);
    pri.respond(NO_PASID, index, SUCCESS);
    expect([pri.status, codes]).toEqual([PriStatus.STOPPED, [SUCCESS]]);
    enablePri(pri, 4);
    expect([enablePri(pri, 4), resetPri(pri)]).toEqual([Errno.EBUSY, Errno.EBUSY]);
    send([1]);
    disablePri(pri);
    expect(resetPri(pri)).toBe(Errno.OK);
    expect([pri.outstanding, codes]).toEqual([0, [SUCCESS, INVALID]]);
    pri.writeControl(PriControl.ENABLE | PriControl.RESET);
    expect(pri.isEnabled).toBe(true);
  });
});

describe("under any order of events", () => {
  const action = fc.oneof(
    fc.record({ do: fc.constant("send" as const), pages: fc.integer({ min: 1, max: 5 }) }),
    fc.record({ do: fc.constant("drain" as const), pages: fc.constant(0) }),
    fc.record({ do: fc.constant("work" as const), pages: fc.nat(9) }),
    fc.record({ do: fc.constant("memory" as const), pages: fc.nat(6) }),
    fc.record({ do: fc.constant("restart" as const), pages: fc.nat(6) }),
  );

  it("each group sent is answered once, and nothing stays behind", () => {
    fc.assert(
      fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
        const { world, pri, queue, iopf, device, group } = setup({ entries: 8, capacity: 12 });
        const answered: number[] = [];
        let sent = 0;
        let pfn = 0;
        for (const each of actions) {
          if (each.do === "send") {
            const index = sent;
            const pages = Array.from({ length: each.pages }, () => (pfn += 1));
            answered[index] = 0;
            sent += 1;
            const got = pri.send(NO_PASID, pages, 1, () => (answered[index]! += 1));
            if (got < 0) answered[index]! += 1;
          } else if (each.do === "drain") queue.drain();
          else if (each.do === "work") iopf.runOne((count) => each.pages % count);
          else if (each.do === "memory") {
            world.allocations = each.pages === 0 ? Number.POSITIVE_INFINITY : each.pages;
          } else if (!pri.canSend) {
            world.allocations = Number.POSITIVE_INFINITY;
            disablePri(pri);
            enablePri(pri, 12);
          } else if (each.pages === 0) {
            queue.disableDevice(device);
            world.allocations = Number.POSITIVE_INFINITY;
            expect(queue.enableDevice(group, device)).toBe(Errno.OK);
          }
        }
        world.allocations = Number.POSITIVE_INFINITY;
        queue.drain();
        iopf.run();
        // What the last drain brought in part was lost in the ring or for lack of memory.
        queue.disableDevice(device);
        disablePri(pri);
        resetPri(pri);
        expect(answered.every((count) => count === 1)).toBe(true);
        expect(device.faultParam).toBe(null);
      }),
      { numRuns: 300 },
    );
  });
});
