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
      [
        "device 0000:03:00.0",
        "domain 0x000e, address 0xff",
        "flags 0x0020: write; the page is not mapped",
      ],
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
    [
      "AMD-Vi: Event logged [IO_PAGE_FAULT device=01:00.0 domain=0x000e address=0xff flags=0x0020]",
      [
        "device 01:00.0",
        "domain 0x000e, address 0xff",
        "flags 0x0020: write; the page is not mapped",
      ],
    ],
    [
      "arm-smmu-v3 arm-smmu-v3.0.auto: event: F_TRANSLATION client: 0000:01:00.0 sid: 0x100 ssid: 0x0 iova: 0xdead0000 ipa: 0x0",
      [
        "event F_TRANSLATION: nothing is mapped at the address",
        "device 0000:01:00.0",
        "stream 0x100",
        "address 0xdead0000",
      ],
    ],
    [
      "DMAR: [DMA Read PASID 0x1] Request device [81:00.0] fault addr 0xff000 [fault reason 0x71] SM: Present bit in first-level paging entry is clear",
      [
        "device 81:00.0, read",
        "address 0xff000",
        "reason 0x71 (DMA): a first-level paging entry is not present",
      ],
    ],
    ["DMAR: DRHD: handling fault status reg 2", ["status 0x2: a fault is recorded"]],
    [
      "DMAR: VT-d detected Invalidation Time-out Error: SID 8100",
      ["device 81:00.0, requester id 0x8100"],
    ],
    [
      "arm-smmu 5000000.iommu: Unhandled context fault: fsr=0x402, iova=0xfffd0000, fsynr=0x11, cbfrsynra=0x800, cb=3",
      ["address 0xfffd0000, write", "status 0x402: nothing is mapped", "stream 0x800"],
    ],
  ])("%s is taken apart", (message, facts) => {
    expect(explain(message)?.facts).toEqual(facts);
  });

  it.each([
    [
      "vfio 0000:03:00.0: failed to setup container for group 14: Failed to set iommu for container: Operation not permitted",
      "no-isolated-msi",
    ],
    [
      "vfio-pci 0000:03:00.0: Firmware has requested this device have a 1:1 IOMMU mapping, rejecting configuring the device without a 1:1 mapping. Contact your platform vendor.",
      "rmrr-refused",
    ],
    ["AMD-Vi: Completion-Wait loop timed out", "amd-completion-timeout"],
    ["DMAR: QI: ITE timeout", "dmar-invalidation-timeout"],
  ])("%s is %s", (message, code) => {
    expect(explain(message)?.code).toBe(code);
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
