import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { IommuDevice } from "../device.ts";
import { armStage1 } from "../formats/arm-stage1.ts";
import { PageTable } from "../page-table.ts";
import { PROT_RW, Prot } from "../prot.ts";
import { NO_PASID } from "../tag-array.ts";
import { Outcome, Translation } from "../translation-unit.ts";
import type { FaultGroup } from "./fault-group.ts";
import { MappingHandler, makeIopfWorld, RID } from "./iopf-world.suite.ts";
import { PageRequestFlag, PageResponse, pageRequest } from "./page-request.ts";
import { StallDevice } from "./stall-device.ts";
import { StallOutcome, StallQueue } from "./stall-queue.ts";

const { SUCCESS, INVALID } = PageResponse;
const { READ, WRITE } = Prot;

function setup(options: { entries?: number; stallMax?: number; hasStage1?: boolean } = {}) {
  const handler = new MappingHandler();
  const world = makeIopfWorld(handler);
  handler.domain = world.domain;
  const { iopf, meter, unit, group, device, pool } = world;
  const stage1 = new PageTable({
    format: armStage1({ granuleShift: 12, inputBits: 48, outputBits: 48 }),
    pool,
  });
  const queue = new StallQueue({
    unit,
    iopf,
    meter,
    stallMax: options.stallMax ?? 8,
    entries: options.entries ?? 16,
    stage1Of: () => (options.hasStage1 === true ? stage1 : null),
  });
  world.onAnswer = (to, last, code) => queue.respond(to, last, code);
  expect(queue.enableDevice(group, device)).toBe(Errno.OK);
  const outcomes: number[] = [];
  const access = (pfn: number, rights: number = READ, offset = 0) =>
    queue.access(RID, NO_PASID, pfn, offset, rights, new Translation(), {
      resumed: (outcome) => outcomes.push(outcome),
    });
  return { ...world, world, handler, queue, outcomes, access, stage1 };
}

describe("a stalled DMA", () => {
  it("is held until its page is there, then goes through", () => {
    const { access, queue, iopf, outcomes, unit, meter } = setup();
    expect(access(7, WRITE)).toBe(StallOutcome.STALLED);
    expect([queue.heldCount, queue.eventCount, outcomes]).toEqual([1, 1, []]);
    expect(queue.drain()).toBe(1);
    expect(outcomes).toEqual([]);
    iopf.run();
    expect([outcomes, queue.heldCount]).toEqual([[Outcome.MEMORY], 0]);
    expect(access(7, WRITE)).toBe(Outcome.MEMORY);
    expect([unit.faults.recorded, meter.amount("pageResponse")]).toEqual([0, 1]);
  });

  it("ends when the answer is INVALID, or FAILURE, which an SMMU does not tell apart", () => {
    const { access, queue, iopf, outcomes, handler, world } = setup();
    handler.holes.add(7);
    access(7);
    queue.drain();
    iopf.run();
    world.allocations = 0;
    access(8);
    queue.drain();
    expect([outcomes, queue.heldCount]).toEqual([[Outcome.FAULT, Outcome.FAULT], 0]);
  });

  it("misses again when the page went away, and is held on", () => {
    const { access, queue, iopf, domain, outcomes } = setup();
    const handler = { handle: (group: FaultGroup) => group.defer((late) => late.respond(SUCCESS)) };
    domain.iopfHandler = handler;
    access(7);
    for (let turn = 0; turn < 3; turn += 1) {
      expect(queue.drain()).toBe(1);
      iopf.run();
    }
    expect([outcomes, queue.heldCount, queue.eventCount]).toEqual([[], 1, 1]);
    domain.map(7, 99, 1, PROT_RW);
    queue.drain();
    iopf.run();
    expect(outcomes).toEqual([Outcome.MEMORY]);
  });

  it("waits in the device while no more can be held", () => {
    const { access, queue, iopf } = setup({ stallMax: 2 });
    expect([access(1), access(2), access(3)]).toEqual([
      StallOutcome.STALLED,
      StallOutcome.STALLED,
      StallOutcome.BUSY,
    ]);
    queue.drain();
    iopf.run();
    expect(access(3)).toBe(StallOutcome.STALLED);
  });

  it("is told later when the ring is full, and never forgotten", () => {
    const { access, queue, iopf, outcomes } = setup({ entries: 2, stallMax: 7 });
    for (let pfn = 0; pfn < 7; pfn += 1) access(pfn);
    expect(queue.eventCount).toBe(7);
    expect([queue.drain(), queue.drain(), queue.drain(), queue.drain()]).toEqual([2, 2, 2, 1]);
    iopf.run();
    expect(outcomes.length).toBe(7);
  });

  it("of a stream that does not stall, or without a domain, is a fault as ever", () => {
    const { access, queue, device, unit, group } = setup();
    queue.disableDevice(device);
    expect(access(7)).toBe(Outcome.FAULT);
    expect(unit.faults.recorded).toBe(1);
    queue.enableDevice(group, device);
    unit.devices.attach(RID, NO_PASID, { kind: "blocked" });
    expect([access(7), unit.faults.recorded]).toEqual([Outcome.FAULT, 2]);
  });

  it("of a device that leaves is ended, wherever it got to", () => {
    const { access, queue, device, outcomes, iopf, group } = setup({ entries: 2 });
    access(1);
    access(2);
    queue.drain();
    for (let pfn = 3; pfn < 7; pfn += 1) access(pfn);
    queue.disableDevice(device);
    expect([outcomes.length, queue.heldCount, iopf.run()]).toEqual([6, 0, 0]);
    queue.enableDevice(group, device);
    access(8);
    while (queue.drain() > 0 || iopf.run() > 0);
    expect(outcomes.at(-1)).toBe(Outcome.MEMORY);
    expect(queue.reported).toBe(3);
  });

  it("is written down as the hardware does", () => {
    const { queue, access } = setup();
    access(2 ** 35 + 5, WRITE, 0x123);
    expect([...queue.ring.subarray(0, 6)]).toEqual([0x10, RID, 0x8000_0000, 0, 0x5123, 0x8000]);
    access(6, READ);
    expect([...queue.ring.subarray(8, 12)]).toEqual([0x10, RID, 0x8000_0001, 8]);
  });

  it("that lacks a right is a permission fault", () => {
    const { queue, access, domain } = setup();
    domain.map(5, 9, 1, READ);
    expect(access(5, WRITE)).toBe(StallOutcome.STALLED);
    expect(queue.ring[0]).toBe(0x13);
  });
});

