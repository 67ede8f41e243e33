/** Reads the entries of a walk as 64-bit values, for the vectors of the formats. */
import { createLocation, PagePool } from "../../memory/page-pool.ts";
import { PageTable } from "../page-table.ts";
import { PROT_RW } from "../prot.ts";
import { WalkResult } from "../table-walk.ts";
import type { PageTableFormat } from "./format.ts";

/** A table whose tables begin at frame 0x100: the root there, then in the order of making. */
export function createVectorTable(format: PageTableFormat): { table: PageTable; pool: PagePool } {
  const pool = new PagePool([{ node: 0, basePfn: 0x100, frameCount: 1024 }]);
  return { table: new PageTable({ format, pool, node: 0 }), pool };
}

/** The entries that a walk to a frame reads, from the top down. */
export function entriesAt(
  { table, pool }: { table: PageTable; pool: PagePool },
  iovaPfn: number,
): bigint[] {
  const result = new WalkResult();
  table.walk(iovaPfn, result);
  const entries: bigint[] = [];
  const at = createLocation();
  for (let level = result.startLevel; level >= result.level; level -= 1) {
    pool.locate(result.tablePfns[level]!, at);
    const { entryFramesOf, maskOf } = table.format;
    const index = Math.floor(iovaPfn / entryFramesOf[level]!) % (maskOf[level]! + 1);
    const word = at.index + 2 * index;
    entries.push((BigInt(at.words[word + 1]!) << 32n) | BigInt(at.words[word]!));
  }
  return entries;
}

/** The leaf that one mapping of a page of 2^pageShift bytes gives. */
export function leafEntry(
  format: PageTableFormat,
  iovaPfn: number,
  physPfn: number,
  pageShift: number,
  prot = PROT_RW,
): bigint {
  const world = createVectorTable(format);
  world.table.mapPages(iovaPfn, physPfn, pageShift, 1, prot);
  return entriesAt(world, iovaPfn).at(-1)!;
}

/** A 64-bit value out of bit numbers and values. */
export function bits(...parts: (number | bigint)[]): bigint {
  let value = 0n;
  for (const part of parts) value |= typeof part === "bigint" ? part : 1n << BigInt(part);
  return value;
}
