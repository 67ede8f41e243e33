import { describe, expect, it } from "vitest";
import { describePageTable } from "../page-table.suite.ts";
import { PROT_RW, Prot } from "../prot.ts";
import { formatByName, standardFormats } from "./catalog.ts";

/** What each family keeps of rights and attributes, after linux-dma-path.md §8. */
function normalProt(name: string, prot: number): number {
  if (name.startsWith("vtd-second") || name.startsWith("amd-v1")) return prot & PROT_RW;
  if (name.startsWith("arm-stage2")) return prot & ~Prot.PRIV;
  // Reading cannot be denied in the others.
  if (name.startsWith("arm-stage1")) return prot | Prot.READ;
  return (prot & PROT_RW) | Prot.READ;
}

for (const [index, format] of standardFormats().entries()) {
  describePageTable(
    () => standardFormats()[index]!,
    (prot) => normalProt(format.name, prot),
  );
}

describe("format catalogue", () => {
  it("names every format once, and finds it by its name", () => {
    const names = standardFormats().map((format) => format.name);
    expect(new Set(names).size).toBe(names.length);
    for (const name of names) expect(formatByName(name)?.name).toBe(name);
    expect(formatByName("vtd-second-stage-6")).toBe(null);
  });
});
