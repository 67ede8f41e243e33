/** Replay of a trace from gzip to result: lines a second, by policy and for all together. */
import { gunzipSync, gzipSync } from "node:zlib";
import { type Policy, policies } from "../src/dma/policy.ts";
import { Random } from "../src/random.ts";
import { recordingKinds } from "../src/recording/kinds.ts";
import { ReplaySession } from "../src/recording/replay/replay.ts";
import type { IommuKind } from "../src/recording/replay/result.ts";
import type { Benchmark } from "./harness.ts";

const LINES = 400_000;
const CHUNK_BYTES = 256 * 1024;
const ftrace = recordingKinds.find(({ name }) => name === "ftrace")!;

function hex(pfn: number): string {
  return `${pfn.toString(16).padStart(13, "0")}000`;
}

/** A trace of 64 KiB writes on two CPUs: 16 in flight, every third of two pieces. */
function trace(lines: number): Uint8Array {
  const random = new Random(1);
  const rows: string[] = ["# tracer: nop", "# entries-in-buffer/entries-written: 0/0   #P:2"];
  const live: number[] = [];
  const free = Array.from({ length: 64 }, (_, index) => 0xff000 + index * 16);
  let us = 1_000_000;
  const row = (flags: string, event: string) => {
    us += 1 + random.below(40);
    const time = `${Math.floor(us / 1e6)}.${String(us % 1e6).padStart(6, "0")}`;
    const cpu = random.below(2);
    rows.push(`             fio-${610 + cpu}     [00${cpu}] ${flags}    ${time}: ${event}`);
  };
  const map = (first: number, pages: number) =>
    row(
      ".....",
      `map: IOMMU: iova=0x${hex(first)} - 0x${hex(first + pages)} ` +
        `paddr=0x${hex(0x10_0000 + random.below(65_536) * 16)} size=${pages * 4096}`,
    );
  while (rows.length < lines) {
    if (live.length < 16 && (live.length < 4 || random.chance(1, 2))) {
      const first = free.pop()!;
      live.push(first);
      const cut = random.chance(1, 3) ? 1 + random.below(15) : 16;
      map(first, cut);
      if (cut < 16) map(first + cut, 16 - cut);
    } else {
      const [first] = live.splice(random.below(live.length), 1);
      free.push(first!);
      const range = `iova=0x${hex(first!)} - 0x${hex(first! + 16)}`;
      row("d.h..", `unmap: IOMMU: ${range} size=65536 unmapped_size=65536`);
    }
  }
  return new TextEncoder().encode(`${rows.join("\n")}\n`);
}

/** A number that changes when the result does. */
function hashOf(text: string): number {
  let hash = 0x811c_9dc5;
  for (let at = 0; at < text.length; at += 1) {
    hash = Math.imul(hash ^ text.charCodeAt(at), 0x0100_0193);
  }
  return hash >>> 0;
}

function replayBenchmark(
  name: string,
  chosen: readonly Policy[],
  iommu: IommuKind,
  target: Benchmark["target"],
): Benchmark {
  return {
    name: `replay ${name}, ${iommu}`,
    unit: "line",
    ...(target === undefined ? {} : { target }),
    prepare(scale) {
      const lines = Math.max(1000, Math.floor(LINES * scale));
      const packed = gzipSync(trace(lines));
      const round = () => {
        const bytes = gunzipSync(packed);
        const session = new ReplaySession("bench", ftrace, { policies: chosen, iommu });
        for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
          session.push(bytes.subarray(at, at + CHUNK_BYTES));
        }
        return hashOf(JSON.stringify(session.end().replay));
      };
      return { units: lines, round };
    },
  };
}

export const benchmarks: readonly Benchmark[] = [
  ...policies.map((policy) => replayBenchmark(policy.name, [policy], "virtio", { perSecond: 1e6 })),
  replayBenchmark("all policies", policies, "virtio", null),
  replayBenchmark("strict", policies.slice(1, 2), "hardware", { perSecond: 1e6 }),
  replayBenchmark("all policies", policies, "hardware", null),
];
