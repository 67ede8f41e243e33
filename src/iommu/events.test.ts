import { describe, expect, it } from "vitest";
import { attachEventText, groupEventText, mapEventText, unmapEventText } from "./events.ts";

describe("trace event texts", () => {
  it("of map and unmap have exclusive ends and decimal sizes", () => {
    expect(mapEventText(0xf_ffff, 0x12_3456, 1)).toBe(
      "IOMMU: iova=0x00000000fffff000 - 0x0000000100000000 paddr=0x0000000123456000 size=4096",
    );
    expect(unmapEventText(0xf_ff00, 256, 0)).toBe(
      "IOMMU: iova=0x00000000fff00000 - 0x0000000100000000 size=1048576 unmapped_size=0",
    );
  });

  it("of the last page of the address space ends at 0", () => {
    expect(mapEventText(2 ** 52 - 1, 0, 1)).toContain(
      "iova=0xfffffffffffff000 - 0x0000000000000000 paddr=0x0000000000000000",
    );
  });

  it("of groups name the group and the device", () => {
    expect(groupEventText(14, "0000:22:00.0")).toBe("IOMMU: groupID=14 device=0000:22:00.0");
    expect(attachEventText("0000:22:00.0")).toBe("IOMMU: device=0000:22:00.0");
  });
});
