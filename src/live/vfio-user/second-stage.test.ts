/** A machine's memory in VFIO containers: pinned when it is mapped, or mapped when it is missed. */
import fc from "fast-check";
import { afterEach, describe, expect, it } from "vitest";
import { newView } from "../../memory/memory-view.ts";
import { type SecondStage, StageHost, type StageHostOptions } from "./second-stage.ts";
import { World } from "./world.suite.ts";

const OK = 0;
const PAGE = 4096;
const MIB = 2 ** 20;

let world = new World();
let stage: SecondStage;
let host: StageHost;
const open = (options: Omit<StageHostOptions, "devices">) => {
  host = new StageHost({ ...options, devices: [{ name: "nvme0" }, { name: "nvme1", node: 1 }] });
  world = new World({
    listener: (memory) => {
      stage = host.stageOf("nvme0", memory);
      return stage;
    },
  });
  return world.negotiate();
};
afterEach(() => world.end());
const numbered = (pages: number) =>
  world.memoryFile(pages * PAGE, (bytes) => {
    for (let page = 0; page < pages; page += 1) bytes.fill(page, page * PAGE, (page + 1) * PAGE);
  });

describe("memory pinned when it is mapped", () => {
  const pin = { policy: { kind: "pin" } } as const;

  it("is charged, mapped in the device's tables, and the device's at once", () => {
    const client = open(pin);
    expect(client.map(0x10_0000, 4 * MIB, { fd: numbered(1024) })).toBe(OK);
    expect(host.process.lockedPages).toBe(1024);
    expect(host.meter.amount("pagePin")).toBe(1024);
    expect(stage.report).toMatchObject({
      policy: "pin",
      mappings: 1,
      mappedBytes: 4 * MIB,
      presentBytes: 4 * MIB,
      populatedBytes: 4 * MIB,
      faults: 0,
    });
    expect(world.memory.readU8(0x10_0000 + 3 * PAGE)).toBe(3);
    expect(host.tablePages().reduce((sum, pages) => sum + pages, 0)).toBeGreaterThan(1);
    expect(client.unmap(0x10_0000, 4 * MIB)).toBe(OK);
    expect([host.process.lockedPages, stage.report.mappedBytes]).toEqual([0, 0]);
    expect(host.memory.mappingCount).toBe(0);
  });

  it("beyond what may be locked is refused, as the kernel does", () => {
    const client = open({ ...pin, memlockBytes: 8 * MIB });
    expect(client.map(0, 4 * MIB, { fd: world.memoryFile(4 * MIB) })).toBe(OK);
    expect(client.map(0x1000_0000, 8 * MIB, { fd: world.memoryFile(8 * MIB) })).toBe(12);
    expect([world.server.dma.count, host.process.lockedPages]).toEqual([1, 1024]);
    expect(world.memory.contains(0x1000_0000, 1)).toBe(false);
    expect(client.map(0x1000_0000, 4 * MIB, { fd: world.memoryFile(4 * MIB) })).toBe(OK);
  });

  it("of another device is mapped without a pin", () => {
    const client = open(pin);
    expect(client.map(0xfe00_0000, MIB)).toBe(OK);
    expect([host.process.lockedPages, stage.report.deviceBytes]).toEqual([0, MIB]);
    expect(world.memory.contains(0xfe00_0000, 1)).toBe(false);
    expect(client.unmap(0, 0, 2)).toBe(OK);
    expect(stage.report.deviceBytes).toBe(0);
  });

  it("goes with the client", () => {
    const client = open(pin);
    client.map(0, 4 * MIB, { fd: world.memoryFile(4 * MIB) });
    client.close();
    expect(host.process.lockedPages).toBe(0);
  });
});

