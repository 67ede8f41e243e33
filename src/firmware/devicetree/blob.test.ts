import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { itNeeds } from "../../../test/support/tools.ts";
import { StackError } from "../../errors.ts";
import { decodeBlob, encodeBlob } from "./blob.ts";
import { flatten } from "./blob-write.ts";
import { blobOf, patched, vector, vectorNames } from "./devicetree.suite.ts";
import { writeSource } from "./source.ts";
import { bytesOf, cells, type DevicetreeParts, type DtNode, dtNode } from "./tree.ts";

/** Of the reference: a root with one property, as dtc writes it. */
const SMALL = Uint8Array.from(
  Buffer.from(
    "d00dfeed00000067000000380000005800000028000000110000001000000000" +
      "0000000f0000002000000000000000000000000000000000" +
      "0000000100000000000000030000000400000000000000010000000200000009" +
      "23616464726573732d63656c6c7300",
    "hex",
  ),
);

/** What decoding throws. */
function errorOf(bytes: Uint8Array): { code: string; offset: number | undefined } {
  try {
    decodeBlob(bytes, "x.dtb");
  } catch (error) {
    if (error instanceof StackError) return { code: error.code, offset: error.at?.offset };
    throw error;
  }
  throw new Error("the blob was read");
}

describe("a blob", () => {
  it("with one property, 103 bytes, is read, and written alike (F86)", () => {
    const blob = decodeBlob(SMALL);
    expect(blob.root.properties[0]).toMatchObject({ name: "#address-cells" });
    expect(bytesOf(blob.root, "#address-cells")).toEqual(cells(1));
    expect(blob.header).toMatchObject({ version: 17, lastCompatibleVersion: 16, totalBytes: 103 });
    expect(flatten(blob)).toEqual(SMALL);
    expect(encodeBlob(blob)).toEqual(SMALL);
  });

  it.each(vectorNames)("of QEMU (%s), 1 MiB with slack, comes back byte for byte (F86)", (name) => {
    const bytes = vector(name);
    const blob = decodeBlob(bytes);
    expect(Buffer.compare(encodeBlob(blob), bytes)).toBe(0);
    // QEMU's padding is not zero in a few places; all else follows from the tree.
    const kept = blob.kept.reduce((sum, one) => sum + one.bytes.length, 0);
    expect(kept).toBeLessThan(100);
  });

  it("keeps NOP tokens and bytes behind its end", () => {
    const plain = blobOf(dtNode("", { a: new Uint8Array(8) }));
    const bytes = new Uint8Array(plain.length + 3).fill(7);
    // The property becomes five NOPs.
    bytes.set(patched(plain, ...[64, 68, 72, 76, 80].map((at): [number, number] => [at, 4])));
    const blob = decodeBlob(bytes);
    expect(blob.root.properties).toEqual([]);
    expect(encodeBlob(blob)).toEqual(bytes);
  });

  it.each([
    ["a wrong magic number", patched(SMALL, [0, 1]), "magic", 0],
    ["30 bytes", SMALL.slice(0, 30), "too-short", 30],
    ["a total beyond the file", patched(SMALL, [4, 104]), "truncated", 4],
    ["version 15", patched(SMALL, [20, 15]), "version", 20],
    ["a last compatible version 18", patched(SMALL, [24, 18]), "version", 24],
    ["a structure past the end", patched(SMALL, [8, 96]), "block", 8],
    ["strings inside the header", patched(SMALL, [12, 8]), "block", 12],
    ["strings that wrap around", patched(SMALL, [32, 0xffff_ffff]), "block", 12],
    ["reservations at an odd place", patched(SMALL, [16, 44]), "alignment", 16],
    ["reservations without end", patched(SMALL, [40, 1], [16, 80]), "reservations", 80],
    ["a first token that is no node", patched(SMALL, [56, 2]), "no-node", 56],
    ["an unknown token", patched(SMALL, [80, 5]), "token", 80],
    ["no END", patched(SMALL, [84, 4]), "truncated", 88],
    ["END inside a node", patched(SMALL, [80, 9]), "unfinished", 80],
    ["a value past the structure", patched(SMALL, [68, 0xffff_fff0]), "truncated", 68],
    ["a name past the strings", patched(SMALL, [72, 15]), "name", 72],
  ])("with %s is refused at its offset", (_, bytes, code, offset) => {
    expect(errorOf(bytes)).toEqual({ code: `devicetree/${code}`, offset });
  });

  it("65 nodes deep is refused, 64 deep is read", () => {
    const nested = (depth: number) => {
      let node = dtNode("n", {});
      for (let level = 2; level < depth; level += 1) node = dtNode("n", {}, [node]);
      return blobOf(dtNode("", {}, [node]));
    };
    expect(() => decodeBlob(nested(64))).not.toThrow();
    expect(errorOf(nested(65)).code).toBe("devicetree/depth");
  });
});

