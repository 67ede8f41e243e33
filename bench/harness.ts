/**
 * Benchmarks with fixed work: what one is, and how it is run, summed up and printed.
 *
 * Each round does the same work and returns a hash of its result, so that the work cannot be
 * optimised away and a change of behaviour shows. The median of the rounds is reported.
 */

/** One benchmark. */
export interface Benchmark {
  readonly name: string;
  /** What is counted, in the singular: "request", "PTE", "line". */
  readonly unit: string;
  /** What the project promises, in `unit`s per second (at least) or ns per unit (at most). */
  readonly target?: { readonly perSecond: number } | { readonly ns: number } | null;
  /** Rounds that are enough of something that takes long; all by default. */
  readonly roundsMax?: number;
  /** Name of a benchmark, listed before, whose time for the same unit this one's is divided by. */
  readonly ratioTo?: string;
  /**
   * Builds the state, outside the measured time.
   *
   * @param scale - 1 for a full run, smaller for a smoke test
   * @returns how many units one round does, and the round itself, which returns a hash
   */
  prepare(scale: number): { units: number; round: () => number };
}

/** What a benchmark gave. */
export interface BenchmarkResult {
  readonly name: string;
  readonly unit: string;
  readonly nsMedian: number;
  readonly nsMin: number;
  readonly perSecond: number;
  readonly hash: string;
  readonly target: string;
  readonly met: boolean | null;
}

/**
 * Runs one benchmark.
 *
 * @param now - a clock in nanoseconds
 * @throws Error when two rounds return different hashes
 */
export function runBenchmark(
  benchmark: Benchmark,
  options: { scale: number; rounds: number; now: () => bigint },
): BenchmarkResult {
  const { units, round } = benchmark.prepare(options.scale);
  const hash = round();
  const ns: number[] = [];
  const rounds = Math.min(options.rounds, benchmark.roundsMax ?? options.rounds);
  for (let index = 0; index < rounds; index += 1) {
    const start = options.now();
    const again = round();
    ns.push(Number(options.now() - start) / units);
    if (again !== hash) throw new Error(`${benchmark.name}: rounds differ: ${hash}, ${again}`);
  }
  ns.sort((a, b) => a - b);
  const nsMedian = ns[ns.length >> 1] ?? Number.NaN;
  const perSecond = 1e9 / nsMedian;
  const target = benchmark.target ?? null;
  return {
    name: benchmark.name,
    unit: benchmark.unit,
    nsMedian,
    nsMin: ns[0] ?? Number.NaN,
    perSecond,
    hash: (hash >>> 0).toString(16).padStart(8, "0"),
    target:
      target === null
        ? ""
        : "perSecond" in target
          ? `>= ${target.perSecond / 1e6} M/s`
          : `<= ${target.ns} ns`,
    met:
      target === null
        ? null
        : "perSecond" in target
          ? perSecond >= target.perSecond
          : nsMedian <= target.ns,
  };
}
