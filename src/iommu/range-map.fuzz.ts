/** Fuzzes the range map against a sorted array of byte ranges; invariants hold after every step. */
import { expect, it } from "vitest";
import { Random } from "../random.ts";
import { CUT, RangeInsert, RangeMap } from "./range-map.ts";

/** One life over `space` bytes. @returns what is wrong, or null */
function fuzz(seed: number): string | null {
  const random = new Random(seed);
  const isPaged = random.chance(1, 2);
  const unit = isPaged ? 4096 : 1 + random.below(300);
  const space = 20 + random.below(600);
  const origin = random.chance(1, 2) ? 0 : 2 ** 45;
  const map = new RangeMap({ rangesMax: 1 + random.below(500) });
  const limit = random.chance(1, 8) ? 20 : 500;
  let plain: [number, number][] = [];
  for (let step = 0; step < 600; step += 1) {
    const start = random.below(space) * unit;
    const last = start + (1 + random.below(random.chance(1, 9) ? 60 : 3)) * unit - 1;
    const span = [
      origin + Math.floor(start / 4096),
      start % 4096,
      origin + Math.floor(last / 4096),
      last % 4096,
    ] as const;
    const touched = plain.filter(([from, to]) => from <= last && start <= to);
    if (random.chance(1, 2) && plain.length < limit) {
      const got = map.insert(...span, 1, 2, 3);
      if (got === RangeInsert.FULL) continue;
      if ((got === RangeInsert.OVERLAP) !== touched.length > 0) return `step ${step}: insert`;
      if (got === RangeInsert.OK) plain.push([start, last]);
    } else {
      const isCut = touched.some(([from, to]) => from < start || to > last);
      const got = map.removeContained(...span);
      if (got !== (isCut ? CUT : touched.length)) return `step ${step}: remove`;
      if (!isCut) plain = plain.filter((range) => !touched.includes(range));
    }
    if (step % 16 === 0) map.check();
  }
  map.check();
  return map.count === plain.length ? null : "count";
}

it("the range map agrees with a plain list in 800 lives", () => {
  for (let seed = 1; seed <= 800; seed += 1) expect(fuzz(seed), `seed ${seed}`).toBe(null);
});
