/**
 * A function's configuration space: a type 0 header, a list of capabilities, and for each bit
 * whether a driver may change it.
 *
 * Accesses may have any width and offset: bits that may not be written keep their value, and a BAR
 * answers the sizing protocol by itself, since its low bits are among those.
 * Source: PCI Local Bus specification 3.0, 6.1 to 6.8; PCI Express Base specification 6.0, 7.5.1.
 */
import { assert, StackError } from "../errors.ts";
import { type MemoryView, newView } from "../memory/memory-view.ts";
import { isPowerOfTwo } from "../units.ts";

/** Offsets in the header. */
const Header = {
  VENDOR: 0,
  DEVICE: 2,
  COMMAND: 4,
  STATUS: 6,
  REVISION: 8,
  CLASS: 9,
  BARS: 0x10,
  SUBSYSTEM_VENDOR: 0x2c,
  SUBSYSTEM: 0x2e,
  CAPABILITIES: 0x34,
  INTERRUPT_LINE: 0x3c,
} as const;
/** Memory space, bus master, parity error response, SERR, interrupt disable. */
const COMMAND_WRITABLE = 0x0546;
const COMMAND_BUS_MASTER = 4;
const STATUS_CAPABILITIES = 0x10;
const BAR_64 = 4;
const CAPABILITIES_START = 0x40;
/** Capabilities lie in the first 256 bytes, in a function of PCI Express too. */
const CONVENTIONAL_BYTES = 256;

/** Who a function is. */
export interface ConfigHeader {
  readonly vendor: number;
  readonly device: number;
  readonly revision: number;
  /** Class, subclass and programming interface: 24 bits. */
  readonly classCode: number;
  readonly subsystemVendor: number;
  readonly subsystem: number;
}

/** A memory BAR. */
export interface Bar {
  /** 0 … 5; one of 64 bits takes the next one too. */
  readonly index: number;
  /** A power of two, 16 at least. */
  readonly bytes: number;
  readonly is64?: boolean;
}

/** A capability. */
export interface Capability {
  /** Its bytes, the two of ID and link included; the link is filled in. */
  readonly bytes: Uint8Array;
  /** Bits that a driver may change, by byte; none when left out. */
  readonly writable?: Uint8Array;
}

/** What {@link ConfigSpace} is built from. */
export interface ConfigSpaceParts {
  readonly header: ConfigHeader;
  readonly bars: readonly Bar[];
  readonly capabilities: readonly Capability[];
  /** 256, or 4096 for a function of PCI Express. */
  readonly bytes: 256 | 4096;
}

/** Configuration space. */
export class ConfigSpace {
  readonly bytes: number;
  /** Where each capability starts, in the order given. */
  readonly capabilityOffsets: readonly number[];
  /** Changes with every write that changed a bit. */
  revision = 0;
  readonly #view: MemoryView;
  readonly #initial: Uint8Array;
  readonly #writable: Uint8Array;

