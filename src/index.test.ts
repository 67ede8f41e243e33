import { describe, expect, it } from "vitest";
import {
  PagePool,
  PageTable,
  PROT_RW,
  policyNamed,
  replayRecording,
  vtdSecondStage,
} from "./index.ts";

async function* chunksOf(text: string) {
  yield new TextEncoder().encode(text);
}

describe("the library", () => {
  it("maps and walks a page table", () => {
    const pool = new PagePool([{ node: 0, basePfn: 0, frameCount: 4096 }]);
    const table = PageTable.create({ format: vtdSecondStage({ levels: 4 }), pool, node: 0 })!;
    expect(table.map(0x1000, 0x8_0000, 512, PROT_RW)).toBe(0);
    expect(table.iovaToPhys(0x1001)).toBe(0x8_0001);
  });

  it("replays a recording from bytes", async () => {
    const line =
      "  fio-7  [000] .....  1.0: map: IOMMU: iova=0xfffff000 - 0x100000000 " +
      "paddr=0x1000 size=4096\n";
    const { replay } = await replayRecording("trace", chunksOf(line), {
      policies: [policyNamed("strict")!],
      iommu: "virtio",
    });
    expect(replay.policies[0]!.requests).toMatchObject({ map: 1, unmap: 0, syncs: 1 });
  });
});
