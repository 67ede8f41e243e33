/**
 * An NVMe controller as a PCI function: config space, registers and doorbells in BAR 0, MSI-X in
 * BAR 2.
 *
 * Source: NVM Express base specification 1.4, 2.1 (PCI header) and 3.1 (registers). Registers may
 * be accessed in any width; what is narrower than a word changes the bytes of the word.
 */
import { StackError } from "../errors.ts";
import type { MemoryView } from "../memory/memory-view.ts";
import { expressCapability, msixCapability } from "../pci/capabilities.ts";
import { ConfigSpace } from "../pci/config-space.ts";
import { CONFIG_REGION, type PciFunction, type PciRegion } from "../pci/function.ts";
import { MsixTable } from "../pci/msix-table.ts";
import { NvmeController } from "./controller.ts";
import { VENDOR } from "./identify.ts";
import { Register } from "./protocol.ts";
import type { NvmeSettings } from "./settings.ts";

/** BARs. */
const REGISTERS = 0;
const MSIX = 2;
/** Registers take a page, doorbells of 64 queues and the admin queue less than another. */
const REGISTERS_BYTES = 0x2000;
/** "NV". */
const DEVICE = 0x4e56;
/** Mass storage, non-volatile memory, NVM Express. */
const CLASS = 0x01_0802;

/** The function. */
export class NvmeFunction implements PciFunction {
  readonly regions: readonly PciRegion[];
  readonly vectors: number;
  readonly #controller: NvmeController;
  readonly #space: ConfigSpace;
  readonly #msix: MsixTable;
  readonly #keep: (state: unknown) => void;

  /**
   * @example
   * const memory = new GuestMemory();
   * const store = new MemoryStore(2 ** 26);
   * const disk = new NvmeFunction({ memory, store, interrupts: { raise: () => {} } });
   */
  constructor(settings: NvmeSettings) {
    const { journal } = settings;
    this.#keep = journal === undefined ? () => {} : (state) => journal.keep(state);
    const keep = (controller: unknown): void => this.#keep(this.#stateWith(controller));
    this.#controller = new NvmeController(
      journal === undefined ? settings : { ...settings, journal: { words: journal.words, keep } },
    );
    this.vectors = this.#controller.config.vectors;
    this.#msix = new MsixTable(this.vectors);
    this.#space = new ConfigSpace({
      header: {
        vendor: VENDOR,
        device: DEVICE,
        revision: 1,
        classCode: CLASS,
        subsystemVendor: VENDOR,
        subsystem: DEVICE,
      },
      bars: [
        { index: REGISTERS, bytes: REGISTERS_BYTES, is64: true },
        { index: MSIX, bytes: this.#msix.bytes },
      ],
      capabilities: [msixCapability(this.vectors, MSIX), expressCapability()],
      bytes: 4096,
    });
    const region = (index: number, bytes: number): PciRegion => ({
      index,
      bytes,
      readable: true,
      writable: true,
    });
    this.regions = [
      region(REGISTERS, REGISTERS_BYTES),
      region(MSIX, this.#msix.bytes),
      region(CONFIG_REGION, this.#space.bytes),
    ];
  }

  get revision(): number {
    return this.#controller.revision + this.#space.revision;
  }

  read(region: number, offset: number, target: MemoryView, at: number, count: number): boolean {
    if (!this.#isInside(region, offset, count)) return false;
    if (region === CONFIG_REGION) return this.#space.read(offset, target, at, count);
    if (region === MSIX) {
      this.#msix.read(offset, target, at, count);
      return true;
    }
    for (let done = 0; done < count; done += 1) {
      const byte = offset + done;
      // Doorbells read as zero.
      const word = byte < Register.DOORBELLS ? this.#controller.readWord(byte & ~3) : 0;
      target.u8[at + done] = word >>> (8 * (byte & 3));
    }
    return true;
  }

  write(region: number, offset: number, source: MemoryView, at: number, count: number): boolean {
    if (!this.#isInside(region, offset, count)) return false;
    if (region === CONFIG_REGION) {
      const before = this.#space.revision;
      this.#space.write(offset, source, at, count);
      if (this.#space.revision !== before) this.#keepAll();
    } else if (region === MSIX) this.#msix.write(offset, source, at, count);
    else this.#writeRegisters(offset, source.u8, at, count);
    return true;
  }

  /** Nothing moves before the function may master the bus. */
  work(): boolean {
    return this.#space.isBusMaster && this.#controller.work();
  }

  reset(): void {
    this.#space.reset();
    this.#msix.reset();
    this.#controller.reset();
  }

  save(): unknown {
    return this.#stateWith(this.#controller.save());
  }

  restore(state: unknown): void {
    if (typeof state !== "object" || state === null || !("controller" in state))
      throw new StackError({
        code: "pci/state",
        kind: "input",
        message: "a saved NVMe function has no controller",
      });
    this.#space.restore("space" in state ? state.space : null);
    this.#controller.restore(state.controller);
    this.#keepAll();
  }

  #stateWith(controller: unknown): unknown {
    return { space: this.#space.save(), controller };
  }

  #keepAll(): void {
    this.#keep(this.#stateWith(this.#controller.saveRest()));
  }

  #isInside(region: number, offset: number, count: number): boolean {
    const found = this.regions.find(({ index }) => index === region);
    return found !== undefined && offset >= 0 && count >= 0 && offset + count <= found.bytes;
  }

  /** Takes a run of bytes apart into words; a doorbell is written in one piece or not at all. */
  #writeRegisters(offset: number, source: Uint8Array, at: number, count: number): void {
    for (let done = 0; done < count; ) {
      const from = offset + done;
      const word = from & ~3;
      const bytes = Math.min(count - done, word + 4 - from);
      const isDoorbell = from >= Register.DOORBELLS;
      let value = isDoorbell ? 0 : this.#controller.readWord(word);
      // A write to INTMS or INTMC sets or clears the bits that are written, not those that are set.
      if (word === Register.INTMS || word === Register.INTMC) value = 0;
      for (let index = 0; index < bytes; index += 1) {
        const shift = 8 * (from + index - word);
        const byte = source[at + done + index]!;
        value = ((value & ~(0xff << shift)) | (byte << shift)) >>> 0;
      }
      done += bytes;
      if (!isDoorbell) this.#controller.writeWord(word, value);
      else if (bytes === 4) this.#controller.ring((word - Register.DOORBELLS) >> 2, value);
    }
  }
}
