import { describe, expect, it } from "vitest";
import { buildTable } from "./build.ts";
import { type DeliveryTarget, deliver } from "./delivery.ts";
import { seal } from "./header.ts";
import { richMachine } from "./rich-machine.suite.ts";
import { defaultIds } from "./table-writer.ts";
import { vector } from "./tables.suite.ts";

const own = vector("qemu-intel/DMAR");
const viot = vector("reference/VIOT-injected");
const q35: DeliveryTarget = { board: "q35", tables: [own] };
const like = { ...defaultIds, oemId: "BOCHS ", oemTableId: "BXPC    " };
const dmar = (ids: Partial<typeof like>) => buildTable("dmar", richMachine, { ...like, ...ids });

describe("a table for the initial RAM disk", () => {
  it("F18: is refused when it is a VIOT, and taken when it is any other of ours", () => {
    expect(deliver(viot, "initrd", q35)).toMatchObject({ outcome: "refused" });
    for (const kind of ["srat", "slit", "ivrs", "iort", "mcfg"] as const) {
      const table = buildTable(kind, richMachine);
      expect(deliver(table, "initrd", q35).outcome, kind).toBe("used");
    }
  });

  it.each([
    ["replaces", { oemRevision: 2 }],
    ["shadowed", { oemRevision: 1 }],
    ["shadowed", { oemRevision: 2, oemId: "OTHER" }],
    ["shadowed", { oemRevision: 2, oemTableId: "OTHER" }],
  ])("F19: %s the platform's with %j", (outcome, ids) => {
    expect(deliver(dmar(ids), "initrd", q35).outcome).toBe(outcome);
  });

  it("F19: is refused with a wrong length or checksum", () => {
    const wrong = dmar({ oemRevision: 2 });
    wrong[9]! ^= 1;
    expect(deliver(wrong, "initrd", q35).why).toMatch(/checksum/);
    const long = new Uint8Array(wrong.length + 1);
    long.set(wrong);
    expect(deliver(long, "initrd", q35).why).toMatch(/length/);
    seal(wrong);
    expect(deliver(wrong, "initrd", q35).outcome).toBe("replaces");
  });
});

describe("a table for -acpitable", () => {
  it.each([
    ["q35", "used"],
    ["pc", "used"],
    ["virt", "refused"],
    ["microvm", "refused"],
  ] as const)("F20: on %s is %s", (board, outcome) => {
    expect(deliver(viot, "acpitable", { board, tables: [] }).outcome).toBe(outcome);
  });

  it("F20: has at least a header, at most 65535 bytes, and any checksum", () => {
    const none: DeliveryTarget = { board: "q35", tables: [] };
    const sized = (bytes: number) => {
      const table = new Uint8Array(bytes);
      table.set(viot.subarray(0, Math.min(bytes, 36)));
      return table;
    };
    const outcomes = [35, 36, 65_535, 65_536].map((n) => deliver(sized(n), "acpitable", none));
    expect(outcomes.map(({ outcome }) => outcome)).toEqual(["refused", "used", "used", "refused"]);
  });

  it("F17: is shadowed by one of QEMU's own", () => {
    expect(deliver(own, "acpitable", q35).outcome).toBe("shadowed");
  });
});
