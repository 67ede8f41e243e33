import { describe, expect, it } from "vitest";
import { policyNamed } from "../../dma/policy.ts";
import { type Unjudged, verdictOf } from "./verdict.ts";

function result(syncs: number, exposure: Unjudged["exposure"] = null): Unjudged {
  const batch = { mean: 1, p50: 1, p90: 1, p99: 1, max: 1 };
  return {
    policy: "",
    requests: {
      map: 0,
      unmap: 0,
      kicks: syncs,
      syncs,
      syncsPerUnmap: syncs / 10,
      kicksPerUnmap: null,
      batch,
    },
    invalidations: null,
    flushes: null,
    iova: null,
    tables: null,
    exposure,
  };
}

const nothing = { unmaps: 0, peakBytes: 0, meanBytes: 0, meanNs: null, longestNs: null };
const basis = { iommu: "virtio", strict: result(2000) } as const;

describe("verdictOf", () => {
  it.each([
    ["passthrough", result(0), /nothing protects memory/],
    [
      "strict",
      result(2000, nothing),
      /^Costs 2,000 waits \(200\.00 per .*; nothing stays reachable/,
    ],
    ["strict+map", result(1500, nothing), /^Saves 25 % of strict's waits: 1,500 waits/],
    ["lazy-sq", result(2000, nothing), /no fewer than strict; here nothing stayed reachable/],
    ["lazy-mq", result(2100, nothing), /5 % more than strict/],
    [
      "lazy-mq+map",
      result(1, { unmaps: 3, peakBytes: 1572864, meanBytes: 5, meanNs: 2.5e6, longestNs: 16e6 }),
      /^Saves 100\.0 % of strict's waits: 1 wait \(.*leaves up to 1\.5 MiB .* up to 16\.0 ms \(2\.50? ms/,
    ],
    [
      "lazy-mq",
      result(9, { unmaps: 3, peakBytes: 4096, meanBytes: null, meanNs: null, longestNs: null }),
      /for a time that this recording cannot tell/,
    ],
  ])("%s names what it buys and what it risks", (name, outcome, text) => {
    expect(verdictOf(policyNamed(name)!, outcome, basis)).toMatch(text);
  });

  it("names the stale IOTLB entries of hardware, and address space that is held", () => {
    const held = { unmaps: 3, peakBytes: 4096, meanBytes: 1, meanNs: 1e6, longestNs: 1e6 };
    const iova = {
      allocations: 9,
      cacheHits: 0,
      cacheHitShare: 0,
      treeSearches: 9,
      treeSteps: 9,
      below4GiBPeakBytes: 2 ** 30,
      above4GiB: 2,
      failed: 1,
    };
    const text = verdictOf(
      policyNamed("lazy-sq")!,
      { ...result(4, held), iova },
      {
        iommu: "hardware",
        strict: { ...result(2000, nothing), iova: { ...iova, below4GiBPeakBytes: 2 ** 22 } },
      },
    );
    expect(text).toMatch(/stale IOTLB entries, for up to 1\.0 ms/);
    expect(text).toMatch(/2 allocations left the 32-bit space, and 1 mapping failed/);
    expect(text).toMatch(/takes up to 1 GiB of the 32-bit space \(strict: 4 MiB\)\.$/);
  });

  it("says what strict would not: nothing to compare with", () => {
    const text = verdictOf(policyNamed("lazy-mq")!, result(9, nothing), { ...basis, strict: null });
    expect(text).toMatch(/^Takes 9 waits/);
  });
});
