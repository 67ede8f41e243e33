/**
 * Where a unit reads when it walks for a device: the nodes of the tables on the way, and the totals
 * of many accesses through the unit's caches.
 */

import { assert } from "../../errors.ts";
import { TableWalker, WalkResult } from "../../iommu/table-walk.ts";
import { NO_PASID } from "../../iommu/tag-array.ts";
import { Outcome, Translation } from "../../iommu/translation-unit.ts";
import { NULL_METER } from "../../meter.ts";
import type { Host } from "./host.ts";
import type { UnitReads } from "./read-meter.ts";

/**
 * The NUMA nodes that a walk without any cache reads, from the top table down to the last entry.
 *
 * @returns null when the device's DMA goes through no page table
 */
export function walkedNodes(host: Host, address: string, iovaPfn: number): number[] | null {
  const { unit, iommuDevice } = host.device(address);
  const attachment = unit?.devices.find(iommuDevice.rid)?.attachment ?? null;
  if (attachment === null || attachment.kind !== "paged") return null;
  const { table } = attachment;
  const walk = new WalkResult();
  const walker = new TableWalker(table.format, host.pool, NULL_METER);
  walker.walk(table.rootPfn, table.topLevel, iovaPfn, walk);
  const nodes: number[] = [];
  for (let level = walk.startLevel; level >= walk.level; level -= 1) {
    const tablePfn = walk.tablePfns[level]!;
    if (tablePfn >= 0) nodes.push(host.pool.nodeOf(tablePfn));
  }
  return nodes;
}

/**
 * One access of a device, through the unit's caches; what the unit reads is counted as its own.
 *
 * @param access - bits of `Prot`
 * @returns the frame reached, −1 when it was refused
 */
export function deviceAccess(host: Host, address: string, iovaPfn: number, access: number): number {
  const { unit, iommuDevice } = host.device(address);
  assert(unit !== null, "the device's DMA passes a unit");
  const out = new Translation();
  host.reads.begin(unit);
  const outcome = unit.translateAts(iommuDevice.rid, NO_PASID, iovaPfn, access, out);
  host.reads.end();
  return outcome === Outcome.MEMORY ? out.physPfn : -1;
}

/** What every unit read since the counts were reset, by name. */
export function readsByUnit(host: Host): Map<string, UnitReads> {
  return new Map([...host.units].map(([name, unit]) => [name, host.reads.of(unit)]));
}
