/** Reads the values of flags; each message says what was wrong and what is accepted. */

import { suggestion } from "../config/nearest.ts";
import { type Policy, policyNamed, policyNames } from "../dma/policy.ts";
import { type IommuKind, iommuKinds } from "../recording/replay/result.ts";
import { isPowerOfTwo } from "../units.ts";

/** Slots that a flush queue may have at most; 64 times the largest of Linux. */
const QUEUE_SLOTS_MAX = 2 ** 21;
const DURATION_NS_MAX = 3600e9;

/** A policy by its name. @throws Error that names the nearest one */
export function parsePolicy(text: string): Policy {
  const policy = policyNamed(text);
  if (policy !== undefined) return policy;
  throw new Error(
    `there is no policy "${text}"${suggestion(text, policyNames)}\n` +
      `  policies: ${policyNames.join(", ")}`,
  );
}

/** The kind of IOMMU. @throws Error that names the kinds */
export function parseIommu(text: string): IommuKind {
  const kind = iommuKinds.find((candidate) => candidate === text);
  if (kind !== undefined) return kind;
  throw new Error(
    `there is no IOMMU kind "${text}"${suggestion(text, iommuKinds)}\n` +
      `  kinds: ${iommuKinds.join(", ")}`,
  );
}

/** Slots of a flush queue: a power of two from 2 on, since one slot always stays free. */
export function parseQueueSize(text: string): number {
  const size = /^\d{1,8}$/.test(text) ? Number(text) : Number.NaN;
  if (size >= 2 && size <= QUEUE_SLOTS_MAX && isPowerOfTwo(size)) return size;
  throw new Error(
    `a flush queue has a power of two of slots, 2 to ${QUEUE_SLOTS_MAX}, not "${text}"`,
  );
}

const nsByUnit = new Map([
  ["ns", 1],
  ["us", 1e3],
  ["ms", 1e6],
  ["s", 1e9],
  ["m", 60e9],
  ["h", 3600e9],
]);

/** A time with its unit, in nanoseconds: `10ms`, `1s`, `500us`. */
export function parseDurationNs(text: string): number {
  const match = /^(\d{1,12}(?:\.\d{1,9})?)(ns|us|ms|s|m|h)$/.exec(text);
  const ns = match === null ? Number.NaN : Number(match[1]) * nsByUnit.get(match[2]!)!;
  if (ns >= 1 && ns <= DURATION_NS_MAX) return Math.round(ns);
  throw new Error(
    `a time is a number with ns, us, ms, s, m or h, such as 10ms, up to 1h, not "${text}"`,
  );
}

/** A seed: a whole number of 32 bits. */
export function parseSeed(text: string): number {
  const seed = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
  if (seed < 2 ** 32) return seed;
  throw new Error(`a seed is a whole number from 0 to ${2 ** 32 - 1}, not "${text}"`);
}
