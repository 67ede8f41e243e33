/** Page requests as a hostile device sends them, to a container that takes faults. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type PageRequest, PageRequestFlag } from "../../iommu/iopf/page-request.ts";
import { PageRequestQueue } from "../../iommu/iopf/page-request-queue.ts";
import { PRG_COUNT } from "../../iommu/iopf/pri-interface.ts";
import { reportDeviceFault } from "../../iommu/iopf/report.ts";
import { FaultingWorld } from "./faulting-world.suite.ts";

const PAGES = 600;
const pfn = fc.oneof(
  fc.integer({ min: 0x3ff0, max: 0x4000 + PAGES + 16 }),
  fc.integer({ min: 0, max: 2 ** 31 }),
  fc.constantFrom(0, 2 ** 35 - 1, 2 ** 35, 2 ** 51, 2 ** 52 - 1),
);

function createWorld() {
  const world = new FaultingWorld();
  world.enable();
  const backing = { kind: "anonymous", isHuge: false } as const;
  world.memory.mmap({ vpn: 2 ** 20, pages: PAGES, backing });
  world.map(0x4000, 2 ** 20, PAGES);
  return world;
}

describe("hostile page requests", () => {
  it("reported by a driver leave no group, no page and no bit behind that should not be", () => {
    const request = fc.record({
      flags: fc.nat(31),
      pasid: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 2 ** 20 - 1 })),
      grpid: fc.nat(0xffff),
      perm: fc.nat(15),
      iovaPfn: pfn,
      iovaOffset: fc.nat(4095),
    });
    fc.assert(
      fc.property(fc.array(request, { maxLength: 60 }), (requests) => {
        const world = createWorld();
        for (const each of requests) reportDeviceFault(world.groups[0]!, world.devices[0]!, each);
        world.settle();
        const { faultParam } = world.devices[0]!;
        expect(faultParam!.pending.length).toBe(0);
        const isPartial = ({ flags, pasid }: PageRequest) =>
          (flags & PageRequestFlag.LAST_PAGE) === 0 &&
          ((flags & PageRequestFlag.PASID_VALID) === 0 || pasid === 0);
        expect(faultParam!.partial.length).toBeLessThanOrEqual(requests.filter(isPartial).length);
        expect([...world.leaves(0).keys()].sort((a, b) => a - b)).toEqual(world.bits(0x4000));
        expect(world.meter.amount("pagePin")).toBe(world.meter.amount("pageUnpin"));
        world.queueOf(world.devices[0]!).disableDevice(world.devices[0]!);
        expect(faultParam!.partial.length).toBe(0);
      }),
      { numRuns: 400 },
    );
  });

  it("sent to a ring are each kept, answered or dropped, and counted so", () => {
    const message = fc.tuple(
      fc.nat(3),
      fc.integer({ min: -1, max: 2 ** 20 - 1 }),
      pfn,
      fc.nat(15),
      fc.nat(PRG_COUNT - 1),
      fc.boolean(),
    );
    fc.assert(
      fc.property(fc.array(message, { maxLength: 60 }), fc.nat(20), (messages, every) => {
        const world = createWorld();
        const device = world.devices[0]!;
        world.queueOf(device).disableDevice(device);
        const queue = new PageRequestQueue({ iopf: world.iopf, entries: 16 });
        expect(queue.iopf.addDevice(device)).toBe(0);
        let taken = 0;
        for (const [index, [rid, pasid, page, perm, group, isLast]] of messages.entries()) {
          queue.pageRequest(rid, pasid, page, perm, group, isLast);
          if (index % (every + 1) === every) taken += queue.drain();
        }
        taken += queue.drain();
        const { reported, refused, stopMarkers, autoAnswered, dropped } = queue.counts;
        expect(reported + refused + stopMarkers).toBe(taken);
        expect(taken + autoAnswered + dropped).toBe(messages.length);
        expect(queue.count).toBe(0);
      }),
      { numRuns: 400 },
    );
  });
});
