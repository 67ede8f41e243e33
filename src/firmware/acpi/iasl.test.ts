/**
 * ACPICA's iasl as an oracle: it disassembles what we write and agrees on every field's place and
 * value, and compiles that text, and its own templates, to tables that we read and write alike.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { itNeeds } from "../../../test/support/tools.ts";
import type { Machine } from "../../topology/machine.ts";
import { type DumpField, type DumpNode, dumpItem } from "../table-dump.ts";
import { encodeItem } from "../table-item.ts";
import { type AcpiKind, buildTable } from "./build.ts";
import { decodeTable } from "./decode.ts";
import { seal } from "./header.ts";
import { richMachine } from "./rich-machine.suite.ts";
import { vector } from "./tables.suite.ts";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "iasl-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

const run = (iasl: string, ...words: string[]) =>
  execFileSync(iasl, words, { cwd: folder, stdio: ["ignore", "pipe", "pipe"], encoding: "utf8" });

/** Text of a table as iasl disassembles it. */
function disassembled(iasl: string, name: string, bytes: Uint8Array): string {
  writeFileSync(join(folder, `${name}.dat`), bytes);
  run(iasl, "-d", `${name}.dat`);
  return readFileSync(join(folder, `${name}.dsl`), "utf8");
}

/** What iasl makes of its own text. */
function recompiled(iasl: string, name: string): Uint8Array {
  run(iasl, "-p", `${name}-again`, `${name}.dsl`);
  return new Uint8Array(readFileSync(join(folder, `${name}-again.aml`)));
}

/** Without checksum and creator, which iasl writes anew. */
function withoutMaker(bytes: Uint8Array): Uint8Array {
  const copy = bytes.slice();
  copy[9] = 0;
  copy.fill(0, 28, 36);
  return copy;
}

interface Line {
  readonly name: string;
  readonly value: bigint;
}

/** Numbers in iasl's text, by `offset:length`. */
function numbersOf(text: string): Map<string, Line> {
  const lines = new Map<string, Line>();
  for (const line of text.split("\n")) {
    const match = /^\[([0-9A-F]+)h \d+ +([0-9A-F]+)h\] +(.+?) : ([0-9A-F]+)(?: \[.*)?$/.exec(line);
    if (match === null) continue;
    const [, at, length, name, value] = match;
    lines.set(`${Number.parseInt(at!, 16)}:${Number.parseInt(length!, 16)}`, {
      name: name!,
      value: BigInt(`0x${value}`),
    });
  }
  return lines;
}

function fieldsOf(node: DumpNode): DumpField[] {
  return [...node.fields, ...node.items.flatMap(fieldsOf)];
}

/** Compares all numbers. @returns how many agree, and the names of those iasl does not show so */
function compared(text: string, bytes: Uint8Array): { agreeing: number; unseen: string[] } {
  const lines = numbersOf(text);
  let agreeing = 0;
  const unseen = new Set<string>();
  for (const { at, length, name, value, text: shown } of fieldsOf(
    dumpItem(decodeTable(bytes).root),
  )) {
    if (typeof value === "string" && !value.startsWith("0x")) continue;
    const line = lines.get(`${at}:${length}`);
    if (line === undefined) unseen.add(name);
    else {
      expect(line.value, `${name} at ${at} (${shown}), iasl: ${line.name}`).toBe(BigInt(value));
      agreeing += 1;
    }
  }
  return { agreeing, unseen: [...unseen].sort() };
}

/** Least numbers of fields to compare, and what iasl shows in another form. */
const expected: Readonly<Record<AcpiKind, { fields: number; unseen: string[] }>> = {
  viot: { fields: 40, unseen: [] },
  // Interrupts of SMMUv1/v2 are words of 8 bytes to iasl, and a device's path has its own form.
  iort: { fields: 150, unseen: ["flags", "gsiv"] },
  // A step of a path is one field of two bytes to iasl.
  dmar: { fields: 70, unseen: ["device", "function"] },
  // The segment of an IVMD lies in what iasl calls reserved.
  ivrs: { fields: 90, unseen: ["segment"] },
  // The upper bits of a proximity domain are three bytes to iasl.
  srat: { fields: 25, unseen: ["domainHigh", "domainMiddle"] },
  slit: { fields: 5, unseen: [] },
  mcfg: { fields: 12, unseen: [] },
};

const withoutNames: Machine = {
  ...richMachine,
  iommus: richMachine.iommus.map((iommu) => ({ ...iommu, endpoints: [] })),
};

describe("iasl and a table that we wrote", () => {
  for (const kind of Object.keys(expected) as AcpiKind[]) {
    itNeeds(
      "iasl",
      `${kind} agree field by field, and on every byte when compiled again`,
      (iasl) => {
        const bytes = buildTable(kind, richMachine);
        const { agreeing, unseen } = compared(disassembled(iasl, kind, bytes), bytes);
        expect(unseen).toEqual(expected[kind].unseen);
        expect(agreeing).toBeGreaterThanOrEqual(expected[kind].fields);
        // iasl compiles the padding of a name otherwise than it has disassembled it.
        const again = kind === "iort" ? buildTable(kind, withoutNames) : bytes;
        if (kind === "iort") disassembled(iasl, kind, again);
        expect(withoutMaker(recompiled(iasl, kind))).toEqual(withoutMaker(again));
      },
    );
  }

  for (const name of [
    "qemu-virtio/VIOT",
    "qemu-intel/DMAR",
    "qemu-intel/SRAT",
    "qemu-intel/MCFG",
  ]) {
    itNeeds("iasl", `${name} of QEMU agree, too`, (iasl) => {
      const file = name.replace("/", "-");
      const { agreeing } = compared(disassembled(iasl, file, vector(name)), vector(name));
      expect(agreeing).toBeGreaterThan(7);
      expect(withoutMaker(recompiled(iasl, file))).toEqual(withoutMaker(vector(name)));
    });
  }
});

describe("iasl and an SMMUv3 that overrides HTTU", () => {
  itNeeds("iasl", "F43: shows the low bit alone, where the table has two", (iasl) => {
    const bytes = buildTable("iort", richMachine).slice();
    const nodes = dumpItem(decodeTable(bytes).root).items;
    const { at } = nodes.find(({ name }) => name === "smmu-v3")!;
    // COHACC override, and 2 (access flag and dirty state) in bits 2:1.
    bytes[at + 24] = 0b101;
    seal(bytes);
    const shown = /HTTU Override : (\d)/.exec(disassembled(iasl, "httu", bytes));
    expect(shown?.[1]).toBe("0");
    expect(decodeTable(bytes).root.items.find((item) => item.at === at)).toMatchObject({
      values: { flags: 0b101 },
    });
  });
});

describe("iasl's own template", () => {
  for (const signature of ["VIOT", "IORT", "SRAT", "SLIT", "DMAR", "IVRS", "MCFG"]) {
    itNeeds("iasl", `${signature} compiles to a table that comes back byte for byte`, (iasl) => {
      const name = `template-${signature}`;
      const before = new Set(readdirSync(folder));
      run(iasl, "-T", signature);
      const source = readdirSync(folder).find((file) => file.endsWith(".asl") && !before.has(file));
      run(iasl, "-p", name, source!);
      const bytes = new Uint8Array(readFileSync(join(folder, `${name}.aml`)));
      const table = decodeTable(bytes);
      expect(table.signature).toBe(signature);
      expect(encodeItem(table.root)).toEqual(bytes);
      expect(table.findings).toEqual([]);
      const { agreeing } = compared(disassembled(iasl, name, bytes), bytes);
      expect(agreeing).toBeGreaterThan(5);
    });
  }
});
