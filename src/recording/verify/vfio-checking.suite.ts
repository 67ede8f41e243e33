/** Verifies recordings of VFIO: the vectors that lie beside this room, and lines made up by tests. */
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import type { CheckOutcome } from "./checker.ts";
import { check } from "./checking.suite.ts";
import { VfioType1Checker } from "./vfio-type1-checker.ts";

/** Text of a recording in `src/recording/vectors`. */
export function vectorText(name: string): string {
  const path = new URL(`../vectors/${name}`, import.meta.url);
  return gunzipSync(readFileSync(path)).toString();
}

/** Vectors of type1 calls. */
export const TYPE1_VECTORS = [
  "vfio-vtd-v1-seed2.jsonl.gz",
  "vfio-vtd-v2-seed3.jsonl.gz",
  "vfio-vtd-memlock-seed22.jsonl.gz",
  "vfio-vtd39-v2-seed103.jsonl.gz",
  "vfio-amd-v2-seed103.jsonl.gz",
  "vfio-amd-memlock-seed122.jsonl.gz",
  "vfio-smmu-v2-seed101.jsonl.gz",
  "vfio-virtio-v1-seed111.jsonl.gz",
  "vfio-virtio-limit4-v2-seed101.jsonl.gz",
] as const;

/** Verifies lines of type1 calls. */
export function checkType1(text: string): CheckOutcome {
  return check(new VfioType1Checker("calls.jsonl"), text);
}

/** The first two lines of a recording of VT-d, with some fields of the first one replaced. */
export function headLines(fields: Record<string, unknown> = {}, pageSizes = "0x40201000"): string {
  const open = { op: "open", seed: 1, type: 3, memlock: -1, api: 0, group_flags: 1, ...fields };
  const caps = [
    { id: 2, version: 1, pgsize_bitmap: "0x1000", max_dirty: "0x10000000" },
    { id: 3, version: 1, dma_avail: 65535 },
    {
      id: 1,
      version: 1,
      iova_ranges: [
        ["0x0", "0xfedfffff"],
        ["0xfef00000", "0xffffffffffff"],
      ],
    },
  ];
  const info = { op: "info", flags: 3, pgsizes: pageSizes, caps };
  return `${JSON.stringify(open)}\n${JSON.stringify(info)}\n`;
}
