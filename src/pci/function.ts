/**
 * A PCI function as a bus or a vfio-user server drives it: reads and writes of its regions,
 * interrupts out, work in bounded turns. Synchronous, and without a world around it.
 */
import type { MemoryView } from "../memory/memory-view.ts";

/** Index of the region that is the function's config space; 0 … 5 are its BARs. */
export const CONFIG_REGION = 7;
/** How many region indexes a PCI function has: BARs, ROM, config space, VGA. */
export const REGION_COUNT = 9;

/** A region that exists. */
export interface PciRegion {
  /** 0 … 5: BAR, {@link CONFIG_REGION}: config space. */
  readonly index: number;
  readonly bytes: number;
  readonly readable: boolean;
  readonly writable: boolean;
}

/** Takes interrupts. Messages that come before the sink has passed the last one on may be one. */
export interface InterruptSink {
  /** @param vector - an MSI-X vector, 0 … vectors − 1 */
  raise(vector: number): void;
}

/** A function. */
export interface PciFunction {
  /** The regions that exist, by index. */
  readonly regions: readonly PciRegion[];
  /** MSI-X vectors. */
  readonly vectors: number;
  /**
   * Changes with everything that {@link save} holds except positions in rings: who keeps a journal
   * saves again when this differs. Ring positions are found again in guest memory.
   */
  readonly revision: number;

  /**
   * Reads bytes of a region into `target` from `at` on.
   *
   * @param count - 1, 2, 4, 8, or a longer run
   * @returns false when a byte lies outside the region; nothing is read then
   */
  read(region: number, offset: number, target: MemoryView, at: number, count: number): boolean;

  /**
   * Writes bytes of `source` from `at` on to a region. A doorbell only notes that there is work:
   * the caller answers the write first and calls {@link work} then.
   *
   * @returns false when a byte lies outside the region; nothing is written then
   */
  write(region: number, offset: number, source: MemoryView, at: number, count: number): boolean;

  /**
   * Does work that waits, a bounded piece of it, so that neither a processor of the guest nor
   * another function waits for long.
   *
   * @returns whether there is more: call again
   */
  work(): boolean;

  /** A reset of the machine, as the VMM sends it. */
  reset(): void;

  /**
   * The function's state as plain data that survives JSON, for a hand-over or after a crash.
   * Requests that wait for a store are not part of it: whoever restores does them again.
   */
  save(): unknown;

  /**
   * Takes over a state, into a function as it was built. Guest memory must be in place, and an
   * IOMMU in front must have its state back. Every queue counts as notified afterwards, and every
   * vector in use is raised once, since the last interrupt may have been lost.
   *
   * @throws StackError `pci/state` when the state does not fit
   */
  restore(state: unknown): void;
}
