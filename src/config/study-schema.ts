/**
 * The form of scenarios whose workload is not a fio job: one schema for each kind, described in
 * `docs/run.md`. A machine is one that is built in, or `like` it with some members of its own.
 */
import { z } from "zod";
import { plainText } from "../errors.ts";
import { PAGE_BYTES } from "../units.ts";
import { decimal, nanoseconds, price, SCENARIO_SCHEMA } from "./profile-schema.ts";
import { address, integer } from "./scalars.ts";

const text = z.string({ error: "this is no text" }).min(1).max(200);
const flag = z.boolean({ error: "this is neither true nor false" });
const bandwidth = decimal(0, 1e15);
const count = (most: number) => integer(0, most);
/** Bytes of what is kept page by page. */
const size = address;

const link = z.strictObject({ latencyNs: nanoseconds, bytesPerSecond: bandwidth }).optional();
const rate = z.strictObject({ inFlight: count(4096), gapNs: nanoseconds }).optional();
const prices = z.array(price, { error: "this is no list of prices" }).max(100).optional();

const like = { like: text, name: text.max(80).transform(plainText).optional() };

/** What a scenario says besides machine and workload. */
function scenario<M extends z.ZodType, W extends z.ZodRawShape>(machine: M, workload: W) {
  return z.strictObject(
    {
      schema: z.literal(SCENARIO_SCHEMA, { error: `this is not ${SCENARIO_SCHEMA}` }),
      machine: z.union([text, machine], {
        error: "this is neither the name of a machine nor a map that is like one",
      }),
      policies: z.array(text).min(1).max(100).optional(),
      seed: integer(0, 2 ** 32 - 1).optional(),
      workload: z.strictObject(workload, { error: "a workload is a map" }),
    },
    { error: "a scenario is a map" },
  );
}

const windowMachine = z.strictObject({
  ...like,
  prices,
  iotlbEntries: count(2 ** 20).optional(),
  pagingCacheEntries: count(2 ** 16).optional(),
  walkers: count(4096).optional(),
  up: link,
  down: link,
  reads: rate,
  writes: rate,
  memoryNs: nanoseconds.optional(),
  cacheNs: nanoseconds.optional(),
  cacheBytes: size.optional(),
});

const WINDOW_BYTES_MAX = 2 ** 32;

/** Random DMA in a window. */
export const windowScenario = scenario(windowMachine, {
  window: z.strictObject({
    bytes: size,
    write: flag.default(false),
    single: flag.default(false),
    warm: flag.default(false),
    tableNode: count(1).default(0),
    accesses: integer(1000, 50_000_000).default(40_000),
    atsEntries: integer(1, 2 ** 16).optional(),
    faults: z
      .strictObject({
        kind: z.enum(["stall", "pri"], { error: "this is neither stall nor pri" }),
        outstanding: integer(1, 512).default(32),
        handlers: integer(1, 512).default(1),
        reportNs: nanoseconds.default(1000),
        handlerNs: nanoseconds.default(2000),
      })
      .optional(),
  }),
});

const unit = z.strictObject({
  name: text.max(40).transform(plainText),
  node: count(63),
  gpus: count(255).default(0),
  nics: count(255).default(0),
});

const allReduceMachine = z.strictObject({
  ...like,
  prices,
  walkers: count(4096).optional(),
  iotlbEntries: count(2 ** 16).optional(),
  interconnect: link,
  nic: z
    .strictObject({
      inFlight: count(4096).optional(),
      bytes: integer(1, PAGE_BYTES).optional(),
      bytesPerSecond: bandwidth.optional(),
      link,
      memoryNs: nanoseconds.optional(),
    })
    .optional(),
  hosts: count(100_000).optional(),
  bufferBytes: size.optional(),
  blockPages: z
    .union([z.literal(1n), z.literal(512n)], { error: "this is neither 1 nor 512" })
    .optional(),
  nodes: integer(1, 64).optional(),
  units: z.array(unit, { error: "this is no list of IOMMUs" }).max(64).optional(),
});

/** Ring all-reduce. */
export const allReduceScenario = scenario(allReduceMachine, {
  allReduce: z.strictObject({
    nodes: z.array(count(63)).min(1).max(64).optional(),
    mapperNode: count(63).default(0),
    shareBytes: size.default(16n << 20n),
  }),
});

const acceleratorMachine = z.strictObject({
  ...like,
  prices,
  startUpNs: nanoseconds.optional(),
  bytesPerSecond: bandwidth.optional(),
  reportNs: nanoseconds.optional(),
  messages: count(64).optional(),
  inFlight: z.strictObject({ alone: count(64), together: count(64) }).optional(),
});

/** Messages through an accelerator. */
export const acceleratorScenario = scenario(acceleratorMachine, {
  accelerator: z.strictObject({
    messageBytes: size,
    times: integer(1, 100_000),
    premap: integer(1, 2 ** 15).default(1),
  }),
});

const vmStartMachine = z.strictObject({
  ...like,
  prices: z.strictObject({ map: prices, unmap: prices }).optional(),
  startNs: nanoseconds.optional(),
});

const ram = z.strictObject({
  bytes: size,
  pages: z
    .enum(["4k", "scattered", "thp", "hugetlb"], {
      error: "this is none of 4k, scattered, thp, hugetlb",
    })
    .default("4k"),
  touched: flag.default(false),
  batch: integer(1, 512).default(512),
  faults: z.strictObject({ touchedBytes: size, premap: integer(1, 2 ** 15).default(1) }).optional(),
});

const bar = z.strictObject({
  count: integer(1, 256).default(1),
  bytes: size,
  misalignedBytes: size.default(0n),
});

/** The start of a VM. */
export const vmStartScenario = scenario(vmStartMachine, {
  vmStart: z.strictObject({
    ram: ram.optional(),
    bars: z.array(bar).max(64).default([]),
    unmap: z
      .enum(["kernel", "extents"], { error: "this is neither kernel nor extents" })
      .default("extents"),
  }),
});

/** Window sizes that a run keeps page tables for. */
export const windowBytesMax = WINDOW_BYTES_MAX;
