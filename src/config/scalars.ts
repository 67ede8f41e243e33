/** Scalars of configuration files: numbers, addresses, sizes, ranges, functions, lists of CPUs. */
import { z } from "zod";
import { parseNumberList } from "../topology/number-list.ts";
import { parseBdf, ridOfAddress } from "../topology/pci-address.ts";
import { ADDRESS_LAST, parseSize } from "../units.ts";

/** Reads text or number, or says what it should be. */
function readable<T>(what: string, read: (text: string) => T | null) {
  return z
    .union([z.string(), z.bigint()], { error: `this is no ${what}` })
    .transform((value, context): T => {
      const found = read(typeof value === "bigint" ? value.toString() : value);
      if (found !== null) return found;
      const shown = typeof value === "bigint" ? `${value}` : JSON.stringify(value.slice(0, 60));
      context.issues.push({ code: "custom", input: value, message: `${shown} is no ${what}` });
      return z.NEVER;
    });
}

/** A whole number in a range. */
export function integer(least: number, most: number) {
  const range = `whole number from ${least} to ${most}`;
  return readable(range, (text) => {
    const value = /^-?(\d{1,16}|0x[0-9a-f]{1,13})$/i.test(text) ? Number(text) : Number.NaN;
    return value >= least && value <= most ? value : null;
  });
}

/** An address or a size: `0xfed90000`, `16GiB`. */
export const address = readable("address or size, such as 0xfee00000 or 16GiB", parseSize);

/** A 64-bit register. */
export const word = address;

/** A range of addresses: `0xfed90000-0xfed90fff`. */
export const addressRange = readable("range of addresses, such as 0x1000-0x1fff", (text) => {
  const [first, last, more] = text.split("-");
  if (last === undefined || more !== undefined) return null;
  const range = { start: parseSize(first!), last: parseSize(last) };
  if (range.start === null || range.last === null || range.last < range.start) return null;
  return range.last <= ADDRESS_LAST ? { start: range.start, last: range.last } : null;
});

/** A PCI function: `0000:81:00.0`. */
export const bdf = readable("PCI function, such as 0000:81:00.0", parseBdf);

/** One function, or a range of them. */
export const bdfRange = readable(
  "function or range of them, such as 0000:20:00.0-0000:22:1f.7",
  (text) => {
    const [first, last, more] = text.split("-");
    const from = parseBdf(first!);
    const to = last === undefined ? from : parseBdf(last);
    if (from === null || to === null || more !== undefined || from.segment !== to.segment)
      return null;
    const range = {
      segment: from.segment,
      firstRid: ridOfAddress(from),
      lastRid: ridOfAddress(to),
    };
    return range.firstRid <= range.lastRid ? range : null;
  },
);

/** A range of buses of a segment: `0000:20-22`, `0000:00`. */
export const busRange = readable("range of buses, such as 0000:20-22", (text) => {
  const match = /^(?:([0-9a-f]{1,8}):)?([0-9a-f]{1,2})(?:-([0-9a-f]{1,2}))?$/i.exec(text);
  if (match === null) return null;
  const value = (digits: string) => Number.parseInt(digits, 16);
  const firstBus = value(match[2]!);
  const lastBus = value(match[3] ?? match[2]!);
  if (lastBus < firstBus) return null;
  return { segment: value(match[1] ?? "0"), firstBus, lastBus };
});

/** Vendor and device: `1b36:0010`. */
export const pciId = readable("pair of ids, such as 1b36:0010", (text) => {
  const match = /^([0-9a-f]{1,4}):([0-9a-f]{1,4})$/i.exec(text);
  if (match === null) return null;
  return { vendor: Number.parseInt(match[1]!, 16), device: Number.parseInt(match[2]!, 16) };
});

/** A list of numbers: `0-3,8`; empty text is an empty list. */
export const numberList = readable("list of numbers, such as 0-3,8", parseNumberList);
