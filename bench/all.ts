/** Every benchmark file, one line each. */
import type { Benchmark } from "./harness.ts";
import { benchmarks as virtqueue } from "./virtqueue.bench.ts";

export const benchmarks: readonly Benchmark[] = [...virtqueue];
