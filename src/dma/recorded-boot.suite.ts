/**
 * A recorded boot as a list of what its IOVA allocator was asked for, for tests: allocations, each
 * with the address that Linux gave, and frees, in the order of the trace.
 */
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { IovaDomain } from "./iova-domain.ts";
import type { IovaRules } from "./iova-rules.ts";

/** One call of the allocator. */
export interface RecordedCall {
  readonly kind: "alloc" | "free";
  readonly pfn: number;
  pages: number;
  /** Task and whether an interrupt had hit it. */
  readonly pid: number;
  readonly inIrq: boolean;
}

const line =
  /-(\d+)\s+\[\d+\] (\S+)\s+[\d.]+: (map|unmap): IOMMU: iova=0x([0-9a-f]+) - 0x([0-9a-f]+)/;

/** Reads a trace; the map events that one unmap covers are one allocation. */
export function readCalls(file: URL): RecordedCall[] {
  const text = gunzipSync(readFileSync(file)).toString("latin1");
  const calls: (RecordedCall & { part: boolean })[] = [];
  const mapAt = new Map<number, RecordedCall & { part: boolean }>();
  for (const row of text.split("\n")) {
    const match = line.exec(row);
    if (match === null) continue;
    const [, pid, flags, event, start, end] = match;
    const pfn = Number.parseInt(start!, 16) / 4096;
    const call = {
      kind: event === "map" ? ("alloc" as const) : ("free" as const),
      pfn,
      pages: Number.parseInt(end!, 16) / 4096 - pfn,
      pid: Number(pid),
      inIrq: /[hsH]/.test(flags!),
      part: false,
    };
    calls.push(call);
    if (call.kind === "alloc") mapAt.set(pfn, call);
    else joinMaps(mapAt, call);
  }
  return calls.filter((call) => !call.part);
}

/** Makes the maps that an unmap covers one allocation. */
function joinMaps(
  mapAt: Map<number, RecordedCall & { part: boolean }>,
  { pfn, pages }: RecordedCall,
): void {
  const first = mapAt.get(pfn)!;
  for (let at = pfn; at < pfn + pages; ) {
    const map = mapAt.get(at)!;
    mapAt.delete(at);
    at += map.pages;
    if (map !== first) map.part = true;
  }
  first.pages = pages;
}

/** The allocator of the recorded guest: one NVMe disk behind a virtio-iommu. */
export function recordedSpace(rules: Partial<IovaRules>, cpus: number): IovaDomain {
  const space = new IovaDomain({ cpus, rules });
  for (const [first, last] of [
    [0xa0, 0xbf],
    [0x80000, 0xaffff],
    [0xc0000, 0xfebff],
    [0x10_0000, 0x8f_ffff],
    [0xfee00, 0xfeeff],
  ] as const)
    space.reserve(first, last);
  return space;
}

function run(space: IovaDomain, call: RecordedCall): number {
  if (call.kind === "alloc") return space.alloc(call.pages, 0xf_ffff, false, 0);
  space.free(call.pfn, call.pages, 0, 0);
  return 0;
}

/**
 * The order in which the calls really happened. An allocation is traced after it was made, so it
 * may belong before frees that interrupts of the same task did in between: it moves over as few of
 * them as make Linux's address the one that the allocator gives.
 */
export function inferOrder(calls: readonly RecordedCall[]): {
  order: RecordedCall[];
  moves: number;
} {
  const space = recordedSpace({}, 1);
  const order: RecordedCall[] = [];
  let waiting: RecordedCall[] = [];
  let moves = 0;
  const settle = (call: RecordedCall): void => {
    run(space, call);
    order.push(call);
  };
  for (const call of calls) {
    if (waiting.length > 0 && (call.kind === "alloc" || call.pid !== waiting[0]!.pid)) {
      const window = call.pid === waiting[0]!.pid ? waiting.length : 0;
      const over = call.kind === "alloc" ? movesOver(space, waiting, window, call) : 0;
      const after = waiting.splice(waiting.length - over);
      for (const free of waiting) settle(free);
      waiting = [];
      if (over > 0) moves += 1;
      if (call.kind === "alloc") {
        settle(call);
        for (const free of after) settle(free);
        continue;
      }
    }
    if (call.kind === "free" && call.inIrq) waiting.push(call);
    else settle(call);
  }
  for (const free of waiting) settle(free);
  return { order, moves };
}

/** How many of the waiting frees an allocation moves over; 0 where none helps. */
function movesOver(
  space: IovaDomain,
  waiting: readonly RecordedCall[],
  window: number,
  call: RecordedCall,
): number {
  for (let over = 0; over <= window; over += 1) {
    const trial = space.clone();
    for (const free of waiting.slice(0, waiting.length - over)) run(trial, free);
    if (run(trial, call) === call.pfn) return over;
  }
  return 0;
}

/**
 * Runs the calls in a given order, never corrected: what is freed is what was given.
 *
 * @returns how many allocations gave Linux's address
 */
export function freeRun(order: readonly RecordedCall[], rules: Partial<IovaRules> = {}): number {
  const space = recordedSpace(rules, 1);
  const given = new Map<number, number>();
  let matched = 0;
  for (const call of order) {
    if (call.kind === "alloc") {
      const pfn = run(space, call);
      given.set(call.pfn, pfn);
      if (pfn === call.pfn) matched += 1;
      continue;
    }
    const pfn = given.get(call.pfn);
    given.delete(call.pfn);
    if (pfn !== undefined) space.free(pfn, call.pages, 0, 0);
  }
  return matched;
}
