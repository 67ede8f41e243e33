/** Every benchmark file, one line each. */
import type { Benchmark } from "./harness.ts";

export const benchmarks: readonly Benchmark[] = [];
