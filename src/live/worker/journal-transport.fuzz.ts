/**
 * Streams of any messages in any pieces, through sockets with little room, to workers that are
 * killed again and again: each message is answered once, in order, and brings its descriptors.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CrashWorld, joined, message } from "./crash-world.suite.ts";
import { recoverStream } from "./journal-transport.ts";

const seed = Number(process.env.FUZZ_SEED ?? 20261121);
const runs = Number(process.env.FUZZ_RUNS ?? 80);

const plan = fc.record({
  messages: fc.array(
    fc.record({
      payload: fc.oneof(fc.nat(64), fc.nat(3000), fc.nat(20_000)),
      fds: fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, fc.nat(3)),
    }),
    { minLength: 1, maxLength: 8 },
  ),
  pieces: fc.array(fc.integer({ min: 1, max: 50_000 }), { minLength: 1, maxLength: 30 }),
  socketBytes: fc.constantFrom(4096, 70_000, 212_992),
  kills: fc.array(fc.integer({ min: 1, max: 60 }), { maxLength: 12 }),
});

type Plan = typeof plan extends fc.Arbitrary<infer T> ? T : never;

function check({ messages, pieces, socketBytes, kills }: Plan): void {
  const world = new CrashWorld(kills, socketBytes);
  const event = world.client.createEvent("client");
  const whole = messages.map(({ payload }, index) => message(index + 1, payload));
  const expected = joined(
    ...whole.map((bytes, index) => {
      const reply = bytes.slice().fill(index + 1, 16);
      reply[8] = 1;
      return reply;
    }),
  );
  const replies: Uint8Array[] = [];
  let piece = 0;
  let signals = 0;
  let turnsLeft = 2000;
  const turn = () => {
    turnsLeft -= 1;
    expect(turnsLeft, "everything is answered in time").toBeGreaterThan(0);
    world.run();
    replies.push(world.receive());
    if (world.client.drain(event)) signals += 1;
  };
  for (const [index, bytes] of whole.entries()) {
    const fds = new Array(messages[index]!.fds).fill(event);
    for (let at = 0; at < bytes.length; ) {
      // Single bytes are tried where messages are short; long ones would take all day.
      const most = Math.max(pieces[piece++ % pieces.length]!, bytes.length >> 5);
      const sent = world.trySend(bytes.subarray(at, at + most), at === 0 ? fds : []);
      at += sent;
      if (sent === 0 || piece % 3 === 0) turn();
    }
  }
  const bytesOf = () => replies.reduce((sum, { length }) => sum + length, 0);
  while (bytesOf() < expected.length) turn();
  turn();
  expect(Buffer.compare(joined(...replies), expected)).toBe(0);
  expect(signals > 0).toBe(messages.some(({ fds }) => fds > 0));
  const wanted = messages.reduce((sum, { fds }) => sum + fds, 0);
  expect(world.lastState.fds).toHaveLength(wanted);
  expect(new Set(world.lastState.fds).size).toBe(wanted);
}

describe("streams of killed workers", () => {
  it("bring every message and descriptor once", () => {
    fc.assert(fc.property(plan, check), { seed, numRuns: runs });
  });

  it("would not without the kernel's counts: the fuzzer notices", () => {
    const blind: typeof recoverStream = (journal, kept) => {
      journal.received.forget();
      return recoverStream(journal, kept);
    };
    const property = fc.property(plan, (each) => {
      CrashWorld.recover = blind;
      try {
        check(each);
      } finally {
        CrashWorld.recover = recoverStream;
      }
    });
    expect(fc.check(property, { seed, numRuns: runs, endOnFailure: true }).failed).toBe(true);
  });
});
