import { describe, expect, it } from "vitest";
import { VfioType1Reader } from "./vfio-type1-reader.ts";
import { type VfioCall, VfioOp, type VfioOpen } from "./vfio-type1-row.ts";

const OPEN = '{"op":"open","seed":1,"type":3,"memlock":-1,"api":0,"group_flags":1}';
const MAP =
  '{"op":"map","argsz":32,"flags":3,"region":"ro","offset":"0x3000","iova":"0x34000","size":"0xe000","errno":17}';

function readAll(text: string, chunkBytes = 1 << 20) {
  const opens: VfioOpen[] = [];
  const calls: VfioCall[] = [];
  const reader = new VfioType1Reader({
    open: (open) => opens.push(open),
    call: (call) => calls.push(Object.assign(Object.create(null), call)),
  });
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length; at += chunkBytes) {
    reader.push(bytes.subarray(at, at + chunkBytes));
  }
  reader.end();
  const problems = reader.notes.unreadableLines.map(({ line, problem }) => `${line} ${problem}`);
  return { opens, calls, problems, reader };
}

describe("VfioType1Reader", () => {
  it("reads what a program began with, and the memory it has when it names none", () => {
    const { opens } = readAll(`${OPEN}\n`);
    expect(opens).toMatchObject([
      { line: 1, type: 3, memlockBytes: null, api: 0, groupFlags: 1, isCoherent: null },
    ]);
    expect(opens[0]!.regions.map(({ name, pages }) => [name, pages])).toEqual([
      ["buf", 256],
      ["ro", 16],
      ["hole", 16],
    ]);
  });

  it("reads limits, coherency and regions of its own", () => {
    const { opens } = readAll(
      '{"op":"open","type":1,"memlock":131072,"api":0,"group_flags":3,"coherent":1,"regions":{"a":{"pages":2,"sort":"wx"},"b":{"pages":9,"sort":"r"}}}\n',
    );
    expect(opens[0]).toMatchObject({ memlockBytes: 131_072, isCoherent: true });
    expect(opens[0]!.regions).toEqual([
      { name: "a", pages: 2, sorts: ["w", "x"] },
      { name: "b", pages: 9, sorts: ["r"] },
    ]);
  });

  it.each([1, 7, 1 << 20])("reads a map call, in chunks of %i bytes", (chunkBytes) => {
    const { calls, problems } = readAll(`${OPEN}\r\n\n${MAP}`, chunkBytes);
    expect(problems).toEqual([]);
    expect(calls).toMatchObject([
      {
        line: 3,
        op: VfioOp.MAP,
        argsz: 32,
        flags: 3,
        region: 1,
        offsetPfn: 3,
        iovaPfn: 0x34,
        sizePfn: 0xe,
        errno: 17,
      },
    ]);
  });

  it("an unmap without argsz says the size that its bitmap makes", () => {
    const unmap = '{"op":"unmap","flags":0,"iova":"0x0","size":"0x0","errno":0,"unmapped":"0x0"';
    const { calls } = readAll(
      `${unmap}}\n${unmap},"pgsize":4096,"bitmap_size":2,"bitmap":"ff00"}\n`,
    );
    expect(calls.map(({ argsz, hasBitmap }) => [argsz, hasBitmap])).toEqual([
      [24, false],
      [48, true],
    ]);
    expect([...calls[1]!.bitmap!]).toEqual([0xff, 0]);
  });

  it("64-bit values survive whole", () => {
    const { calls } = readAll(
      '{"op":"unmap","flags":0,"iova":"0xffffffffffffd123","size":"0x8000000000000000","errno":75,"unmapped":"0xffffffffffffffff"}\n',
    );
    expect(calls[0]).toMatchObject({
      iovaPfn: 2 ** 52 - 3,
      iovaOffset: 0x123,
      sizePfn: 2 ** 51,
      unmappedPfn: 2 ** 52 - 1,
      unmappedOffset: 0xfff,
    });
  });

  it.each([
    ["a torn line", `${MAP.slice(0, 60)}\n`, "2 torn"],
    ["a line that is no object", "[1,2]\n", "2 torn"],
    ["an object without op", '{"i":1}\n', "2 not a known row"],
    [
      "a key twice",
      `${MAP.replace('"errno":17', '"errno":17,"errno":0')}\n`,
      "2 a key stands twice",
    ],
    ["a missing field", `${MAP.replace('"flags":3,', "")}\n`, "2 a field is missing or wrong"],
    ["2^64", `${MAP.replace("0xe000", "0x10000000000000000")}\n`, "2 a field is missing or wrong"],
    [
      "flags of 33 bits",
      `${MAP.replace('"flags":3', '"flags":4294967296')}\n`,
      "2 a field is missing or wrong",
    ],
    ["a negative errno", `${MAP.replace(":17", ":-17")}\n`, "2 a field is missing or wrong"],
    ["a region nobody has", `${MAP.replace('"ro"', '"rw"')}\n`, "2 a field is missing or wrong"],
    ["an info without pgsizes", '{"op":"info","flags":3}\n', "2 a field is missing or wrong"],
    [
      "ranges out of order",
      '{"op":"info","flags":3,"pgsizes":"0x1000","caps":[{"id":1,"version":1,"iova_ranges":[["0x5000","0x5fff"],["0x0","0xfff"]]}]}\n',
      "2 a field is missing or wrong",
    ],
    [
      "regions of no pages",
      '{"op":"open","type":3,"memlock":-1,"api":0,"group_flags":1,"regions":{"a":{"pages":0,"sort":"w"}}}\n',
      "2 a field is missing or wrong",
    ],
    ["a line of 65 KiB", `{"op":"${"x".repeat(65 * 1024)}"}\n`, "2 too long"],
  ])("%s is reported with its line and left out", (_what, text, problem) => {
    const { calls, problems } = readAll(`${OPEN}\n${text}${MAP}\n`);
    expect(problems).toEqual([problem]);
    expect(calls).toHaveLength(1);
  });

  const get =
    '{"op":"dirty","argsz":48,"flags":4,"iova":"0x0","size":"0x80000","pgsize":"0x1000","bitmap_size":"0x10","errno":0';
  const unmapGet =
    '{"op":"unmap","flags":1,"iova":"0x0","size":"0x1000","errno":0,"unmapped":"0x0"';
  it.each([
    ["shorter", `${get},"bitmap":"0020"}`],
    ["empty", `${get},"bitmap":""}`],
    ["absent", `${get}}`],
    ["null", `${get},"bitmap":null}`],
    ["absent from an unmap", `${unmapGet},"pgsize":4096,"bitmap_size":8}`],
    ["absent from an unmap with its size", `${unmapGet}}`],
  ])("a dirty bitmap that is %s makes the call unreadable, unless it failed", (_what, text) => {
    expect(readAll(`${text}\n`).problems).toEqual(["1 a field is missing or wrong"]);
    const failed = text.replace('"errno":0', '"errno":22').replace(/,"bitmap":[^}]*/, "");
    expect(readAll(`${failed}\n`).problems).toEqual([]);
  });

  it.each([1, 2, 7, 1 << 20])("skips a byte order mark, in chunks of %i bytes", (chunkBytes) => {
    const { opens, problems } = readAll(`\ufeff${OPEN}\n`, chunkBytes);
    expect([opens.length, problems]).toEqual([1, []]);
  });

  it("calls of kinds that are not known are counted by name", () => {
    const { reader } = readAll(`${OPEN}\n{"op":"spin"}\n{"op":"attach"}\n{"op":"spin"}\n`);
    expect(reader.unknownCalls()).toEqual([
      { name: "spin", count: 2 },
      { name: "attach", count: 1 },
    ]);
  });
});
