/**
 * Memory as an endpoint behind a virtio-iommu sees it: I/O virtual addresses, translated through
 * the IOTLB and, where that does not know, by the device; then guest memory.
 *
 * An access is translated for its whole length before a byte of it moves (V71); the first byte that
 * is refused is reported once (V123). What translates to no memory (a hole, or a BAR: a device does
 * not reach devices through here) is refused and reported as well. Writes of 4 bytes to an MSI
 * region are interrupts (V113).
 *
 * Budget: 50 ns for an access within a page that the IOTLB knows (bench/virtio-blk.bench.ts).
 */
import type { DeviceMemory, SegmentCollector } from "../../memory/device-memory.ts";
import { addressOfHalves, type GuestMemory } from "../../memory/guest-memory.ts";
import { copyBetween, type MemoryView } from "../../memory/memory-view.ts";
import { PAGE_BYTES, PFN_LAST } from "../../units.ts";
import type { VirtioIommuDevice } from "./device.ts";
import type { IommuListener } from "./device-listener.ts";
import { Access, type SegmentVisitor, Translation } from "./device-translate.ts";
import type { IommuTlb } from "./iommu-tlb.ts";
import { WindowPages } from "./window-pages.ts";

const TWO_32 = 2 ** 32;
const FRAMES_OF_TWO_32 = 0x10_0000;
const REFUSED = 0;
const MEMORY = 1;
const MESSAGE = 2;

/** Takes message-signalled interrupts that an endpoint writes. */
export type MessageSink = (address: number, data: number) => void;

/** An endpoint's view of memory. */
export class TranslatedMemory implements DeviceMemory, IommuListener, SegmentVisitor {
  readonly isTranslated = true;
  /** See {@link DeviceMemory}. */
  at = 0;
  readonly endpoint: number;
  readonly #memory: GuestMemory;
  readonly #tlb: IommuTlb;
  readonly #device: VirtioIommuDevice;
  readonly #onMessage: MessageSink | null;
  readonly #held = new WindowPages();
  #generation = 0;
  /** Domain whose translations are in the IOTLB, or −1 when the device is to be asked each time. */
  #domain = -1;
  /** Domain that the endpoint is in, or −1. */
  #attached = -1;
  /** Whether addresses are guest-physical ones, but for {@link #reserved}. */
  #isBypassed = false;
  #reserved: readonly { readonly start: number; readonly last: number }[] = [];
  /** Pieces of the access at hand: where they lie in guest memory. */
  #starts = new Float64Array(8);
  #counts = new Float64Array(8);
  #pieces = 0;

  constructor(parts: {
    readonly tlb: IommuTlb;
    readonly endpoint: number;
    readonly memory: GuestMemory;
    readonly onMessage?: MessageSink;
  }) {
    this.#tlb = parts.tlb;
    this.#device = parts.tlb.device;
    this.endpoint = parts.endpoint;
    this.#memory = parts.memory;
    this.#onMessage = parts.onMessage ?? null;
    this.#device.addListener(this);
    this.#attachmentChanged();
  }

  /** Stops to listen to the IOMMU: for an endpoint that is gone. */
  dispose(): void {
    this.#device.removeListener(this);
  }

  /** Changes when a page of a window is unmapped, or the endpoint or guest memory changes. */
  get generation(): number {
    return this.#generation + this.#memory.generation;
  }

  locate(address: number, length: number, forWrite: boolean): MemoryView | null {
    if (!(address >= 0 && address < 2 ** 53)) return null;
    return this.locateHalves(address >>> 0, Math.floor(address / TWO_32), length, forWrite);
  }