describe("behind a guest's own first stage", () => {
  it("a fault tells which stage missed, and the second one's address", () => {
    const taken: FaultGroup[] = [];
    const { queue, access, domain, iopf, stage1, outcomes } = setup({ hasStage1: true });
    domain.iopfHandler = { handle: (group) => taken.push(group) - taken.length };
    access(7);
    queue.drain();
    expect(taken[0]!.last).toMatchObject({ iovaPfn: 7, flags: PageRequestFlag.LAST_PAGE });
    stage1.mapPages(7, 0x900, 12, 1, PROT_RW);
    taken[0]!.respond(SUCCESS);
    queue.drain();
    const { LAST_PAGE, STAGE2 } = PageRequestFlag;
    expect(taken[1]!.last).toMatchObject({ iovaPfn: 0x900, flags: LAST_PAGE | STAGE2 });
    domain.map(0x900, 0x55, 1, PROT_RW);
    taken[1]!.respond(SUCCESS);
    iopf.run();
    expect(outcomes).toEqual([Outcome.MEMORY]);
  });
});

describe("StallDevice", () => {
  it.each([1, 3, 100])("works through its pages with %i in flight", (inFlightMax) => {
    const { queue, iopf, handler } = setup({ stallMax: 8, entries: 4 });
    const device = new StallDevice(queue, { rid: RID, inFlightMax });
    handler.holes.add(15);
    device.start([
      { iovaPfn: 10, pages: 20, access: READ },
      { iovaPfn: 20, pages: 20, access: WRITE },
    ]);
    while (device.isBusy) {
      device.run();
      queue.drain();
      iopf.run();
    }
    expect(device.counts).toEqual({ done: 39, failed: 1 });
    expect(new Set(handler.seen).size).toBe(30);
  });
});

describe("under any order of events", () => {
  const action = fc.record({
    do: fc.constantFrom("access", "access", "drain", "work", "memory", "cycle"),
    value: fc.nat(40),
  });

  it("each DMA held is resumed once, and no tag is lost", () => {
    fc.assert(
      fc.property(fc.array(action, { maxLength: 80 }), (actions) => {
        const { world, queue, iopf, device, group, handler } = setup({ entries: 4, stallMax: 6 });
        handler.holes.add(3);
        const resumed: number[] = [];
        for (const { do: what, value } of actions) {
          if (what === "access") {
            const index = resumed.push(0) - 1;
            const outcome = queue.access(RID, NO_PASID, value, 0, READ, new Translation(), {
              resumed: () => (resumed[index]! += 1),
            });
            if (outcome !== StallOutcome.STALLED) resumed[index]! += 1;
          } else if (what === "drain") queue.drain();
          else if (what === "work") iopf.runOne((count) => value % count);
          else if (what === "memory") world.allocations = value;
          else if (value < 8) {
            queue.disableDevice(device);
            world.allocations = 100;
            queue.enableDevice(group, device);
          }
        }
        world.allocations = Number.POSITIVE_INFINITY;
        for (let turn = 0; queue.heldCount > 0 && turn < 20; turn += 1) {
          queue.drain();
          iopf.run();
        }
        expect(queue.heldCount).toBe(0);
        expect(resumed.every((count) => count === 1)).toBe(true);
      }),
      { numRuns: 300 },
    );
  });

  it("INVALID for one stall leaves the others alone", () => {
    const { access, queue, outcomes, domain } = setup();
    const taken: FaultGroup[] = [];
    domain.iopfHandler = { handle: (faults) => taken.push(faults) - taken.length };
    access(1);
    access(2);
    queue.drain();
    taken[1]!.respond(INVALID);
    expect([outcomes, queue.heldCount]).toEqual([[Outcome.FAULT], 1]);
  });
});

describe("a resume command", () => {
  it("for a tag or a stream that holds nothing does nothing", () => {
    const { access, queue, device, outcomes } = setup();
    access(1);
    const stray = new IommuDevice({ name: "other", ops: device.ops, rid: RID + 1 });
    queue.respond(stray, pageRequest(1, { grpid: 0 }), INVALID);
    queue.respond(device, pageRequest(1, { grpid: 77 }), INVALID);
    expect([outcomes, queue.heldCount]).toEqual([[], 1]);
    queue.respond(device, pageRequest(1, { grpid: 0 }), INVALID);
    queue.respond(device, pageRequest(1, { grpid: 0 }), INVALID);
    expect(outcomes).toEqual([Outcome.FAULT]);
  });
});
