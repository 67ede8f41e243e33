/** Interrupts of a client: DEVICE_SET_IRQS, statement by statement (U…). */
import { afterEach, describe, expect, it } from "vitest";
import { pack } from "./client.suite.ts";
import { World } from "./world.suite.ts";

const OK = 0;
const EINVAL = 22;
const NONE = 1;
const BOOL = 2;
const EVENTFD = 4;
const MASK = 8;
const UNMASK = 16;
const TRIGGER = 32;
const MSIX = 2;
const ERROR = 3;
const REQUEST = 4;

let world = new World();
const open = (vectors = 2048) => {
  world = new World({ vectors });
  return world.negotiate();
};
afterEach(() => world.end());
const isRung = (fd: number) => world.clientSystem.drain(fd);
const raise = (...vectors: number[]) => {
  for (const vector of vectors) world.interrupts.raise(vector);
  world.interrupts.flush();
};

describe("SET_IRQS", () => {
  it("is refused when it makes no sense, and nothing changes (U74)", () => {
    const client = open();
    const event = () => [world.event()];
    const trigger = EVENTFD | TRIGGER;
    expect(client.errno(8)).toBe(EINVAL);
    expect(client.errno(8, new Uint8Array(8))).toBe(EINVAL);
    expect(client.setIrqs(NONE | TRIGGER, MSIX, 0, 0, { argsz: 3 })).toBe(EINVAL);
    for (const index of [5, 0xffff_ffff]) expect(client.setIrqs(33, index, 0, 0)).toBe(EINVAL);
    for (const flags of [
      NONE | MASK | UNMASK,
      NONE | BOOL | TRIGGER,
      EVENTFD | NONE | TRIGGER,
      NONE,
      TRIGGER,
      0,
      64 | NONE | TRIGGER,
      EVENTFD | MASK,
      EVENTFD | UNMASK,
    ]) {
      expect(client.setIrqs(flags, MSIX, 0, 1)).toBe(EINVAL);
    }
    const file = [world.memoryFile(4096)];
    expect(client.setIrqs(trigger, MSIX, 0, 1, { fds: file }), "no counter").toBe(EINVAL);
    for (const [start, count] of [
      [2047, 2],
      [2049, 1],
      [2048, 1],
      [284, 0xffff_ffff],
      [0xffff_ffff, 1],
    ] as const) {
      expect(client.setIrqs(NONE | TRIGGER, MSIX, start, count)).toBe(EINVAL);
    }
    for (const index of [ERROR, REQUEST]) {
      expect(client.setIrqs(NONE | MASK, index, 0, 1)).toBe(EINVAL);
      expect(client.setIrqs(NONE | TRIGGER, index, 0, 2)).toBe(EINVAL);
    }
    expect(client.setIrqs(NONE | TRIGGER, MSIX, 1, 0)).toBe(EINVAL);
    expect(client.setIrqs(NONE | MASK, MSIX, 0, 0)).toBe(EINVAL);
    expect(client.setIrqs(BOOL | TRIGGER, MSIX, 0, 0)).toBe(EINVAL);
    expect(client.setIrqs(BOOL | TRIGGER, MSIX, 0, 1, { data: pack([1, 1]), fds: event() })).toBe(
      EINVAL,
    );
    expect(client.setIrqs(NONE | TRIGGER, MSIX, 0, 1, { fds: event() })).toBe(EINVAL);
    expect(client.setIrqs(trigger, MSIX, 0, 2, { fds: event() })).toBe(EINVAL);
    expect(client.setIrqs(BOOL | TRIGGER, MSIX, 0, 2, { data: pack([1, 1]) })).toBe(EINVAL);
    expect(client.setIrqs(BOOL | TRIGGER, MSIX, 0, 1, { data: pack([2, 1]) })).toBe(EINVAL);
    expect(client.setIrqs(BOOL | TRIGGER, MSIX, 0, 1, { data: pack([1, 1]), argsz: 20 })).toBe(
      EINVAL,
    );
    expect(client.setIrqs(trigger, MSIX, 0, 1, { fds: event(), data: pack([4, 7]) })).toBe(EINVAL);
    expect([world.interrupts.descriptors, world.interrupts.signals]).toEqual([0, 0]);
  });

  it("assigns, replaces and takes away, closing what is replaced (U75, U81)", () => {
    const client = open();
    const before = world.system.ledger.descriptorCount;
    expect(client.setIrqs(NONE | TRIGGER, MSIX, 0, 0)).toBe(OK);
    expect(client.setIrqs(EVENTFD | TRIGGER, MSIX, 0, 1)).toBe(OK);
    const [first, second] = [world.event(), world.event()];
    expect(client.setIrqs(EVENTFD | TRIGGER, MSIX, 0, 1, { fds: [first] })).toBe(OK);
    expect(client.setIrqs(EVENTFD | TRIGGER, MSIX, 0, 1, { fds: [second] })).toBe(OK);
    expect(world.system.ledger.descriptorCount).toBe(before + 1);
    raise(0);
    expect([isRung(first), isRung(second)]).toEqual([false, true]);
    expect(client.setIrqs(EVENTFD | TRIGGER, MSIX, 0, 1)).toBe(OK);
    expect(client.setIrqs(EVENTFD | TRIGGER, MSIX, 0, 1, { fds: [first] })).toBe(OK);
    expect(client.setIrqs(NONE | TRIGGER, MSIX, 0, 0)).toBe(OK);
    expect(world.system.ledger.descriptorCount).toBe(before);
  });

  it("fires by itself the vectors that it names and no others (U75)", () => {
    const client = open();
    const fds = [world.event(), world.event(), world.event()];
    expect(client.setIrqs(EVENTFD | TRIGGER, MSIX, 0, 3, { fds })).toBe(OK);
    expect(client.setIrqs(NONE | TRIGGER, MSIX, 1, 1)).toBe(OK);
    expect(fds.map(isRung)).toEqual([false, true, false]);
    expect(client.setIrqs(BOOL | TRIGGER, MSIX, 0, 3, { data: unbool(0, 1, 255) })).toBe(OK);
    expect(fds.map(isRung)).toEqual([false, true, true]);
    expect(world.interrupts.signals).toBe(3);
  });

  it("goes through as Linux enables MSI-X for two vectors (QEMU's sequence)", () => {
    const client = open(2);
    expect(client.setIrqs(0x24, MSIX, 0, 1)).toBe(OK);
    expect(client.setIrqs(0x21, MSIX, 0, 0)).toBe(OK);
    expect(client.setIrqs(0x24, MSIX, 0, 1, { fds: [world.event()] })).toBe(OK);
    expect(client.setIrqs(0x21, MSIX, 0, 0)).toBe(OK);
    const fds = [world.event(), world.event()];
    expect(client.setIrqs(0x24, MSIX, 0, 2, { fds })).toBe(OK);
    raise(1);
    expect(fds.map(isRung)).toEqual([false, true]);
  });

  it("a hundred thousand times leaks nothing (U154)", () => {
    const client = open(4);
    const before = world.system.ledger.descriptorCount;
    const fd = world.event();
    for (let round = 0; round < 5000; round += 1) {
      expect(client.setIrqs(EVENTFD | TRIGGER, MSIX, round % 4, 1, { fds: [fd] })).toBe(OK);
      expect(client.setIrqs(NONE | TRIGGER, MSIX, round % 4, 1)).toBe(OK);
      expect(client.setIrqs(EVENTFD | TRIGGER, MSIX, round % 4, 1)).toBe(OK);
    }
    expect(world.system.ledger.descriptorCount).toBe(before);
  });
});

