/** Recordings: from gzip to the result of `verify`, and a long stream in bounded memory. */
import { readFileSync } from "node:fs";
import { gunzipSync, gzipSync } from "node:zlib";
import { AllocationReader } from "../src/recording/allocations.ts";
import { TraceTextReader } from "../src/recording/trace-text.ts";
import type { Checker } from "../src/recording/verify/checker.ts";
import { QemuChecker } from "../src/recording/verify/qemu-checker.ts";
import { RequestChecker } from "../src/recording/verify/request-checker.ts";
import { TraceChecker } from "../src/recording/verify/trace-checker.ts";
import type { Benchmark } from "./harness.ts";

const CHUNK_BYTES = 256 * 1024;
const TARGET = { perSecond: 1e6 };

/** A bundled recording, repeated to so many lines, as gzip. */
function packed(name: string, lines: number): { gzip: Uint8Array; lines: number } {
  const path = new URL(`../examples/${name}`, import.meta.url);
  const recorded = gunzipSync(readFileSync(path)).toString().trimEnd().split("\n");
  const all = Array.from({ length: lines }, (_, index) => recorded[index % recorded.length]!);
  return { gzip: gzipSync(`${all.join("\n")}\n`, { level: 6 }), lines: all.length };
}

function pushAll(reader: { push(chunk: Uint8Array): void }, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
    reader.push(bytes.subarray(at, at + CHUNK_BYTES));
  }
}

function verifying(name: string, example: string, make: () => Checker): Benchmark {
  return {
    name,
    unit: "line",
    target: TARGET,
    prepare(scale) {
      const { gzip, lines } = packed(example, Math.max(1000, Math.floor(300_000 * scale)));
      return {
        units: lines,
        round() {
          const checker = make();
          pushAll(checker, gunzipSync(gzip));
          const { tally } = checker.end();
          return tally.matched * 31 + tally.waived;
        },
      };
    },
  };
}

const grouping: Benchmark = {
  name: "recording: ftrace to allocations, from gzip",
  unit: "line",
  target: TARGET,
  prepare(scale) {
    const wanted = Math.max(1000, Math.floor(300_000 * scale));
    const { gzip, lines } = packed("nvme-randwrite.txt.gz", wanted);
    return {
      units: lines,
      round() {
        let sum = 0;
        const groups = new AllocationReader((operation) => {
          sum = (sum * 31 + operation.iovaPfn + operation.pages) % 2 ** 40;
        });
        const reader = new TraceTextReader((event) => groups.event(event));
        pushAll(reader, gunzipSync(gzip));
        reader.end();
        groups.end();
        return sum % 2 ** 32;
      },
    };
  },
};

const LIVE = 2048;
const hex = (pfn: number) => (pfn * 4096).toString(16).padStart(16, "0");

/** Text of so many mappings made and, one turn later, removed: one period of an endless stream. */
function period(): Uint8Array {
  const lines: string[] = [];
  for (let index = 0; index < LIVE; index += 1) {
    const pfn = 0x80000 + index * 16;
    const head = `             fio-${600 + (index % 8)}     [00${index % 4}] d.h1.   123.${456_000 + index}: `;
    const range = `IOMMU: iova=0x${hex(pfn)} - 0x${hex(pfn + 16)}`;
    lines.push(`${head}unmap: ${range} size=65536 unmapped_size=65536`);
    lines.push(`${head}map: ${range} paddr=0x${hex(0x12f94 + index)} size=65536`);
  }
  return new TextEncoder().encode(`${lines.join("\n")}\n`);
}

/** Bytes that live objects and buffers take now. */
function heldBytes(): number {
  (globalThis as { gc?: () => void }).gc?.();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

/**
 * All rounds feed one verifier: eight of them are a stream of 5 GB. Memory must not grow with it.
 */
const stream: Benchmark = {
  name: "recording: verify of one endless trace (5 GB in 8 rounds)",
  unit: "line",
  target: TARGET,
  prepare(scale) {
    const bytes = period();
    const periods = Math.max(2, Math.floor((640 * 2 ** 20 * scale) / bytes.length));
    const checker = new TraceChecker("stream", null);
    const feed = () => {
      for (let turn = 0; turn < periods; turn += 1) pushAll(checker, bytes);
    };
    let heldBefore = -1;
    return {
      units: periods * LIVE * 2,
      round() {
        const before = checker.lines;
        feed();
        const held = heldBytes();
        if (heldBefore < 0) heldBefore = held;
        if (held - heldBefore > 32 * 2 ** 20) {
          throw new Error(`memory grew by ${held - heldBefore} bytes over the stream`);
        }
        return checker.lines - before;
      },
    };
  },
};

export const benchmarks: readonly Benchmark[] = [
  grouping,
  verifying("verify: ftrace by rules, from gzip", "nvme-randwrite.txt.gz", () => {
    return new TraceChecker("trace", null);
  }),
  verifying("verify: QEMU log, from gzip", "qemu-virtio-iommu-strict.log.gz", () => {
    return new QemuChecker("log");
  }),
  verifying("verify: request vectors, from gzip", "virtio-iommu-requests.jsonl.gz", () => {
    return new RequestChecker("requests");
  }),
  stream,
];
