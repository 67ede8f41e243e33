/** A random life of a range tree beside a sorted list, for the test and, longer, for the fuzzer. */
import { assert } from "../errors.ts";
import { Random } from "../random.ts";
import { alignmentOf } from "./gap.ts";
import { ANCHOR_PFN, RangeTree } from "./range-tree.ts";

interface PlainRange {
  first: number;
  last: number;
}

/** The highest start in any gap below the ceiling, by trying every gap. */
function findBelow(
  ranges: readonly PlainRange[],
  ceiling: number,
  pages: number,
  aligned: boolean,
): number {
  const alignment = aligned ? alignmentOf(pages) : 1;
  const all = [...ranges, { first: ANCHOR_PFN, last: ANCHOR_PFN }];
  for (let index = all.length - 1; index >= 0; index -= 1) {
    const bottom = index === 0 ? 0 : all[index - 1]!.last + 1;
    const end = Math.min(ceiling, all[index]!.first);
    const start = Math.floor((end - pages) / alignment) * alignment;
    if (end >= pages && start >= bottom) return start;
  }
  return -1;
}

/**
 * Grows a tree to `rangesMax` ranges and shrinks it to nothing, twice over, with insertions and
 * removals in between.
 *
 * @param checks - how often everything is compared
 */
export function lifeOfRanges(seed: number, rangesMax: number, checks: number): void {
  const random = new Random(seed);
  const tree = new RangeTree();
  // One range at most in each cell of 16 pages; which cells are taken is the model.
  const cells = rangesMax * 2;
  const taken = new Map<number, PlainRange>();
  const operations = rangesMax * 6;
  const checkEvery = Math.max(1, Math.floor(operations / checks));
  for (let count = 0; count < operations; count += 1) {
    const growing = Math.floor((count * 4) / operations) % 2 === 0;
    const cell = random.below(cells);
    const range = taken.get(cell);
    if (range === undefined && random.chance(growing ? 9 : 1, 10)) {
      const first = cell * 16 + random.below(16);
      const last = first + random.below(cell * 16 + 16 - first);
      tree.seek(last);
      tree.insert(first, last);
      taken.set(cell, { first, last });
    } else if (range !== undefined && random.chance(growing ? 1 : 9, 10)) {
      tree.seek(range.first + random.below(range.last - range.first + 1));
      assert(tree.last === range.last, "seek finds the range that holds the page");
      tree.remove();
      taken.delete(cell);
      assert(tree.first > range.last, "removal leaves the cursor on the next range");
    } else if (range !== undefined && range.first % 16 > 0) {
      tree.seek(range.last);
      tree.extendDown(range.first - 1);
      range.first -= 1;
    }
    if (count % checkEvery === 0) compare(tree, taken, random, cells * 16);
  }
  for (const range of [...taken.values()]) {
    tree.seek(range.last);
    tree.remove();
  }
  compare(tree, new Map(), random, 100);
}

function compare(
  tree: RangeTree,
  taken: ReadonlyMap<number, PlainRange>,
  random: Random,
  space: number,
): void {
  const ranges = [...taken.values()].sort((a, b) => a.first - b.first);
  assert(tree.size === ranges.length, "the ranges are counted");
  let index = 0;
  for (const { first, last } of tree) {
    assert(first === ranges[index]?.first && last === ranges[index]?.last, "ranges are the same");
    index += 1;
  }
  assert(index === ranges.length, "all ranges are there");
  for (let count = 0; count < 40; count += 1) {
    const ceiling = 1 + random.below(space);
    const pages = 1 + random.below(2 ** random.below(8));
    const aligned = random.chance(3, 4);
    const start = tree.findBelow(ceiling, pages, aligned);
    assert(start === findBelow(ranges, ceiling, pages, aligned), "the same start is found");
    const ending = ranges.filter(({ last }) => last < ceiling).length;
    assert(tree.countEndingBelow(ceiling) === ending, "ranges below are counted");
    const starting = ranges.filter(({ first }) => first < ceiling).length;
    assert(tree.countStartingBelow(ceiling) === starting, "ranges that start below are counted");
  }
}
