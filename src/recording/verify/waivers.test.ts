import { describe, expect, it } from "vitest";
import { QUIRK_NAMES } from "../../virtio/iommu/quirks.ts";
import { WAIVERS, waiverOf } from "./waivers.ts";

describe("waivers", () => {
  it("have a name, a clause and one line of what differs, each its own", () => {
    expect(new Set(WAIVERS.map(({ name }) => name)).size).toBe(WAIVERS.length);
    for (const { name, clause, does } of WAIVERS) {
      expect(name).toMatch(/^[a-z0-9]+(-[a-z0-9]+)+$/);
      expect(clause.length).toBeGreaterThan(20);
      expect(does.length).toBeGreaterThan(10);
    }
  });

  it("contain every departure of a peer", () => {
    for (const name of QUIRK_NAMES) expect(waiverOf(name)?.name).toBe(name);
    expect(waiverOf("no-such-waiver")).toBeUndefined();
  });
});
