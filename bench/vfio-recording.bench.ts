/** Recordings of VFIO: from gzip to calls, and on to the result of `verify`. */
import { readFileSync } from "node:fs";
import { gunzipSync, gzipSync } from "node:zlib";
import { MapEvents } from "../src/recording/map-events.ts";
import { VfioMapTimeChecker } from "../src/recording/verify/vfio-map-time-checker.ts";
import { VfioType1Checker } from "../src/recording/verify/vfio-type1-checker.ts";
import { VfioType1Reader } from "../src/recording/vfio-type1-reader.ts";
import type { Benchmark } from "./harness.ts";

const CHUNK_BYTES = 256 * 1024;

function example(name: string): string {
  return gunzipSync(readFileSync(new URL(`../examples/${name}`, import.meta.url))).toString();
}

function pushAll(reader: { push(chunk: Uint8Array): void }, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
    reader.push(bytes.subarray(at, at + CHUNK_BYTES));
  }
}

/** The bundled calls, repeated with their first two lines: many containers, one after the other. */
function packedCalls(scale: number): { gzip: Uint8Array; lines: number } {
  const text = example("vfio-type1-amd.jsonl.gz");
  const turns = Math.max(2, Math.floor(500 * scale));
  const lines = text.trimEnd().split("\n").length * turns;
  return { gzip: gzipSync(text.repeat(turns), { level: 6 }), lines };
}

const reading: Benchmark = {
  name: "recording: VFIO calls, from gzip",
  unit: "line",
  target: { perSecond: 1e6 },
  prepare(scale) {
    const { gzip, lines } = packedCalls(scale);
    return {
      units: lines,
      round() {
        let sum = 0;
        const reader = new VfioType1Reader({
          open: () => {},
          call: (call) => {
            sum = (sum * 31 + call.iovaPfn + call.sizePfn + call.errno) % 2 ** 40;
          },
        });
        pushAll(reader, gunzipSync(gzip));
        reader.end();
        return (sum + reader.notes.unreadable) % 2 ** 32;
      },
    };
  },
};

const verifying: Benchmark = {
  name: "verify: VFIO calls, from gzip",
  unit: "line",
  prepare(scale) {
    const { gzip, lines } = packedCalls(scale);
    return {
      units: lines,
      round() {
        const checker = new VfioType1Checker("calls");
        pushAll(checker, gunzipSync(gzip));
        const { tally } = checker.end();
        return tally.matched * 31 + tally.unwaived;
      },
    };
  },
};

const pairing: Benchmark = {
  name: "verify: VFIO mappings with their map events",
  unit: "event",
  prepare(scale) {
    const mappings = new TextEncoder().encode(example("vfio-map-time.jsonl.gz"));
    const trace = new TextEncoder().encode(example("vfio-map-time-events.txt.gz"));
    const turns = Math.max(1, Math.floor(40 * scale));
    const verify = () => {
      const checker = new VfioMapTimeChecker("map-time");
      checker.push(mappings);
      const events = new MapEvents();
      events.push(trace);
      events.end();
      checker.offer({ file: "trace", events });
      return checker.end().tally;
    };
    return {
      units: verify().compared * turns,
      round() {
        let sum = 0;
        for (let turn = 0; turn < turns; turn += 1) sum = (sum * 31 + verify().matched) % 2 ** 32;
        return sum % 2 ** 32;
      },
    };
  },
};

export const benchmarks: readonly Benchmark[] = [reading, verifying, pairing];
