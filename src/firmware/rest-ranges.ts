/**
 * The functions that an IOMMU takes because no other claims them, as ranges: for descriptions that,
 * unlike DMAR, have no word for the rest. Which unit takes it is as `topology/translation.ts` says.
 */
import type { Iommu, Machine, RidRange } from "../topology/machine.ts";
import { segmentOf } from "../topology/translation.ts";
import { cannotDescribe } from "./build-error.ts";
import { laterWins } from "./rid-spans.ts";

const RID_LAST = 0xffff;

/** The machine with ranges in place of `rest` of some kinds. @throws StackError when scopes reach below bridges */
export function withRestAsRanges(
  as: string,
  machine: Machine,
  kinds: readonly Iommu["kind"][],
): Machine {
  const described = machine.iommus.filter(({ kind }) => kinds.includes(kind));
  if (described.every((iommu) => !iommu.includesRest)) return machine;
  const taken = new Set<number>();
  const iommus = machine.iommus.map((iommu): Iommu => {
    if (!iommu.includesRest || !kinds.includes(iommu.kind)) return iommu;
    const segment = segmentOf(iommu);
    // Of two that take the rest of a segment, the first has it.
    const ranges = taken.has(segment) ? [] : restOf(as, { ...machine, iommus: described }, segment);
    taken.add(segment);
    return { ...iommu, includesRest: false, translates: [...iommu.translates, ...ranges] };
  });
  return { ...machine, iommus };
}

function restOf(as: string, { iommus, hostBridges }: Machine, segment: number): RidRange[] {
  const claimed = iommus.flatMap((one) => one.translates).filter((one) => one.segment === segment);
  if (claimed.some((range) => range.includesBelow)) {
    const message = "what is left beside scopes that reach below bridges is not known as ranges";
    throw cannotDescribe(as, message, "name requester ids instead of `below`");
  }
  const bypassing = hostBridges.filter((one) => one.segment === segment && one.bypassesIommu);
  const spans = laterWins([
    ...claimed.map(({ firstRid, lastRid }) => ({ first: firstRid, last: lastRid, value: null })),
    ...bypassing.map(({ firstBus, lastBus }) => ({
      first: firstBus * 0x100,
      last: lastBus * 0x100 + 0xff,
      value: null,
    })),
  ]);
  const gaps: RidRange[] = [];
  let next = 0;
  for (const { first, last } of [...spans, { first: RID_LAST + 1, last: RID_LAST + 1 }]) {
    if (first > next) {
      const ends = { firstRid: next, lastRid: first - 1, firstId: next };
      gaps.push({ segment, ...ends, includesBelow: false });
    }
    next = last + 1;
  }
  return gaps;
}
