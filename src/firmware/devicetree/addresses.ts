/**
 * Addresses of nodes: `reg` and `ranges`, translated up to the CPU's view.
 *
 * Source: Devicetree Specification 0.4, 2.3.6 and 2.3.8; drivers/of/address.c:
 * __of_translate_address.
 */
import type { AddressRange, BridgeWindow } from "../../topology/machine.ts";
import { bytesOf, cellOf, cellsOf, type DtPlace } from "./tree.ts";

/** Entries of one property that are looked at. */
const ENTRIES_MAX = 256;
/** Bytes of them: seven cells are the longest. */
const ENTRIES_BYTES_MAX = ENTRIES_MAX * 28;
const TWO_64 = 1n << 64n;

/** `#address-cells` that holds for a node's children; the standard's default is 2. */
function addressCells(place: DtPlace): number {
  return bounded(cellOf(place.node, "#address-cells") ?? 2);
}

function sizeCells(place: DtPlace): number {
  return bounded(cellOf(place.node, "#size-cells") ?? 1);
}

/** More cells than four are not used by anybody. */
function bounded(cells: number): number {
  return Math.min(cells, 4);
}

/** A number out of cells; its low 64 bits. */
function numberAt(words: readonly number[], at: number, count: number): bigint {
  let value = 0n;
  for (let index = at; index < at + count; index += 1) {
    value = (value << 32n) | BigInt(words[index] ?? 0);
  }
  return value % TWO_64;
}

/** The `reg` entries of a node as the CPU sees them; null where an address leads nowhere. */
export function registersOf(place: DtPlace): (AddressRange | null)[] {
  const value = bytesOf(place.node, "reg");
  if (value === null || place.parent === null) return [];
  const words = cellsOf(value.subarray(0, ENTRIES_BYTES_MAX));
  const [addressSize, sizeSize] = [addressCells(place.parent), sizeCells(place.parent)];
  const step = addressSize + sizeSize;
  const found: (AddressRange | null)[] = [];
  for (let at = 0; step > 0 && at + step <= words.length; at += step) {
    if (found.length >= ENTRIES_MAX) break;
    const bytes = numberAt(words, at + addressSize, sizeSize);
    const start = upward(numberAt(words, at, addressSize), place.parent);
    const last = start === null ? 0n : start + (bytes === 0n ? 0n : bytes - 1n);
    found.push(start === null || last >= TWO_64 ? null : { start, last });
  }
  return found;
}

/** An address on the bus below `bus`, as the CPU sees it. */
function upward(address: bigint, bus: DtPlace): bigint | null {
  let at = address;
  for (let place = bus; place.parent !== null; place = place.parent) {
    const ranges = bytesOf(place.node, "ranges");
    if (ranges === null) return null;
    if (ranges.length === 0) continue;
    const parent = throughRanges(at, cellsOf(ranges.subarray(0, ENTRIES_BYTES_MAX)), place);
    if (parent === null) return null;
    at = parent;
  }
  return at;
}

function throughRanges(address: bigint, words: readonly number[], place: DtPlace): bigint | null {
  const child = addressCells(place);
  const parent = addressCells(place.parent!);
  const size = sizeCells(place);
  const step = child + parent + size;
  for (let at = 0; step > 0 && at + step <= words.length; at += step) {
    const start = numberAt(words, at, child);
    const bytes = numberAt(words, at + child + parent, size);
    if (address < start || address - start >= bytes) continue;
    return numberAt(words, at + child, parent) + (address - start);
  }
  return null;
}

/** Windows of a PCI host bridge; bits 25 and 24 of the first cell are the space. */
export function windowsOf(place: DtPlace): BridgeWindow[] {
  const value = bytesOf(place.node, "ranges");
  if (value === null || place.parent === null) return [];
  const words = cellsOf(value.subarray(0, ENTRIES_BYTES_MAX));
  const parent = addressCells(place.parent);
  const windows: BridgeWindow[] = [];
  for (let at = 0; at + 5 + parent <= words.length; at += 5 + parent) {
    if (windows.length >= ENTRIES_MAX) break;
    const flags = words[at]!;
    const bytes = numberAt(words, at + 3 + parent, 2);
    const isIo = ((flags >>> 24) & 3) === 1;
    // I/O ports have numbers of their own; memory is known by the CPU's address.
    const start = isIo ? numberAt(words, at + 1, 2) : numberAt(words, at + 3, parent);
    if (bytes === 0n || start + bytes > TWO_64) continue;
    const isPrefetchable = ((flags >>> 30) & 1) === 1;
    const kind = isIo ? "io" : isPrefetchable ? "prefetchable" : "memory";
    windows.push({ kind, start, last: start + bytes - 1n });
  }
  return windows;
}

/** Interrupt numbers: of three cells a GIC's (shared ones start at 32), else the first cell. */
export function interruptsOf(place: DtPlace, cells: number): number[] {
  const value = bytesOf(place.node, "interrupts");
  if (value === null) return [];
  const words = cellsOf(value.subarray(0, ENTRIES_BYTES_MAX));
  const found: number[] = [];
  for (let at = 0; at + cells <= words.length && found.length < 64; at += cells) {
    const number = words[at + (cells >= 3 ? 1 : 0)]!;
    found.push(cells < 3 ? number : number + (words[at] === 0 ? 32 : 16));
  }
  return found;
}
