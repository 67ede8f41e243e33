/** Runs the benchmarks: `npm run bench [-- --small] [--json] [NAME…]`. */
import { benchmarks as registered } from "./all.ts";
import { type BenchmarkResult, runBenchmark } from "./harness.ts";

const words = process.argv.slice(2);
const small = words.includes("--small");
const json = words.includes("--json");
const names = words.filter((word) => !word.startsWith("--"));
const chosen = registered.filter(
  (benchmark) => names.length === 0 || names.some((name) => benchmark.name.includes(name)),
);
const results: BenchmarkResult[] = [];
for (const benchmark of chosen) {
  const result = runBenchmark(benchmark, {
    scale: small ? 0.01 : 1,
    rounds: small ? 1 : 7,
    now: () => process.hrtime.bigint(),
  });
  results.push(result);
  if (json) continue;
  const rate = `${(result.perSecond / 1e6).toFixed(2)} M ${result.unit}s/s`;
  const verdict = small || result.met === null ? "" : result.met ? "met" : "MISSED";
  console.log(
    `${result.name.padEnd(58)} ${result.nsMedian.toFixed(1).padStart(10)} ns ${rate.padStart(24)}` +
      `  ${result.hash}  ${result.target.padEnd(12)} ${verdict}`,
  );
  const base = results.find((other) => other.name === benchmark.ratioTo);
  if (base === undefined) continue;
  console.log(`    ${(result.nsMedian / base.nsMedian).toFixed(0)} times "${base.name}"`);
}
if (json) console.log(JSON.stringify({ schema: "iommukit/bench@1", result: results }, null, 2));