  locateHalves(low: number, high: number, length: number, forWrite: boolean): MemoryView | null {
    let at = low;
    let atHigh = high;
    if (this.#isBypassed) {
      if (this.#meetsReserved(low, high, length)) return null;
    } else {
      const offset = low & 0xfff;
      if (offset + length > PAGE_BYTES || this.#domain < 0) return null;
      const pfn = (high >>> 0) * FRAMES_OF_TWO_32 + (low >>> 12);
      const access = forWrite ? Access.WRITE : Access.READ;
      const phys = this.#tlb.find(this.#domain, pfn, access, false);
      if (phys < 0) return null;
      at = (phys << 12) | offset;
      atHigh = Math.floor(phys / FRAMES_OF_TWO_32);
    }
    const view = this.#memory.locateHalves(at >>> 0, atHigh, length, forWrite);
    this.at = this.#memory.at;
    return view;
  }

  window(address: number, bytes: number, forWrite: boolean): MemoryView | null {
    const isFound =
      this.#translate(address >>> 0, Math.floor(address / TWO_32), bytes, forWrite) === MEMORY;
    const view =
      isFound && this.#pieces === 1 ? this.#memory.window(this.#starts[0]!, bytes, forWrite) : null;
    if (view === null) this.#held.hasRefused = true;
    else this.#held.add(Math.floor(address / PAGE_BYTES));
    this.at = this.#memory.at;
    return view;
  }

  /** [P] Whether it translates now is not said, because asking a device reports a fault. */
  contains(address: number, length: number): boolean {
    return address >= 0 && address + length <= 2 ** 53;
  }

  copyOut(address: number, target: MemoryView, targetAt: number, length: number): boolean {
    if (!(address >= 0 && address < 2 ** 53)) return false;
    const high = Math.floor(address / TWO_32);
    return this.copyOutHalves(address >>> 0, high, target, targetAt, length);
  }

  copyIn(address: number, source: MemoryView, sourceAt: number, length: number): boolean {
    if (!(address >= 0 && address < 2 ** 53)) return false;
    const high = Math.floor(address / TWO_32);
    return this.copyInHalves(address >>> 0, high, source, sourceAt, length);
  }

  copyOutHalves(
    low: number,
    high: number,
    target: MemoryView,
    targetAt: number,
    length: number,
  ): boolean {
    const view = this.locateHalves(low, high, length, false);
    if (view !== null) {
      copyBetween(view, this.at, target, targetAt, length);
      return true;
    }
    if (this.#translate(low, high, length, false) !== MEMORY) return false;
    let done = 0;
    for (let piece = 0; piece < this.#pieces; piece += 1) {
      const count = this.#counts[piece]!;
      this.#memory.copyOut(this.#starts[piece]!, target, targetAt + done, count);
      done += count;
    }
    return true;
  }

  copyInHalves(
    low: number,
    high: number,
    source: MemoryView,
    sourceAt: number,
    length: number,
  ): boolean {
    const view = this.locateHalves(low, high, length, true);
    if (view !== null) {
      copyBetween(source, sourceAt, view, this.at, length);
      return true;
    }
    const outcome = this.#translate(low, high, length, true);
    if (outcome === MESSAGE) return this.#message(low, high, source, sourceAt, length);
    if (outcome === REFUSED) return false;
    let done = 0;
    for (let piece = 0; piece < this.#pieces; piece += 1) {
      const count = this.#counts[piece]!;
      if (!this.#memory.copyIn(this.#starts[piece]!, source, sourceAt + done, count)) return false;
      done += count;
    }
    return true;
  }

  collect(
    low: number,
    high: number,
    length: number,
    forWrite: boolean,
    into: SegmentCollector,
  ): boolean {
    const view = this.locateHalves(low, high, length, forWrite);
    if (view !== null) {
      into.add(view, this.at, length);
      return true;
    }
    if (this.#translate(low, high, length, forWrite) !== MEMORY) return false;
    const before = into.bytes;
    for (let piece = 0; piece < this.#pieces; piece += 1) {
      const start = this.#starts[piece]!;
      const count = this.#counts[piece]!;
      const isThere = this.#memory.collect(
        start >>> 0,
        Math.floor(start / TWO_32),
        count,
        forWrite,
        into,
      );
      if (isThere) continue;
      into.truncate(before);
      return false;
    }
    return true;
  }

  /** Behind an IOMMU there is always a driver at work on the other side. */
  isShared(): boolean {
    return true;
  }

  /** A piece of an access that the device translates. */
  segment(pfn: number, offset: number, bytes: number): void {
    this.#addPiece(pfn * PAGE_BYTES + offset, bytes);
  }

  mapped(domain: number): boolean {
    if (this.#held.hasRefused && domain === this.#attached) this.#changed();
    return true;
  }

  unmapped(domain: number, startPfn: number, _startOffset: number, lastPfn: number): void {
    if (domain === this.#attached && this.#held.meets(startPfn, lastPfn)) this.#changed();
  }

  endpointChanged(endpoint: number): void {
    if (endpoint !== this.endpoint) return;
    this.#attachmentChanged();
    this.#changed();
  }

  #changed(): void {
    this.#held.clear();
    this.#generation += 1;
  }

  #attachmentChanged(): void {
    const domain = this.#device.domainOf(this.endpoint);
    this.#attached = domain ?? -1;
    this.#isBypassed = this.#device.bypasses(this.endpoint);
    const isCached = domain !== null && !this.#isBypassed && this.#tlb.isPageGranular;
    this.#domain = isCached ? domain : -1;
    // Regions count for attached endpoints only (V113); above 2^53 there is no memory anyway.
    const reserved = domain === null ? [] : this.#device.reservedOf(this.endpoint);
    this.#reserved = reserved.map(({ start, last }) => ({
      start: Number(start),
      last: Number(last),
    }));
  }

  #meetsReserved(low: number, high: number, length: number): boolean {
    if (this.#reserved.length === 0) return false;
    const address = addressOfHalves(low, high);
    for (const { start, last } of this.#reserved) {
      if (address <= last && address + length > start) return true;
    }
    return false;
  }

  /** Finds the pieces of an access; what is refused has been reported when this returns. */
  #translate(low: number, high: number, length: number, forWrite: boolean): number {
    this.#pieces = 0;
    if (length === 0) return MEMORY;
    const pfn = (high >>> 0) * FRAMES_OF_TWO_32 + (low >>> 12);
    const offset = low & 0xfff;
    const access = forWrite ? Access.WRITE : Access.READ;
    const outcome =
      this.#domain < 0 || pfn + Math.floor((offset + length - 1) / PAGE_BYTES) > PFN_LAST
        ? this.#ask(pfn, offset, length, access)
        : this.#translatePages(pfn, offset, length, access);
    if (outcome !== MEMORY) return outcome;
    return this.#isMemory(pfn, offset, access) ? MEMORY : REFUSED;
  }