  constructor(parts: ConfigSpaceParts) {
    this.bytes = parts.bytes;
    this.#view = newView(parts.bytes);
    this.#writable = new Uint8Array(parts.bytes);
    const view = new DataView(this.#view.u8.buffer);
    const masks = new DataView(this.#writable.buffer);
    writeHeader(view, masks, parts.header);
    for (const bar of parts.bars) writeBar(view, masks, bar);
    this.capabilityOffsets = this.#placeCapabilities(parts.capabilities);
    this.#initial = this.#view.u8.slice();
  }

  /** Whether the function may do DMA and send messages (V184). */
  get isBusMaster(): boolean {
    return (this.#view.u16[Header.COMMAND >> 1]! & COMMAND_BUS_MASTER) !== 0;
  }

  /** A byte. */
  byte(offset: number): number {
    return this.#view.u8[offset]!;
  }

  /** A 32-bit word, little endian, at any offset inside. */
  word(offset: number): number {
    const bytes = this.#view.u8;
    const low = bytes[offset]! | (bytes[offset + 1]! << 8) | (bytes[offset + 2]! << 16);
    return (low | (bytes[offset + 3]! << 24)) >>> 0;
  }

  /** Changes bytes on behalf of the function itself, whatever a driver may. */
  set(offset: number, source: Uint8Array): void {
    this.#view.u8.set(source, offset);
  }

  /** @returns false when a byte lies outside */
  read(offset: number, target: MemoryView, at: number, count: number): boolean {
    if (!(offset >= 0 && count >= 0 && offset + count <= this.bytes)) return false;
    target.u8.set(this.#view.u8.subarray(offset, offset + count), at);
    return true;
  }

  /** Changes those of the bits that may be. @returns false when a byte lies outside */
  write(offset: number, source: MemoryView, at: number, count: number): boolean {
    if (!(offset >= 0 && count >= 0 && offset + count <= this.bytes)) return false;
    for (let index = 0; index < count; index += 1)
      this.#change(offset + index, source.u8[at + index]!);
    return true;
  }

  /** Back to what it was when the machine was switched on. */
  reset(): void {
    this.#view.u8.set(this.#initial);
    this.revision += 1;
  }

  /** Bytes that are not as after a reset: pairs of offset and value. */
  save(): number[] {
    const changes: number[] = [];
    for (let offset = 0; offset < this.bytes; offset += 1) {
      const value = this.#view.u8[offset]!;
      if (value !== this.#initial[offset]) changes.push(offset, value);
    }
    return changes;
  }

  /** Takes over what {@link save} gave; bits that no driver may change are left as they are. */
  restore(changes: unknown): void {
    this.reset();
    if (!Array.isArray(changes) || changes.length % 2 !== 0) throw badState();
    for (let index = 0; index < changes.length; index += 2) {
      const offset: unknown = changes[index];
      const value: unknown = changes[index + 1];
      if (typeof offset !== "number" || typeof value !== "number") throw badState();
      if (!Number.isInteger(offset) || offset < 0 || offset >= this.bytes) throw badState();
      this.#change(offset, value);
    }
  }

  #change(offset: number, value: number): void {
    const mask = this.#writable[offset]!;
    const before = this.#view.u8[offset]!;
    const after = (before & ~mask) | (value & mask);
    if (after === before) return;
    this.#view.u8[offset] = after;
    this.revision += 1;
  }

  #placeCapabilities(capabilities: readonly Capability[]): number[] {
    const bytes = this.#view.u8;
    const offsets: number[] = [];
    let link: number = Header.CAPABILITIES;
    let at = CAPABILITIES_START;
    for (const capability of capabilities) {
      assert(at + capability.bytes.length <= CONVENTIONAL_BYTES, "capabilities fit 256 bytes");
      bytes.set(capability.bytes, at);
      if (capability.writable !== undefined) this.#writable.set(capability.writable, at);
      bytes[at + 1] = 0;
      bytes[link] = at;
      link = at + 1;
      offsets.push(at);
      at = (at + capability.bytes.length + 7) & ~7;
    }
    if (capabilities.length > 0) bytes[Header.STATUS] = STATUS_CAPABILITIES;
    return offsets;
  }
}

function writeHeader(view: DataView, masks: DataView, header: ConfigHeader): void {
  view.setUint16(Header.VENDOR, header.vendor, true);
  view.setUint16(Header.DEVICE, header.device, true);
  view.setUint8(Header.REVISION, header.revision);
  view.setUint8(Header.CLASS, header.classCode & 0xff);
  view.setUint16(Header.CLASS + 1, header.classCode >>> 8, true);
  view.setUint16(Header.SUBSYSTEM_VENDOR, header.subsystemVendor, true);
  view.setUint16(Header.SUBSYSTEM, header.subsystem, true);
  masks.setUint16(Header.COMMAND, COMMAND_WRITABLE, true);
  masks.setUint8(Header.INTERRUPT_LINE, 0xff);
}

function writeBar(view: DataView, masks: DataView, bar: Bar): void {
  const { index, bytes, is64 = false } = bar;
  assert(index >= 0 && index + (is64 ? 1 : 0) <= 5, "a BAR has an index");
  assert(isPowerOfTwo(bytes) && bytes >= 16 && bytes <= 2 ** 31, "a BAR's size is a power of two");
  const at = Header.BARS + 4 * index;
  masks.setUint32(at, -bytes >>> 0, true);
  if (!is64) return;
  view.setUint32(at, BAR_64, true);
  masks.setUint32(at + 4, 0xffff_ffff, true);
}

function badState(): StackError {
  return new StackError({
    code: "pci/state",
    kind: "input",
    message: "a saved configuration space is not a list of offsets and values inside it",
  });
}
