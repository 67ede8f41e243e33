import { describe, expect, it } from "vitest";
import { explain, explainableCodes, similarCodes } from "./explain.ts";
import { knownMessages } from "./explain-messages.ts";

describe("explain", () => {
  it.each(knownMessages.map((one) => [one.code, one.example]))(
    "%s: its own example",
    (code, example) => {
      expect(explain(example)?.code).toBe(code);
    },
  );

  it.each(explainableCodes())("%s is explained by its code, with cause and remedy", (code) => {
    const found = explain(code)!;
    expect(found.code).toBe(code);
    expect(Math.min(found.cause.length, found.remedy.length)).toBeGreaterThan(10);
  });

  it.each([
    [
      "[  4.2] DMAR: [DMA Write NO_PASID] Request device [0000:81:00.0] fault addr 0xdead0000 [fault reason 0x05] PTE Write access is not set",
      [
        "device 0000:81:00.0, write",
        "address 0xdead0000",
        "reason 0x5 (DMA): write without write permission in the page tables",
      ],
    ],
    [
      "DMAR: [DMA Read] Request device [03:00.0] fault addr ff000 [fault reason 12] non-zero reserved fields in PTE",
      [
        "device 03:00.0, read",
        "address 0xff000",
        "reason 0xc (DMA): reserved bits are set in a page-table entry",
      ],
    ],
    [
      "nvme 0000:03:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000e address=0xff flags=0x0020]",
      ["domain 0x000e, address 0xff", "flags 0x0020: write; the page is not mapped"],
    ],
    [
      "virtio_iommu virtio0: page fault from EP 32 at 0xdead0000 [W]",
      [
        "endpoint 32: 00:04.0 where ids are requester ids",
        "address 0xdead0000, access W",
        "nothing is mapped at the address",
      ],
    ],
    [
      "arm-smmu-v3 arm-smmu-v3.0.auto: event 0x13 received:",
      ["event 0x13: F_PERMISSION: the mapping does not allow this access"],
    ],
  ])("%s is taken apart", (message, facts) => {
    expect(explain(message)?.facts).toEqual(facts);
  });

  it.each(["", "hello world", "node mismatch", "__proto__", "constructor"])(
    "%j is not known",
    (text) => {
      expect(explain(text)).toBeNull();
    },
  );

  it("names what a message that nothing fits is most like", () => {
    expect(similarCodes("vfio: MAP_DMA has failed as it cannot allocate any memory")[0]).toBe(
      "map-dma-no-memory",
    );
    expect(similarCodes("hello world")).toEqual([]);
  });

  it("takes a bounded time for any text", () => {
    for (const text of ["DMA device ".repeat(5000), "[".repeat(100_000), "a=".repeat(50_000)]) {
      expect(explain(text)).toBeNull();
    }
  });
});
