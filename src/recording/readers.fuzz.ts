/** Readers against anything: random bytes, mutated real lines, random cuts into chunks. */
import { describe, expect, it } from "vitest";
import { Random } from "../random.ts";
import type { RecordingFamily } from "./kinds.ts";
import { familyExcerpts, readWith } from "./reading.suite.ts";
import { Recogniser } from "./recognise.ts";

const ROUNDS = 600;
const families: readonly RecordingFamily[] = [
  "trace",
  "qemu-log",
  "requests",
  "vfio-type1",
  "vfio-map-time",
];

function randomBytes(random: Random): Uint8Array {
  const letters = new TextEncoder().encode(' \n\r\t[]{}":=-_0123456789abcdefx.,()mapuniovA\0');
  const bytes = new Uint8Array(random.below(2000));
  const isText = random.chance(1, 2);
  for (let at = 0; at < bytes.length; at += 1) {
    bytes[at] = isText ? letters[random.below(letters.length)]! : random.below(256);
  }
  return bytes;
}

/** Flips, drops, doubles and swaps pieces of a text. */
function mutated(random: Random, text: string): Uint8Array {
  let bytes = new TextEncoder().encode(text);
  for (let turn = random.below(6); turn >= 0; turn -= 1) {
    const at = random.below(bytes.length + 1);
    const end = Math.min(bytes.length, at + random.below(random.chance(1, 4) ? 400 : 6));
    const piece = bytes.slice(at, end);
    const before = bytes.slice(0, at);
    const after = bytes.slice(end);
    const sort = random.below(4);
    if (sort === 0) bytes = joined([before, after]);
    else if (sort === 1) bytes = joined([before, piece, piece, after]);
    else if (sort === 2) bytes = joined([before, piece.map(() => random.below(256)), after]);
    else bytes = joined([piece, before, after]);
  }
  return bytes;
}

function joined(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Buffer.concat(parts));
}

function cut(random: Random, bytes: Uint8Array): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  const sizeMax = 1 + random.below(random.chance(1, 3) ? 4 : 500);
  for (let at = 0; at < bytes.length; ) {
    const size = 1 + random.below(sizeMax);
    chunks.push(bytes.subarray(at, at + size));
    at += size;
  }
  return chunks;
}

function check(family: RecordingFamily, bytes: Uint8Array, random: Random): number {
  const whole = readWith(family, [bytes]);
  expect(readWith(family, cut(random, bytes))).toEqual(whole);
  return whole.length;
}

describe("every reader", () => {
  it("gives the same for random bytes however they are cut, and never throws", () => {
    const random = new Random(1);
    for (let round = 0; round < ROUNDS; round += 1) {
      const bytes = randomBytes(random);
      for (const family of families) check(family, bytes, random);
    }
  });

  it("gives the same for mutated lines however they are cut, and never throws", () => {
    const random = new Random(2);
    const excerpts = Object.values(familyExcerpts);
    let entries = 0;
    for (let round = 0; round < ROUNDS; round += 1) {
      const { family, text } = excerpts[random.below(excerpts.length)]!;
      entries += check(family, mutated(random, text), random);
    }
    expect(entries).toBeGreaterThan(ROUNDS * 4);
  });

  it("reads another reader's lines without an event of its own", () => {
    for (const { family, text } of Object.values(familyExcerpts)) {
      for (const other of families.filter((name) => name !== family)) {
        const entries = readWith(other, [new TextEncoder().encode(text)]);
        expect(entries.filter((entry) => entry.startsWith("event"))).toEqual([]);
      }
    }
  });
});

describe("the recogniser", () => {
  it("says the same however its bytes are cut, and never throws", () => {
    const random = new Random(3);
    const excerpts = Object.values(familyExcerpts);
    for (let round = 0; round < ROUNDS; round += 1) {
      const bytes = random.chance(1, 2)
        ? randomBytes(random)
        : mutated(random, excerpts[random.below(excerpts.length)]!.text);
      const kinds = [[bytes], cut(random, bytes)].map((chunks) => {
        const recogniser = new Recogniser();
        for (const chunk of chunks) recogniser.push(chunk);
        recogniser.end();
        return recogniser.kind?.name ?? recogniser.error("file").message;
      });
      expect(kinds[1]).toBe(kinds[0]);
    }
  });
});