const unbool = (...bytes: number[]) => Uint8Array.from(bytes);

describe("an interrupt", () => {
  it("raised many times before it is passed on is one", () => {
    const client = open(4);
    const fds = [world.event(), world.event()];
    client.setIrqs(EVENTFD | TRIGGER, MSIX, 0, 2, { fds });
    raise(0, 0, 1, 0, 1, 0);
    expect(world.interrupts.signals).toBe(2);
    expect(fds.map(isRung)).toEqual([true, true]);
  });

  it("raised before there is a descriptor goes out when one comes (U78)", () => {
    const client = open(4);
    raise(2);
    const fd = world.event();
    client.setIrqs(EVENTFD | TRIGGER, MSIX, 2, 1, { fds: [fd] });
    expect(isRung(fd)).toBe(true);
    client.setIrqs(EVENTFD | TRIGGER, MSIX, 2, 1, { fds: [fd] });
    expect(isRung(fd)).toBe(false);
  });

  it("raised while it is masked goes out when it is unmasked (U75)", () => {
    const client = open(4);
    const fds = [world.event(), world.event()];
    client.setIrqs(EVENTFD | TRIGGER, MSIX, 0, 2, { fds });
    expect(client.setIrqs(NONE | MASK, MSIX, 0, 2)).toBe(OK);
    raise(0, 1);
    expect(fds.map(isRung)).toEqual([false, false]);
    expect(client.setIrqs(BOOL | UNMASK, MSIX, 0, 2, { data: unbool(0, 1) })).toBe(OK);
    expect(fds.map(isRung)).toEqual([false, true]);
    expect(client.setIrqs(NONE | UNMASK, MSIX, 0, 1)).toBe(OK);
    expect(fds.map(isRung)).toEqual([true, false]);
  });

  it("that waits is forgotten by a reset and by switching the index off (U107)", () => {
    const client = open(4);
    raise(0);
    client.reset();
    raise(1);
    client.setIrqs(NONE | TRIGGER, MSIX, 0, 0);
    const fds = [world.event(), world.event()];
    client.setIrqs(EVENTFD | TRIGGER, MSIX, 0, 2, { fds });
    expect(fds.map(isRung)).toEqual([false, false]);
  });

  it("into something that is no event is dropped, and its descriptor closed (U76)", () => {
    const client = open(4);
    const before = world.system.ledger.descriptorCount;
    const [one, other] = world.clientSystem.socketPair("client") as [number, number];
    world.clientSystem.close(other);
    client.setIrqs(EVENTFD | TRIGGER, MSIX, 0, 1, { fds: [one] });
    raise(0);
    raise(0);
    expect(world.system.ledger.descriptorCount).toBe(before);
  });

  it("of an error tells the client that the device is lost (U73)", () => {
    const client = open(4);
    const fd = world.event();
    expect(client.setIrqs(EVENTFD | TRIGGER, ERROR, 0, 1, { fds: [fd] })).toBe(OK);
    expect(isRung(fd)).toBe(false);
    world.interrupts.fail();
    expect(isRung(fd)).toBe(true);
  });

  it("of a vector beyond the last is a mistake of the function", () => {
    open(4);
    expect(() => world.interrupts.raise(4)).toThrow("raises vectors it has");
  });
});
