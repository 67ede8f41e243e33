import { describe, expect, it } from "vitest";
import { checkExtension } from "./info.ts";
import { World } from "./type1-world.suite.ts";

const extensions = (world: World | null, hasProposal?: boolean) =>
  Array.from({ length: 12 }, (_, extension) =>
    checkExtension(world?.type1 ?? null, extension, hasProposal),
  ).flatMap((answer, extension) => (answer > 0 ? [extension] : []));

describe("CHECK_EXTENSION of type1", () => {
  it("before SET_IOMMU: both versions and UNMAP_ALL", () => {
    expect(extensions(null)).toEqual([1, 3, 9]);
  });

  it("of a container: UPDATE_VADDR too; nesting is gone", () => {
    expect(extensions(new World())).toEqual([1, 3, 9, 10]);
  });

  it("DMA_CC when every domain forces coherency, or when there is none", () => {
    const world = new World({ domains: 0 });
    expect(extensions(world)).toEqual([1, 3, 4, 9, 10]);
    const domain = world.addDomain();
    world.type1.domains[0] = { ...domain, coherencyEnforced: true };
    expect(extensions(world)).toEqual([1, 3, 4, 9, 10]);
    world.addDomain();
    expect(extensions(world)).toEqual([1, 3, 9, 10]);
  });

  it("MMIO without pinning only in a kernel with that proposal", () => {
    expect(extensions(null, true)).toEqual([1, 3, 9, 11]);
    expect(extensions(new World({ type1: { hasMmioDontPin: true } }))).toContain(11);
  });
});
