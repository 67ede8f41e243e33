import { describe, expect, it } from "vitest";
import { StackError } from "../../errors.ts";
import { unwaivedOf } from "./checking.suite.ts";
import { checkType1, headLines, TYPE1_VECTORS, vectorText } from "./vfio-checking.suite.ts";

const map = (fields: Record<string, unknown> = {}) =>
  `${JSON.stringify({ op: "map", argsz: 32, flags: 3, region: "buf", offset: "0x0", iova: "0x10000", size: "0x4000", errno: 0, ...fields })}\n`;
const unmap = (fields: Record<string, unknown> = {}) =>
  `${JSON.stringify({ op: "unmap", flags: 0, iova: "0x0", size: "0x100000", errno: 0, unmapped: "0x4000", ...fields })}\n`;

describe("VfioType1Checker", () => {
  it.each(TYPE1_VECTORS)(
    "%s: every call is answered as Linux 7.2 did, without a waiver",
    (name) => {
      const { tally, diagnostics } = checkType1(vectorText(name));
      expect(unwaivedOf({ tally } as never)).toEqual([]);
      expect(tally.compared).toBeGreaterThan(395);
      expect([tally.matched, tally.waived]).toEqual([tally.compared, 0]);
      expect(diagnostics).toEqual([]);
    },
  );

  it.each([
    ["errno", '"errno":17', '"errno":28', /EEXIST|ENOSPC/],
    [
      "the size of an unmap",
      '"errno":22,"unmapped":"0x',
      '"errno":22,"unmapped":"0x1","was":"0x',
      /EINVAL size/,
    ],
    ["GET_INFO's page sizes", '"pgsize_bitmap":"0x1000"', '"pgsize_bitmap":"0x2000"', /migration/],
    [
      "dma_avail at the end",
      '"final","dma_avail":6',
      '"final","dma_avail":7',
      /dma_avail at the end/,
    ],
    ["an extension", '"ext":9,"ret":1', '"ext":9,"ret":0', /extension 9/],
    ["group flags", '"group_flags":1', '"group_flags":3', /group flags 3/],
  ])("%s recorded otherwise: the rows that say so diverge", (_what, from, to, text) => {
    const recorded = vectorText("vfio-vtd-v2-seed3.jsonl.gz");
    const changed = recorded.split(from).length - 1;
    expect(changed).toBeGreaterThan(0);
    const outcome = checkType1(recorded.replaceAll(from, to));
    expect(outcome.tally.unwaived).toBe(changed);
    expect(unwaivedOf(outcome)[0]).toMatch(text);
  });

  it("a bit of a dirty bitmap recorded otherwise diverges", () => {
    const recorded = vectorText("vfio-amd-v2-seed103.jsonl.gz");
    const lines = recorded.split("\n");
    const at = lines.findIndex((line) => /"op":"dirty".*"bitmap":"[0-9a-f]*[1-9a-f]/.test(line));
    lines[at] = lines[at]!.replace(/"bitmap":"(..)/, (_all, byte: string) => {
      return `"bitmap":"${(Number.parseInt(byte, 16) ^ 1).toString(16).padStart(2, "0")}`;
    });
    const outcome = checkType1(lines.join("\n"));
    expect(unwaivedOf(outcome)).toHaveLength(1);
    expect(unwaivedOf(outcome)[0]).toMatch(/^\d+: DIRTY_PAGES .* byte 0 of the bitmap is 0x/);
  });

  it("a divergence names the call, what was recorded and what we answer", () => {
    const outcome = checkType1(headLines() + map({ errno: 14 }) + unmap({ unmapped: "0x5000" }));
    expect(unwaivedOf(outcome)).toEqual([
      "3: MAP_DMA argsz=32 flags=3 buf+0x0 iova=0x10000 size=0x4000: EFAULT, OK",
      "4: UNMAP_DMA argsz=24 flags=0 iova=0x0 size=0x100000: OK size 0x5000, OK size 0x4000",
    ]);
  });

  it("the recorded limit of locked memory holds, page by page of each mapping", () => {
    const text =
      headLines({ memlock: 6 * 4096 + 4095 }) +
      map() +
      map({ iova: "0x20000", errno: 12 }) +
      map({ iova: "0x30000", size: "0x2000" }) +
      map({ iova: "0x40000", size: "0x1000", errno: 12 });
    expect(unwaivedOf(checkType1(text))).toEqual([]);
  });

  it("regions of the first line are the program's memory", () => {
    const regions = { torn: { pages: 4, sort: "wxrn" } };
    const at = (page: number, errno: number, flags = 3) =>
      map({
        region: "torn",
        offset: `0x${page}000`,
        size: "0x1000",
        iova: `0x${page}0000`,
        flags,
        errno,
      });
    const text =
      headLines({ regions }) + at(0, 0) + at(1, 14) + at(2, 14) + at(2, 0, 1) + at(3, 14, 1);
    expect(unwaivedOf(checkType1(text))).toEqual([]);
  });

  it("64 KiB granules of a recorded SMMU are the alignment that counts", () => {
    const text = headLines({}, "0x20010000").replace(
      '"pgsize_bitmap":"0x1000"',
      '"pgsize_bitmap":"0x10000"',
    );
    const outcome = checkType1(
      text +
        map({ errno: 22 }) +
        map({ size: "0x10000", offset: "0x1000", errno: 22 }) +
        map({ size: "0x10000" }),
    );
    expect(unwaivedOf(outcome)).toEqual([]);
  });

  it("the hole of a software MSI window is no place for a mapping", () => {
    const text = headLines().replace(
      '[["0x0","0xfedfffff"],["0xfef00000","0xffffffffffff"]]',
      '[["0x0","0x7ffffff"],["0x8100000","0xffffffffffff"]]',
    );
    const outcome = checkType1(
      text +
        map({ iova: "0x8000000", errno: 22 }) +
        map({ iova: "0x80ff000", errno: 22 }) +
        map({ iova: "0x8100000" }),
    );
    expect(unwaivedOf(outcome)).toEqual([]);
  });

  it("coherency is the hardware's: the first answer counts, a second one that differs diverges", () => {
    const cc = (ret: number) => `{"op":"check_extension","ext":4,"ret":${ret}}\n`;
    expect(checkType1(headLines() + cc(1) + cc(1)).tally).toMatchObject({
      compared: 3,
      matched: 3,
    });
    expect(unwaivedOf(checkType1(headLines() + cc(1) + cc(0)))).toHaveLength(1);
    expect(unwaivedOf(checkType1(headLines({ coherent: 1 }) + cc(0)))).toHaveLength(1);
  });

  it("a second container in the same file begins anew", () => {
    const outcome = checkType1(
      headLines() + map() + headLines({ type: 1 }) + map() + map({ errno: 17 }),
    );
    expect(unwaivedOf(outcome)).toEqual([]);
  });

  it("a type that no kernel sets is a divergence, and every call on it is EINVAL", () => {
    const outcome = checkType1(headLines({ type: 7 }) + map({ errno: 22 }));
    expect(unwaivedOf(outcome)).toHaveLength(2);
    expect(unwaivedOf(outcome)[0]).toMatch(/container of type 7.*SET_IOMMU ENODEV/);
  });

  it.each([
    ["inside one page", '[["0x1","0x2"]]'],
    ["side by side", '[["0x0","0xfff"],["0x1000","0xffffffffffffffff"]]'],
  ])("allowed ranges %s are no machine's, and GET_INFO diverges", (_what, ranges) => {
    const odd = '[["0x0","0xfedfffff"],["0xfef00000","0xffffffffffff"]]';
    const outcome = checkType1(headLines().replace(odd, ranges));
    expect(unwaivedOf(outcome)).toHaveLength(1);
    expect(unwaivedOf(outcome)[0]).toMatch(/GET_INFO: .*iova_ranges/);
  });

  it.each([
    ["a call before any head line", map(), /how the container was opened/],
    ["a call before GET_INFO", `${headLines().split("\n")[0]}\n${map()}`, /the container's ranges/],
    ["an info without open", `${headLines().split("\n")[1]}\n`, /how the container was opened/],
  ])("%s: an input error that says what is missing", (_what, text, message) => {
    expect(() => checkType1(text)).toThrow(StackError);
    expect(() => checkType1(text)).toThrow(message);
  });

  it.each([
    ["memlock", 1, headLines({ memlock: "x" })],
    ["type", 1, headLines({ type: -1 })],
    ["regions", 1, headLines({ regions: { a: { pages: 2 ** 40, sort: "w" } } })],
    ["caps", 2, headLines().replace('["0x0","0xfedfffff"]', '["0x5000","0x1"]')],
    ["pgsizes", 2, headLines({}, "many")],
  ])("a head line whose %s is wrong: the error names field and line %i", (field, line, text) => {
    try {
      checkType1(text + map());
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(StackError);
      expect((error as StackError).at).toEqual({ file: "calls.jsonl", line });
      expect((error as StackError).message).toMatch(new RegExp(`is of no use: .*: ${field}$`));
    }
  });

  it("lines that cannot be read, and calls that are not known, are told and change no row", () => {
    const outcome = checkType1(`${headLines()}${map()}{"op":"ma\n{"op":"attach"}\n${unmap()}`);
    expect(outcome.tally).toMatchObject({ compared: 4, matched: 4 });
    expect(outcome.diagnostics.map(({ code, line }) => [code, line])).toEqual([
      ["recording/bad-line", 4],
      ["recording/unused-events", undefined],
    ]);
  });

  it("the largest values that fields hold are answered, not computed with", () => {
    const huge = "0xffffffffffffffff";
    const text =
      headLines() +
      map({ iova: huge, size: huge, offset: huge, errno: 75 }) +
      map({ flags: 4_294_967_295, argsz: 4_294_967_295, errno: 22 }) +
      unmap({ iova: huge, size: huge, unmapped: huge, errno: 22 }) +
      `{"op":"dirty","argsz":48,"flags":4,"iova":"0x0","size":"${huge}","pgsize":"${huge}","bitmap_size":"0x10000000","errno":22}\n` +
      '{"op":"ioctl","request":4294967295,"errno":25}\n' +
      '{"op":"check_extension","ext":4294967295,"ret":0}\n';
    expect(unwaivedOf(checkType1(text))).toEqual([]);
  });
});
