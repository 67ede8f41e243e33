/** Real tables, templates of iasl and damaged ones, decoded and encoded again. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { StackError } from "../../errors.ts";
import { encodeItem, type Item } from "../table-item.ts";
import { decodeTable, TABLE_BYTES_MAX } from "./decode.ts";
import { byteSum, seal } from "./header.ts";
import { codesOf, findingsOf, le, patched, tableOf, vector, vectorNames } from "./tables.suite.ts";

/** Where the items of a tree leave a byte out, overlap or are empty; null where all is well. */
function holeIn(item: Item): number | null {
  if (item.kind !== "structure") return null;
  let cursor = item.at + item.format.layout.bytes;
  for (const inner of item.items) {
    if (inner.at !== cursor || inner.length === 0) return cursor;
    cursor += inner.length;
    const hole = holeIn(inner);
    if (hole !== null) return hole;
  }
  return cursor >= item.at + item.length ? null : cursor;
}

/** Whether a table's bytes come back as they were. */
function isSameAgain(bytes: Uint8Array): boolean {
  return Buffer.compare(encodeItem(decodeTable(bytes).root), bytes) === 0;
}

describe("a real table", () => {
  it("there are enough of them to mean something", () => {
    expect(vectorNames.length).toBeGreaterThan(25);
  });

  it.each(vectorNames)("%s comes back byte for byte, without finding", (name) => {
    const bytes = vector(name);
    const table = decodeTable(bytes);
    expect(encodeItem(table.root)).toEqual(bytes);
    expect(table.findings).toEqual([]);
    expect(holeIn(table.root)).toBe(null);
  });

  it.each(vectorNames)("%s cut at any byte comes back, or is refused with its offset", (name) => {
    const bytes = vector(name);
    for (let length = 0; length < bytes.length; length += 1) {
      const cut = bytes.subarray(0, length);
      if (length < 36) expect(() => decodeTable(cut)).toThrow(StackError);
      else {
        const table = decodeTable(cut);
        expect(isSameAgain(cut)).toBe(true);
        expect(table.findings.map((one) => one.code)).toContain("acpi/length");
        expect(holeIn(table.root)).toBe(null);
      }
    }
  });
});

describe("any bytes", () => {
  const signatures = ["VIOT", "IORT", "SRAT", "SLIT", "DMAR", "IVRS", "MCFG", "FACS", "ABCD"];

  it("behind a header of any kind come back byte for byte, every byte in one place", () => {
    const tables = fc.record({
      signature: fc.constantFrom(...signatures),
      body: fc.uint8Array({ minLength: 0, maxLength: 400 }),
      offset: fc.constantFrom(40, 48, 52, 60),
    });
    fc.assert(
      fc.property(tables, ({ signature, body, offset }) => {
        const bytes = tableOf(signature, 5, [...body]);
        // Half of the time a plausible place for the first node, so that more than a head is read.
        if (signature === "IORT" && bytes.length > 44) bytes.set(le(offset, 4), 40);
        if (signature === "VIOT" && bytes.length > 40) bytes.set(le(offset, 2), 38);
        const table = decodeTable(bytes);
        expect(encodeItem(table.root)).toEqual(bytes);
        expect(holeIn(table.root)).toBe(null);
      }),
      { seed: 5, numRuns: 1500 },
    );
  });

  it.each(vectorNames)("%s with any byte changed comes back byte for byte", (name) => {
    const bytes = vector(name);
    for (let at = 4; at < bytes.length; at += 1) {
      for (const value of [0, 1, 0x7f, 0xff]) {
        const changed = bytes.slice();
        changed[at] = value;
        if (!isSameAgain(changed)) expect.fail(`${name} with ${value} at ${at}`);
      }
    }
  });
});

describe("a header", () => {
  const slit = vector("qemu-intel/SLIT");

  it("is sealed with its length and a checksum that makes the sum 0", () => {
    const bytes = slit.slice();
    bytes[40] = 77;
    bytes[4] = 0;
    expect(byteSum(seal(bytes))).toBe(0);
    expect(bytes[4]).toBe(slit.length);
  });

  it("with a wrong checksum gives the right one", () => {
    const bytes = slit.slice();
    bytes[9] = 0;
    expect(findingsOf(bytes)).toMatchObject([
      { code: "acpi/checksum", at: 9, message: "The checksum is 0x00, and should be 0xe8" },
    ]);
  });

  it("that is shorter than the file leaves the rest behind the end, and keeps it", () => {
    const bytes = Uint8Array.from([...slit, 1, 2, 3]);
    const table = decodeTable(bytes);
    expect(table.findings).toMatchObject([{ code: "acpi/bytes-behind", at: slit.length }]);
    expect(encodeItem(table.root)).toEqual(bytes);
  });

  it.each([
    ["0", 0],
    ["35", 35],
    ["one more than the file has", slit.length + 1],
    ["2^32 - 1", 0xffff_ffff],
  ])("with length %s is a finding, not a crash", (_what, length) => {
    const bytes = slit.slice();
    bytes.set(le(length, 4), 4);
    expect(codesOf(bytes)).toContain("acpi/length");
  });

  it("with too few bytes for the table's own part is shown as header and body", () => {
    expect(codesOf(tableOf("DMAR", 1, [1, 2, 3]))).toEqual(["acpi/fixed-part"]);
  });

  it("of an unknown table is enough", () => {
    expect(codesOf(tableOf("XYZW", 1, [1, 2, 3]))).toEqual([]);
  });

  it("of fewer than 36 bytes and of a file too large is refused", () => {
    expect(() => decodeTable(new Uint8Array(35))).toThrow(/36 bytes of header/);
    expect(() => decodeTable(new Uint8Array(TABLE_BYTES_MAX + 1))).toThrow(StackError);
  });

  it("may be patched and sealed by tests", () => {
    expect(codesOf(patched(slit, [44, 10]))).toEqual([]);
  });
});
