/**
 * Who reads page tables from where: counts the entries that each unit's walks read, by node, and
 * hands every step on.
 */
import type { TranslationUnit } from "../../iommu/translation-unit.ts";
import { type Meter, NULL_METER, Step } from "../../meter.ts";

/** Entries that one unit read. */
export interface UnitReads {
  /** By node of the table. */
  readonly byNode: readonly number[];
  /** Of the unit's own node. */
  readonly local: number;
  readonly remote: number;
}

/** A meter that knows which unit is walking. */
export class ReadMeter implements Meter {
  readonly #next: Meter;
  readonly #nodes: number;
  readonly #reads = new Map<TranslationUnit, number[]>();
  #walking: number[] | null = null;

  constructor(nodes: number, next: Meter = NULL_METER) {
    this.#nodes = nodes;
    this.#next = next;
  }

  step(step: number, amount: number, place: number): void {
    if (step === Step.entryRead && this.#walking !== null) this.#walking[place]! += amount;
    this.#next.step(step, amount, place);
  }

  /** Counts what is read until {@link end} as read by a unit. */
  begin(unit: TranslationUnit): void {
    let reads = this.#reads.get(unit);
    if (reads === undefined) {
      reads = new Array<number>(this.#nodes).fill(0);
      this.#reads.set(unit, reads);
    }
    this.#walking = reads;
  }

  end(): void {
    this.#walking = null;
  }

  /** What a unit read so far. */
  of(unit: TranslationUnit): UnitReads {
    const byNode = this.#reads.get(unit) ?? new Array<number>(this.#nodes).fill(0);
    const total = byNode.reduce((sum, count) => sum + count, 0);
    const local = byNode[unit.node] ?? 0;
    return { byNode: [...byNode], local, remote: total - local };
  }

  /** Forgets what was counted. */
  reset(): void {
    this.#reads.clear();
  }
}