/** Nodes of any shape, three deep. */
const nodes = (depth: number): fc.Arbitrary<DtNode> =>
  fc
    .record({
      name: fc.stringMatching(/^[a-z][a-z0-9-]{0,12}(@[0-9a-f]{1,8})?$/),
      properties: fc.dictionary(
        fc.stringMatching(/^[a-z#][a-z0-9,-]{0,20}$/),
        fc.uint8Array({ maxLength: 24 }),
        { maxKeys: 5 },
      ),
      children:
        depth === 0 ? fc.constant<DtNode[]>([]) : fc.array(nodes(depth - 1), { maxLength: 3 }),
    })
    .map(({ name, properties, children }) => {
      // dtc refuses two nodes of one name.
      const unique = children.map((one, index) => ({ ...one, name: `c${index}-${one.name}` }));
      const { phandle: _, "linux,phandle": __, ...rest } = properties;
      return dtNode(name, rest, unique);
    });
const wholeTrees: fc.Arbitrary<DevicetreeParts> = fc.record({
  reservations: fc.array(
    fc.record({ address: fc.bigInt(1n, 2n ** 64n - 1n), bytes: fc.bigInt(0n, 2n ** 64n - 1n) }),
    { maxLength: 3 },
  ),
  bootCpu: fc.nat(),
  root: nodes(3).map((root) => ({ ...root, name: "" })),
});

const plain = ({ name, properties, children }: DtNode): unknown => ({
  name,
  properties: properties.map((one) => [one.name, [...one.value]]),
  children: children.map(plain),
});

describe("any tree", () => {
  it("comes back from a blob of version 16 and 17", () => {
    fc.assert(
      fc.property(wholeTrees, fc.constantFrom(16 as const, 17 as const), (tree, version) => {
        const bytes = flatten(tree, { version });
        const blob = decodeBlob(bytes);
        expect(plain(blob.root)).toEqual(plain(tree.root));
        expect(blob.reservations).toEqual(tree.reservations);
        expect(blob.bootCpu).toBe(tree.bootCpu);
        expect(blob.kept).toEqual([]);
        expect(encodeBlob(blob)).toEqual(bytes);
      }),
    );
  });
});

describe("dtc", () => {
  const run = (dtc: string, words: string[], input: Uint8Array | string): Buffer => {
    const folder = mkdtempSync(join(tmpdir(), "dtc-"));
    try {
      writeFileSync(join(folder, "in"), input);
      const stdio: ["ignore", "pipe", "pipe"] = ["ignore", "pipe", "pipe"];
      return execFileSync(dtc, ["-q", "-f", ...words, join(folder, "in")], { stdio });
    } finally {
      rmSync(folder, { recursive: true });
    }
  };

  for (const name of vectorNames) {
    itNeeds("dtc", `writes QEMU's ${name} as we write it, versions 16 and 17`, (dtc) => {
      const bytes = vector(name);
      for (const version of [16, 17] as const) {
        const words = ["-I", "dtb", "-O", "dtb", "-V", `${version}`];
        const ours = flatten(decodeBlob(bytes), { version });
        expect(Buffer.compare(run(dtc, words, bytes), ours)).toBe(0);
      }
    });
  }

  itNeeds("dtc", "compiles our source of any tree to our blob of it", (dtc) => {
    fc.assert(
      fc.property(wholeTrees, (tree) => {
        const words = ["-I", "dts", "-O", "dtb", "-b", `${tree.bootCpu}`];
        const theirs = run(dtc, words, writeSource(tree));
        expect(new Uint8Array(theirs)).toEqual(flatten(tree));
      }),
      { numRuns: 60 },
    );
  });

  itNeeds("dtc", "compiles our source of QEMU's trees, labels and all, to the same", (dtc) => {
    for (const name of vectorNames) {
      const blob = decodeBlob(vector(name));
      const source = writeSource(blob);
      if (name === "virt-virtio")
        expect(source).toMatch(/iommu-map = <0x0 &virtio_iommu 0x0 0x20 0x21/);
      const theirs = run(dtc, ["-I", "dts", "-O", "dtb"], source);
      expect(Buffer.compare(theirs, flatten(blob))).toBe(0);
    }
  });
});

it("a blob of 262 145 nodes is refused, a wide one of hostile names is read in bounds", () => {
  const many = blobOf(
    dtNode(
      "",
      {},
      Array.from({ length: 2 ** 18 }, () => dtNode("n", {})),
    ),
  );
  expect(errorOf(many).code).toBe("devicetree/too-many");
  const same = dtNode(
    "",
    {},
    Array.from({ length: 20_000 }, (_, index) => dtNode("n", { phandle: cells(index + 1) })),
  );
  const source = writeSource({ reservations: [], bootCpu: 0, root: same });
  expect(source).toContain("n20000: n {");
});
