/** Hostile recordings through the replay: a result that adds up, or a StackError; nothing else. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { policies } from "../../dma/policy.ts";
import { StackError } from "../../errors.ts";
import { type ReplayOutcome, replayRecording } from "./replay.ts";

const hex = (pfn: number) => `${pfn.toString(16)}000`;

/** Frames where things go wrong: few, so that ranges meet, and the ends of the space. */
const pfns = fc.oneof(
  fc.integer({ min: 0, max: 40 }),
  fc.constantFrom(0xf_ffff, 0x10_0000, 2 ** 36 - 1, 2 ** 51, 2 ** 52 - 2, 2 ** 52 - 1),
);
const sizes = fc.oneof(
  fc.integer({ min: 0, max: 20 }),
  fc.constantFrom(32, 33, 512, 2 ** 18, 2 ** 20, 2 ** 36, 2 ** 52),
);

const eventLine = fc
  .record({
    map: fc.boolean(),
    pfn: pfns,
    pages: sizes,
    phys: pfns,
    us: fc.integer({ min: 0, max: 3_000_000 }),
    cpu: fc.constantFrom(0, 1, 3, 999, 4_000_000),
    pid: fc.integer({ min: 1, max: 3 }),
  })
  .map(({ map, pfn, pages, phys, us, cpu, pid }) => {
    const bytes = BigInt(pages) * 4096n;
    const end = BigInt.asUintN(64, BigInt(pfn) * 4096n + bytes).toString(16);
    const time = `${Math.floor(us / 1e6)}.${String(us % 1e6).padStart(6, "0")}`;
    const head = `fio-${pid} [${cpu}] .....  ${time}:`;
    const range = `IOMMU: iova=0x${hex(pfn)} - 0x${end}`;
    return map
      ? `${head} map: ${range} paddr=0x${hex(phys)} size=${bytes}`
      : `${head} unmap: ${range} size=${bytes} unmapped_size=${bytes}`;
  });
const line = fc.oneof(
  { weight: 20, arbitrary: eventLine },
  { weight: 1, arbitrary: fc.constant("CPU:0 [LOST 3 EVENTS]") },
  { weight: 1, arbitrary: fc.string() },
  {
    weight: 1,
    arbitrary: fc.record({ whole: eventLine, cut: fc.nat(90) }).map((e) => e.whole.slice(0, e.cut)),
  },
);
const recording = fc.array(line, { minLength: 1, maxLength: 60 });

async function* chunksOf(text: string) {
  yield new TextEncoder().encode(text);
}

async function replayed(
  lines: readonly string[],
  iommu: "virtio" | "hardware",
): Promise<ReplayOutcome | null> {
  try {
    const text = `# tracer: nop\n${lines.join("\n")}\n`;
    return await replayRecording("fuzz", chunksOf(text), { policies, iommu, window: 256 });
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(StackError);
    return null;
  }
}

describe("hostile recordings", () => {
  it.each(["virtio", "hardware"] as const)("end in a result or a StackError, %s", async (iommu) => {
    await fc.assert(
      fc.asyncProperty(recording, async (lines) => {
        const outcome = await replayed(lines, iommu);
        if (outcome === null) return;
        const { workload } = outcome.replay;
        expect(workload.liveAtEnd).toBeGreaterThanOrEqual(0);
        for (const { policy, requests, iova, flushes, exposure } of outcome.replay.policies) {
          if (policy === "passthrough") continue;
          const { allocations = 0, failed = 0 } = iova ?? {};
          expect(allocations).toBeLessThanOrEqual(workload.allocations);
          expect(allocations + failed).toBeGreaterThanOrEqual(workload.allocations);
          if (flushes !== null) expect(flushes.queued).toBeLessThanOrEqual(workload.frees);
          expect(exposure!.unmaps).toBeLessThanOrEqual(workload.frees);
          expect(Number.isFinite(requests.syncs)).toBe(true);
        }
      }),
      { seed: 5, numRuns: 150 },
    );
  });
});
