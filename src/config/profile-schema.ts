/**
 * The form of machine profiles and scenarios: schemas `iommukit/profile@1` and
 * `iommukit/scenario@1`, described in `docs/run.md`.
 */
import { z } from "zod";
import { plainText } from "../errors.ts";
import { Step, type StepName } from "../meter.ts";
import { CPUS_MAX } from "../sim/profiles/machine-profile.ts";
import { integer, numberList } from "./scalars.ts";

export const PROFILE_SCHEMA = "iommukit/profile@1";
export const SCENARIO_SCHEMA = "iommukit/scenario@1";

const stepNames = Object.keys(Step) as StepName[];
const NODES_MAX = 64;
/** Below 16 GiB, buffers of jobs do not fit between holes. */
const GUEST_PAGES_MIN = 2 ** 22;
/** Prices are per step. */
const PRICES_MAX = stepNames.length;
const NS_MAX = 1e12;
const text = z.string({ error: "this is no text" }).max(4096);
/** Names are shown in tables and on terminals. */
const shownText = text.transform(plainText);
const jobText = z.string({ error: "this is no text" }).max(1 << 20);

/** A number with or without a fraction. */
export function decimal(least: number, most: number) {
  const what = `number from ${least} to ${most}`;
  return z
    .union([z.bigint(), z.number()], { error: `this is no ${what}` })
    .transform((value, context): number => {
      const number = Number(value);
      if (number >= least && number <= most) return number;
      context.issues.push({ code: "custom", input: value, message: `${value} is no ${what}` });
      return z.NEVER;
    });
}

export const nanoseconds = decimal(0, NS_MAX);

export const price = z.strictObject({
  step: text,
  eachNs: nanoseconds.default(0),
  unitNs: nanoseconds.default(0),
  remoteUnitNs: nanoseconds.default(0),
  on: text.optional(),
  source: text.default(""),
  fittedOn: z.union([z.null(), text], { error: "this is neither null nor text" }).default(null),
});

const profileShape = {
  name: text.min(1).max(80).transform(plainText),
  about: shownText.default(""),
  iommu: z.enum(["virtio", "vtd"], { error: "this is none of virtio, vtd" }).default("virtio"),
  cpusByNode: z
    .array(integer(0, CPUS_MAX), { error: "this is no list of CPU counts, one for each node" })
    .min(1)
    .max(NODES_MAX),
  software: z.strictObject({
    submitNs: nanoseconds,
    completeNs: nanoseconds,
    source: text.default(""),
  }),
  disk: z.strictObject({
    channels: integer(0, 65_536),
    readNs: nanoseconds,
    writeNs: nanoseconds,
    bytesPerSecond: decimal(0, 1e15),
    writeBytesPerSecond: decimal(1, 1e15).optional(),
    source: text.default(""),
  }),
  buffers: z
    .strictObject({ breaksPerMille: integer(0, 1000), source: text.default("") })
    .default({ breaksPerMille: 1000, source: "" }),
  host: z
    .union(
      [
        z.null(),
        z.strictObject({
          guestPages: integer(GUEST_PAGES_MIN, 2 ** 24),
          blockPages: z.union([z.literal(1n), z.literal(512n)], {
            error: "this is neither 1 nor 512",
          }),
        }),
      ],
      { error: "this is neither null nor a map of guestPages and blockPages" },
    )
    .default(null),
  prices: z.array(price, { error: "this is no list of prices" }).max(PRICES_MAX).default([]),
};

/** A machine inside another document. */
export const machineBody = z.strictObject(profileShape, { error: "a machine is a map" });

/** A profile as a file. */
export const profileSchema = z.strictObject(
  {
    schema: z.literal(PROFILE_SCHEMA, { error: `this is not ${PROFILE_SCHEMA}` }),
    ...profileShape,
  },
  { error: "a profile is a map" },
);

const workload = z
  .strictObject(
    {
      fio: text.optional(),
      jobs: jobText.optional(),
      sections: z.array(text).max(1000).optional(),
      cpus: numberList.optional(),
    },
    { error: "a workload is a map with fio or jobs" },
  )
  .refine(({ fio, jobs }) => (fio === undefined) !== (jobs === undefined), {
    error: "a workload has either fio, the path of a job file, or jobs, its text",
  });

/** A scenario as a file. */
export const scenarioSchema = z.strictObject(
  {
    schema: z.literal(SCENARIO_SCHEMA, { error: `this is not ${SCENARIO_SCHEMA}` }),
    machine: z.union([text, machineBody], {
      error: "this is neither the name of a machine, nor a file, nor a map",
    }),
    policies: z.array(text).min(1).max(100).optional(),
    seed: integer(0, 2 ** 32 - 1).optional(),
    timeMs: decimal(0.001, 3_600_000).optional(),
    workload,
  },
  { error: "a scenario is a map" },
);