  #translatePages(pfn: number, offset: number, length: number, access: number): number {
    const tlb = this.#tlb;
    let page = pfn;
    let from = offset;
    for (let left = length; left > 0; ) {
      const count = Math.min(left, PAGE_BYTES - from);
      const phys = tlb.find(this.#domain, page, access, true);
      if (phys >= 0) this.#addPiece(phys * PAGE_BYTES + from, count);
      else {
        const outcome = this.#ask(page, from, count, access);
        if (outcome === REFUSED) return REFUSED;
        if (outcome === MESSAGE) {
          this.#pieces = 0;
          return this.#ask(pfn, offset, length, access);
        }
        const last = this.#pieces - 1;
        const end = this.#starts[last]! + this.#counts[last]! - 1;
        tlb.fill(this.#domain, page, Math.floor(end / PAGE_BYTES), access);
      }
      left -= count;
      page += 1;
      from = 0;
    }
    return MEMORY;
  }

  #ask(pfn: number, offset: number, length: number, access: number): number {
    const outcome = this.#device.translate(this.endpoint, pfn, offset, length, access, this);
    if (outcome === Translation.OK) return MEMORY;
    return outcome === Translation.MSI && access === Access.WRITE ? MESSAGE : REFUSED;
  }

  /** Whether all pieces lie in guest memory; the first byte that does not is reported. */
  #isMemory(pfn: number, offset: number, access: number): boolean {
    const isWrite = access === Access.WRITE;
    let before = 0;
    for (let piece = 0; piece < this.#pieces; piece += 1) {
      const start = this.#starts[piece]!;
      const count = this.#counts[piece]!;
      if (this.#memory.contains(start, count, isWrite)) {
        before += count;
        continue;
      }
      let within = 0;
      let step = Math.min(count, PAGE_BYTES - (start % PAGE_BYTES));
      while (this.#memory.contains(start + within, step, isWrite)) {
        within += step;
        step = Math.min(count - within, PAGE_BYTES);
      }
      const at = offset + before + within;
      const page = pfn + Math.floor(at / PAGE_BYTES);
      this.#device.reportUnanswered(this.endpoint, page, at % PAGE_BYTES, access);
      return false;
    }
    return true;
  }

  #addPiece(start: number, count: number): void {
    const last = this.#pieces - 1;
    if (last >= 0 && this.#starts[last]! + this.#counts[last]! === start) {
      this.#counts[last]! += count;
      return;
    }
    if (this.#pieces === this.#starts.length) {
      this.#starts = doubled(this.#starts);
      this.#counts = doubled(this.#counts);
    }
    this.#starts[this.#pieces] = start;
    this.#counts[this.#pieces] = count;
    this.#pieces += 1;
  }

  #message(
    low: number,
    high: number,
    source: MemoryView,
    sourceAt: number,
    length: number,
  ): boolean {
    if (length !== 4 || (low & 3) !== 0 || this.#onMessage === null) return false;
    const bytes = source.u8.subarray(sourceAt, sourceAt + 4);
    const data = (bytes[0]! | (bytes[1]! << 8) | (bytes[2]! << 16) | (bytes[3]! << 24)) >>> 0;
    this.#onMessage(addressOfHalves(low, high), data);
    return true;
  }
}

function doubled(numbers: Float64Array<ArrayBuffer>): Float64Array<ArrayBuffer> {
  const larger = new Float64Array(2 * numbers.length);
  larger.set(numbers);
  return larger;
}