describe("memory mapped when it is missed", () => {
  const fault = (premapPages?: number): Omit<StageHostOptions, "devices"> => ({
    policy: premapPages === undefined ? { kind: "fault" } : { kind: "fault", premapPages },
  });

  it("is nobody's until a device comes, and then a block of it is", () => {
    const client = open(fault());
    expect(client.map(0, 16 * MIB, { fd: numbered(4096) })).toBe(OK);
    expect(stage.report).toMatchObject({ mappedBytes: 16 * MIB, presentBytes: 0, faults: 0 });
    expect(world.memory.regions).toEqual([]);
    expect(world.memory.readU8(5 * PAGE)).toBe(5);
    expect(stage.report).toMatchObject({ presentBytes: 2 * MIB, faults: 1 });
    expect(world.memory.readU8(511 * PAGE)).toBe(255);
    expect(stage.report.faults).toBe(1);
    expect(host.process.lockedPages).toBe(0);
    expect(world.memory.readU8(16 * MIB)).toBe(-1);
    expect(stage.report.faults).toBe(1);
    expect(client.unmap(0, 16 * MIB)).toBe(OK);
    expect(world.memory.readU8(5 * PAGE)).toBe(-1);
    expect(stage.report.presentBytes).toBe(0);
  });

  it("page by page without pre-mapping", () => {
    const client = open(fault(1));
    client.map(0, MIB, { fd: numbered(256) });
    for (const page of [9, 7, 8, 200]) expect(world.memory.readU8(page * PAGE)).toBe(page);
    expect(stage.report).toMatchObject({ presentBytes: 4 * PAGE, faults: 4 });
    expect(world.memory.regions.map(({ start, bytes }) => [start, bytes])).toEqual([
      [7 * PAGE, 3 * PAGE],
      [200 * PAGE, PAGE],
    ]);
  });

  it("is in one piece where a ring crosses blocks", () => {
    const client = open(fault(4));
    client.map(0, MIB, { fd: numbered(256) });
    const view = world.memory.window(3 * PAGE, 8 * PAGE);
    expect(view?.u8[world.memory.at]).toBe(3);
    expect(stage.report.presentBytes).toBe(12 * PAGE);
    expect(world.memory.copyIn(14 * PAGE, newView(4 * PAGE), 0, 4 * PAGE)).toBe(true);
    expect(world.memory.window(255 * PAGE, 2 * PAGE)).toBe(null);
  });

  it("that may only be read is not written", () => {
    const client = open(fault());
    client.map(0, MIB, { fd: numbered(256), flags: 1 });
    expect(world.memory.writeU8(0, 1)).toBe(false);
    expect(world.memory.readU8(PAGE)).toBe(1);
  });

  it("equals memory that is there at once, whatever is mapped and touched", () => {
    const step = fc.record({
      kind: fc.constantFrom("map", "unmap", "read", "read", "copy"),
      page: fc.integer({ min: 0, max: 40 }),
      pages: fc.integer({ min: 1, max: 12 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 50 }), (steps) => {
        const client = open(fault(4));
        const fd = numbered(64);
        let plain: { page: number; pages: number }[] = [];
        const byteAt = (page: number) =>
          plain.some((each) => each.page <= page && page < each.page + each.pages) ? page : -1;
        for (const { kind, page, pages } of steps) {
          if (kind === "map") {
            const copy = world.clientSystem.duplicate(fd, "client");
            const wanted = { fd: copy, offset: page * PAGE };
            if (client.map(page * PAGE, pages * PAGE, wanted) !== OK) continue;
            if (!plain.some((each) => each.page === page)) plain.push({ page, pages });
          } else if (kind === "unmap") {
            const isThere = plain.some((each) => each.page === page && each.pages === pages);
            expect(client.unmap(page * PAGE, pages * PAGE) === OK).toBe(isThere);
            plain = plain.filter((each) => each.page !== page || each.pages !== pages);
          } else if (kind === "read") {
            expect(world.memory.readU8(page * PAGE + 7)).toBe(byteAt(page));
          } else {
            const target = newView(12 * PAGE);
            const all = Array.from({ length: pages }, (_, index) => byteAt(page + index));
            const isCopied = world.memory.copyOut(page * PAGE, target, 0, pages * PAGE);
            expect(isCopied).toBe(!all.includes(-1));
            if (isCopied) expect(all.map((_, index) => target.u8[index * PAGE + 9])).toEqual(all);
          }
          const present = world.memory.regions.reduce((sum, { bytes }) => sum + bytes, 0);
          expect(stage.report.presentBytes).toBe(present);
        }
        world.end();
      }),
      { seed: 3, numRuns: 80 },
    );
    open(fault());
  });
});

it("devices of two nodes have tables of their own on their own nodes", () => {
  open({ policy: { kind: "pin" }, nodes: 2 });
  const other = new World({ listener: (memory) => host.stageOf("nvme1", memory) });
  const client = other.negotiate();
  const before = host.tablePages();
  client.map(0, 4 * MIB, { fd: other.memoryFile(4 * MIB) });
  const after = host.tablePages();
  expect(after[0]).toBe(before[0]);
  expect(after[1]).toBeGreaterThan(before[1]!);
  other.end();
});
