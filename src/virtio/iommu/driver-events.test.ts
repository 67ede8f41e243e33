/** The driver's event queue: rules V117 to V126 of the reference. */
import { describe, expect, it } from "vitest";
import type { ReportedFault } from "./driver-events.ts";
import { DriverWorld } from "./driver-scripted.suite.ts";
import { ALL_CORRECTIONS, LINUX_7_2 } from "./driver-settings.ts";

function record(options: {
  reason?: number;
  reserved?: number;
  flags?: number;
  endpoint?: number;
  address?: bigint;
}): number[] {
  const bytes = new Uint8Array(24);
  const view = new DataView(bytes.buffer);
  bytes[0] = options.reason ?? 2;
  bytes[2] = options.reserved ?? 0;
  view.setUint32(4, options.flags ?? 0x101, true);
  view.setUint32(8, options.endpoint ?? 8, true);
  view.setUint32(12, 0xdead_beef, true);
  view.setBigUint64(16, options.address ?? 0x1_2345_6000n, true);
  return [...bytes];
}

function listening(settings = LINUX_7_2): { world: DriverWorld; faults: ReportedFault[] } {
  const world = new DriverWorld({}, settings);
  const faults: ReportedFault[] = [];
  world.driver.onFault = (fault) => faults.push(fault);
  return { world, faults };
}

it("a record becomes a fault, and its buffer goes back: V126, the queue stays full", () => {
  const { world, faults } = listening();
  for (let index = 0; index < 1000; index += 1) {
    expect(world.device.raise(record({ endpoint: index }))).toBe(true);
    expect(faults).toHaveLength(index + 1);
  }
  expect(faults[999]).toEqual({
    reason: "mapping",
    endpoint: 999,
    isRead: true,
    isWrite: false,
    address: 0x1_2345_6000n,
  });
  expect(world.driver.eventCounts).toEqual({ reported: 1000, ignored: 0 });
});

it("V118: without ADDRESS there is none; V125: undefined flags and reserved1 are ignored", () => {
  const { world, faults } = listening();
  world.device.raise(record({ reason: 1, flags: 0xffff_fe02 }));
  expect(faults).toEqual([
    { reason: "domain", endpoint: 8, isRead: false, isWrite: true, address: null },
  ]);
});

describe("V125", () => {
  it("an unknown reason is UNKNOWN", () => {
    const { world, faults } = listening();
    world.device.raise(record({ reason: 0 }));
    world.device.raise(record({ reason: 77 }));
    expect(faults.map((fault) => fault.reason)).toEqual(["unknown", "unknown"]);
  });

  it("a record with reserved bytes set is ignored, and its buffer is recycled", () => {
    const { world, faults } = listening();
    for (let index = 0; index < 40; index += 1)
      expect(world.device.raise(record({ reserved: 1 }))).toBe(true);
    expect(faults).toEqual([]);
    expect(world.driver.eventCounts).toEqual({ reported: 0, ignored: 40 });
  });
});

describe("V121, V197: records of another length", () => {
  it("a shorter one is read as a whole by Linux, stale bytes and all", () => {
    const { world, faults } = listening();
    for (let index = 0; index < 16; index += 1) world.device.raise(record({ endpoint: 100 }));
    faults.length = 0;
    world.device.raise([1], 1);
    expect(faults).toEqual([
      { reason: "domain", endpoint: 100, isRead: true, isWrite: false, address: 0x1_2345_6000n },
    ]);
  });

  it("is dropped with the correction", () => {
    const { world, faults } = listening({ ...LINUX_7_2, corrections: ALL_CORRECTIONS });
    world.device.raise([1], 1);
    world.device.raise([], 0);
    expect(faults).toEqual([]);
    expect(world.driver.eventCounts.ignored).toBe(2);
  });

  it("a longer one, which only a lying device claims, is ignored", () => {
    const { world, faults } = listening();
    const interrupt = world.transport.onInterrupt;
    world.transport.onInterrupt = null;
    world.device.raise(record({}));
    const { device } = world.device.queues.queues[1]!.areas!;
    expect(world.memory.readU32(device + 8)).toBe(24);
    world.memory.writeU32(device + 8, 25);
    interrupt?.(1);
    expect(faults).toEqual([]);
    expect(world.driver.eventCounts.ignored).toBe(1);
  });
});

it("V120: a device without a buffer has to wait or drop", () => {
  const { world } = listening();
  world.transport.onInterrupt = null;
  let raised = 0;
  while (world.device.raise(record({}))) raised += 1;
  expect(raised).toBe(16);
});

it("V196: interrupts for other queues and without cause are harmless", () => {
  const { world, faults } = listening();
  world.transport.onInterrupt?.(0);
  world.transport.onInterrupt?.(1);
  world.transport.onInterrupt?.(7);
  expect(faults).toEqual([]);
  expect(world.device.raise(record({}))).toBe(true);
  expect(faults).toHaveLength(1);
});
