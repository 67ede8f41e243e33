/** Fuzzes reading of devicetrees: QEMU's blobs and small ones with words, bytes and parts damaged. */
import { expect, it } from "vitest";
import { StackError } from "../../errors.ts";
import { Random } from "../../random.ts";
import { richMachine } from "../acpi/rich-machine.suite.ts";
import { decodeBlob, encodeBlob } from "./blob.ts";
import { flatten } from "./blob-write.ts";
import { buildDevicetree } from "./build.ts";
import { vector, vectorNames } from "./devicetree.suite.ts";
import { readDevicetree } from "./reader.ts";
import { writeSource } from "./source.ts";

const LIVES = 4_000;
const interesting = [0, 1, 2, 3, 4, 9, 16, 17, 0x40, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff];
const ours = richMachine.iommus.filter(({ kind }) => kind.startsWith("virtio"));
const sources = [
  ...vectorNames.map((name) => flatten(decodeBlob(vector(name)))),
  flatten(buildDevicetree({ ...richMachine, iommus: ours })),
];

function damaged(random: Random): Uint8Array {
  let bytes = sources[random.below(sources.length)]!.slice();
  for (let wound = random.below(5); wound >= 0; wound -= 1) {
    const at = random.below(bytes.length);
    if (random.chance(1, 2)) {
      const word = interesting[random.below(interesting.length)]!;
      if ((at & ~3) + 4 <= bytes.length) new DataView(bytes.buffer).setUint32(at & ~3, word);
    } else if (random.chance(9, 10)) bytes[at] = random.below(256);
    else bytes = bytes.slice(0, at + 1);
  }
  return bytes;
}

/** Reads a blob in every way. @returns what came of it */
function readOnce(bytes: Uint8Array): string {
  try {
    const blob = decodeBlob(bytes, "fuzz");
    expect(Buffer.compare(encodeBlob(blob), bytes)).toBe(0);
    const again = flatten(blob);
    expect(Buffer.compare(flatten(decodeBlob(again)), again)).toBe(0);
    const { findings } = readDevicetree(blob.root);
    writeSource(blob);
    return findings[0]?.code ?? "read";
  } catch (error) {
    if (!(error instanceof StackError)) throw error;
    return error.code;
  }
}

it(`reads ${LIVES} damaged blobs without a crash, and gives their bytes back`, () => {
  const random = new Random(4);
  const outcomes = new Map<string, number>();
  for (let life = 0; life < LIVES; life += 1) {
    const outcome = readOnce(damaged(random));
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  }
  // A fuzzer that never gets past the first check shows nothing.
  expect(outcomes.get("read")).toBeGreaterThan(LIVES / 10);
  expect(outcomes.size).toBeGreaterThan(12);
});
