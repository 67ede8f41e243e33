/** Regions that the client maps: doorbells that are stores to memory (U60, U62, U65). */
import { afterEach, describe, expect, it } from "vitest";
import type { System } from "../system/system.ts";
import { hexOf, pack } from "./client.suite.ts";
import { createDoorbells, type DoorbellRegion, type MappableArea } from "./mappable-region.ts";
import { World } from "./world.suite.ts";

let world = new World();
let dispose = () => {};
const open = (width: 2 | 4, areas?: readonly MappableArea[]) => {
  const doorbells = (system: System): readonly DoorbellRegion[] => {
    const made = createDoorbells(system, {
      index: 2,
      bytes: 0x1000,
      slots: { first: 0x100, stride: 4, width, count: 8 },
      owner: "doorbells",
      ...(areas === undefined ? {} : { areas }),
    });
    if (typeof made === "number") throw new Error("doorbells are made");
    dispose = made.dispose;
    return [made.region];
  };
  world = new World({ doorbells });
  return world.negotiate();
};
afterEach(() => {
  world.server.disconnect();
  dispose();
  world.end();
});
const ask = (argsz: number) => pack([4, argsz], [4, 0], [4, 2], [4, 0], [8, 0], [8, 0]);

/** Maps the region as a client does. */
function mapped(client: ReturnType<typeof open>) {
  const { fds } = client.ask(5, ask(32));
  const mapping = client.system.map(
    { fd: fds[0]!, offset: 0, bytes: 0x1000, access: "shared" },
    "client",
  );
  if (typeof mapping === "number") throw new Error("the client maps the region");
  client.system.close(fds[0]!);
  return mapping;
}

describe("a region that can be mapped", () => {
  it("is told with its flag and one descriptor (U65)", () => {
    const client = open(2);
    const { payload, fds } = client.ask(5, ask(32));
    expect(hexOf(payload)).toBe(hexOf(pack([4, 32], [4, 7], [4, 2], [4, 0], [8, 0x1000], [8, 0])));
    expect(fds.length).toBe(1);
    client.system.close(fds[0]!);
    expect(client.ask(5, pack([4, 32], [4, 0], [4, 0], [4, 0], [8, 0], [8, 0])).fds).toEqual([]);
  });

  it("in part is told with its areas, once there is room for them (U60, U62)", () => {
    const client = open(2, [
      { offset: 0, bytes: 0x1000 },
      { offset: 0x2000, bytes: 0x1000 },
    ]);
    const first = client.ask(5, ask(32));
    expect(first.payload.length).toBe(32);
    expect([0, 4, 12].map((at) => first.view.getUint32(at, true))).toEqual([80, 7, 0]);
    expect(first.fds).toEqual([]);
    const { payload, view, fds } = client.ask(5, ask(80));
    expect([0, 4, 12].map((at) => view.getUint32(at, true))).toEqual([80, 15, 32]);
    expect(hexOf(payload.subarray(32))).toBe(
      hexOf(
        pack([2, 1], [2, 1], [4, 0], [4, 2], [4, 0], [8, 0], [8, 0x1000], [8, 0x2000], [8, 0x1000]),
      ),
    );
    expect(fds.length).toBe(1);
    client.system.close(fds[0]!);
  });

  it("keeps its descriptor apart from the replies around it (U2, U3)", () => {
    const client = open(2);
    client.send(13);
    client.send(5, ask(32));
    client.send(13);
    client.send(5, ask(32));
    const answers = client.drain();
    expect(answers.map(({ fds }) => fds.length)).toEqual([0, 1, 0, 1]);
    for (const { fds } of answers) for (const fd of fds) client.system.close(fd);
  });
});

describe("a mapped doorbell", () => {
  it("of queue 0 and others reaches the function with what was stored", () => {
    const client = open(2);
    expect(world.server.needsPolling).toBe(true);
    const mapping = mapped(client);
    const words = new Uint16Array(mapping.buffer, mapping.byteOffset, 0x800);
    Atomics.store(words, 0x80, 0);
    Atomics.store(words, 0x86, 3);
    world.settle();
    expect(world.function.log).toEqual(["2 256 0,0", "2 268 3,0"]);
    world.settle();
    expect(world.function.log.length).toBe(2);
    Atomics.store(words, 0x80, 0);
    world.settle();
    expect(world.function.log.length).toBe(3);
    client.system.unmap(mapping);
  });

  it("that is rung again and again is passed on with the last value", () => {
    const client = open(4);
    const mapping = mapped(client);
    const words = new Uint32Array(mapping.buffer, mapping.byteOffset, 0x400);
    for (let tail = 0; tail < 10; tail += 1) Atomics.store(words, 0x40, tail);
    world.settle();
    expect(world.function.log).toEqual(["2 256 9,0,0,0"]);
    client.system.unmap(mapping);
  });

  it("rests after a reset of the device", () => {
    const client = open(4);
    const mapping = mapped(client);
    const words = new Uint32Array(mapping.buffer, mapping.byteOffset, 0x400);
    Atomics.store(words, 0x40, 5);
    client.send(13);
    world.server.service();
    expect(Atomics.load(words, 0x40)).toBe(0xffff_ffff);
    expect(world.function.log).toEqual([]);
    client.drain();
    client.system.unmap(mapping);
  });
});
