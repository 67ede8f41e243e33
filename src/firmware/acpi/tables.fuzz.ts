/** Fuzzes reading of tables: mutations of real ones, lengths and counts turned hostile. */
import { expect, it } from "vitest";
import { StackError } from "../../errors.ts";
import { Random } from "../../random.ts";
import { dumpItem } from "../table-dump.ts";
import { encodeItem } from "../table-item.ts";
import { decodeTable } from "./decode.ts";
import { seal } from "./header.ts";
import { readTables } from "./machine-parts.ts";
import { vector, vectorNames } from "./tables.suite.ts";

const LIVES = 10_000;
const interesting = [0, 1, 2, 3, 4, 7, 8, 15, 16, 20, 24, 0x40, 0x7f, 0x80, 0xf0, 0xff];
const sources = vectorNames
  .filter((name) => /(VIOT|IORT|SRAT|SLIT|DMAR|IVRS|MCFG)/.test(name))
  .map(vector);

/** A damaged table: bytes changed, parts doubled, moved or cut, sealed again most of the time. */
function damaged(random: Random): Uint8Array {
  let bytes: Uint8Array = sources[random.below(sources.length)]!.slice();
  const wounds = 1 + random.below(6);
  for (let wound = 0; wound < wounds; wound += 1) {
    const at = 36 + random.below(Math.max(1, bytes.length - 36));
    const end = Math.min(bytes.length, at + 1 + random.below(64));
    switch (random.below(5)) {
      case 0:
        if (at < bytes.length) bytes[at] = random.below(256);
        break;
      case 1:
        if (at < bytes.length) bytes[at] = interesting[random.below(interesting.length)]!;
        break;
      case 2:
        bytes = joined(bytes.subarray(0, end), bytes.subarray(at));
        break;
      case 3:
        bytes = joined(bytes.subarray(0, at), bytes.subarray(end));
        break;
      default:
        bytes = joined(bytes, bytes.subarray(48));
    }
    if (bytes.length > 20_000) bytes = bytes.slice(0, 20_000);
  }
  return random.chance(9, 10) && bytes.length >= 36 ? seal(bytes) : bytes;
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const out = new Uint8Array(a.length + b.length);
  out.set(a);
  out.set(b, a.length);
  return out;
}

/** Reads a table in every way. @returns codes of what was found, or what was wrong */
function readOnce(bytes: Uint8Array, encode = encodeItem): string[] {
  let table: ReturnType<typeof decodeTable>;
  try {
    table = decodeTable(bytes);
  } catch (error) {
    if (error instanceof StackError) return [error.code];
    throw error;
  }
  if (Buffer.compare(encode(table.root), bytes) !== 0) return ["DIFFERENT"];
  dumpItem(table.root);
  const { machine, findings } = readTables([table]);
  for (const iommu of machine.iommus) {
    for (const { firstRid, lastRid, firstId } of iommu.translates) {
      if (firstRid > lastRid || lastRid > 0xffff || firstId < 0) return ["WILD RANGE"];
    }
  }
  for (const { at } of findings[0]!) if (at < 0 || at > bytes.length) return ["WILD OFFSET"];
  return findings[0]!.map((finding) => finding.code);
}

it(`${LIVES} damaged tables are read without a crash, come back, and give sane ranges`, () => {
  const seen = new Set<string>();
  for (let seed = 1; seed <= LIVES; seed += 1) {
    const codes = readOnce(damaged(new Random(seed)));
    for (const code of codes) seen.add(code);
    expect(codes, `seed ${seed}`).not.toContain("DIFFERENT");
    expect(codes, `seed ${seed}`).not.toContain("WILD RANGE");
    expect(codes, `seed ${seed}`).not.toContain("WILD OFFSET");
  }
  // A fuzzer that never gets past the first check shows nothing.
  for (const code of [
    "acpi/checksum",
    "firmware/record-length",
    "firmware/record-short",
    "firmware/part-misplaced",
    "viot/output-node",
    "viot/overlap",
    "iort/reference",
    "srat/refused",
    "slit/invalid",
    "dmar/walk",
    "ivrs/hang",
  ]) {
    expect(seen, code).toContain(code);
  }
});

it("finds a planted encoder that forgets bytes between structures", () => {
  const forgetful: typeof encodeItem = (root) => {
    const items = root.items.filter((item) => item.kind !== "bytes");
    const out = new Uint8Array(encodeItem(root).length);
    out.set(encodeItem({ ...root, items }).subarray(0, out.length));
    return out;
  };
  let found = 0;
  for (let seed = 1; seed <= 2000 && found === 0; seed += 1) {
    if (readOnce(damaged(new Random(seed)), forgetful).includes("DIFFERENT")) found = seed;
  }
  expect(found).toBeGreaterThan(0);
});
