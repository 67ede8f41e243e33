/**
 * Values of fio options: sizes, durations, counts, splits of block sizes, as fio reads them.
 *
 * Source: fio's HOWTO, "Parameter types"; checked against fio 3.33, `--debug=parse`. With the
 * default `kb_base=1024`, `k`, `kb` and `ki` are 1024 and `kib` is 1000; with `kb_base=1000` it is
 * the other way round.
 */
import type { JobOption } from "./job-lines.ts";
import { problem, shown } from "./job-lines.ts";

const POWERS = ["", "k", "m", "g", "t", "p"];

/** Units of a duration, in microseconds. */
const microseconds = new Map([
  ["d", 86_400e6],
  ["h", 3600e6],
  ["m", 60e6],
  ["s", 1e6],
  ["ms", 1e3],
  ["msec", 1e3],
  ["us", 1],
  ["usec", 1],
]);

/**
 * A size in bytes.
 *
 * @param kiloBase - 1024 or 1000, the job's `kb_base`
 */
export function sizeValue(option: JobOption, text: string, kiloBase: number): number {
  const match = /^(0x[0-9a-f]+|\d+)([kmgtp]?)(ib|i|b)?$/i.exec(text);
  if (match === null) {
    throw problem("bad-size", `${option.name} is no size: ${shown(text)}`, option.valueAt, {
      hint: "write a size such as 4k or 1g",
    });
  }
  const [, digits, power, suffix] = match;
  const other = kiloBase === 1024 ? 1000 : 1024;
  const base = suffix?.toLowerCase() === "ib" ? other : kiloBase;
  const bytes = Number(digits) * base ** POWERS.indexOf(power!.toLowerCase());
  return bounded(option, bytes, 0, Number.MAX_SAFE_INTEGER);
}

/**
 * A duration in microseconds.
 *
 * @param usual - the unit of a number alone, which is not the same for all options
 */
export function durationValue(option: JobOption, text: string, usual: "s" | "us" = "s"): number {
  const match = /^(\d+)([a-z]*)$/i.exec(text);
  const unit = match === null ? undefined : microseconds.get(match[2]!.toLowerCase() || usual);
  if (match === null || unit === undefined) {
    throw problem("bad-time", `${option.name} is no duration: ${shown(text)}`, option.valueAt, {
      hint: `fio's units are d, h, m, s, ms and us; a number alone is in ${usual}`,
    });
  }
  return bounded(option, Number(match[1]) * unit, 0, Number.MAX_SAFE_INTEGER);
}

/** A whole number in a range. */
export function countValue(option: JobOption, text: string, min: number, max: number): number {
  const match = /^(0x[0-9a-f]+|\d+)([kmg]?)$/i.exec(text);
  if (match === null) {
    const message = `${option.name} is no whole number: ${shown(text)}`;
    throw problem("bad-count", message, option.valueAt);
  }
  const count = Number(match[1]) * 1024 ** POWERS.indexOf(match[2]!.toLowerCase());
  return bounded(option, count, min, max);
}

function bounded(option: JobOption, value: number, min: number, max: number): number {
  if (value >= min && value <= max) return value;
  const bound = value < min ? `at least ${min}` : `at most ${max}`;
  throw problem("out-of-range", `${option.name} is ${bound}, not ${value}`, option.valueAt);
}

/** A block size and how many of a hundred requests have it. */
export interface BlockShare {
  readonly bytes: number;
  readonly percent: number;
}

/** `4k/60:64k` and the like: what lacks a percentage shares what is left evenly. */
export function splitValue(option: JobOption, text: string, kiloBase: number): BlockShare[] {
  const parts = text.split(":").map((part) => {
    const [size, percent, ...rest] = part.split("/");
    if (rest.length > 0) {
      const message = `${option.name} has a part that is no size/percentage: ${shown(part)}`;
      throw problem("bad-split", message, option.valueAt);
    }
    const bytes = sizeValue(option, size!, kiloBase);
    const isOpen = percent === undefined || percent === "";
    return { bytes, percent: isOpen ? -1 : countValue(option, percent, 0, 100) };
  });
  const given = parts.reduce((sum, { percent }) => sum + Math.max(percent, 0), 0);
  const open = parts.filter(({ percent }) => percent < 0).length;
  if (given > 100 || (open === 0 && given !== 100)) {
    const message = `The percentages of ${option.name} add up to ${given}`;
    throw problem("bad-split", message, option.valueAt, { hint: "they must add up to 100" });
  }
  const share = open === 0 ? 0 : (100 - given) / open;
  return parts.map(({ bytes, percent }) => ({ bytes, percent: percent < 0 ? share : percent }));
}
