/** Addresses of PCI functions as text and as numbers. */
import { hex } from "../units.ts";

/** Where a function is. */
export interface PciAddress {
  readonly segment: number;
  readonly bus: number;
  /** Device number << 3 | function number. */
  readonly devfn: number;
}

/**
 * Reads a function's name; the segment may be left out.
 *
 * @returns null when it is none
 * @example
 * parseBdf("0000:3b:01.1"); // { segment: 0, bus: 0x3b, devfn: 9 }
 */
export function parseBdf(text: string): PciAddress | null {
  const match = /^(?:([0-9a-f]{1,8}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})\.([0-7])$/i.exec(text);
  if (match === null) return null;
  const slot = Number.parseInt(match[3]!, 16);
  if (slot > 31) return null;
  const segment = match[1] === undefined ? 0 : Number.parseInt(match[1], 16);
  return { segment, bus: Number.parseInt(match[2]!, 16), devfn: slot * 8 + Number(match[4]) };
}

/** The requester id of a function. */
export function ridOfAddress({ bus, devfn }: Pick<PciAddress, "bus" | "devfn">): number {
  return bus * 256 + devfn;
}

/** The function that a requester id names. */
export function addressOfRid(segment: number, rid: number): PciAddress {
  return { segment, bus: rid >> 8, devfn: rid & 0xff };
}

/** A requester id without its segment: `81:00.0`. */
export function ridText(rid: number): string {
  const digits = (value: number) => hex(value, 2).slice(2);
  return `${digits(rid >> 8)}:${digits((rid >> 3) & 31)}.${rid & 7}`;
}
