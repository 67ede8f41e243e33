/**
 * A device behind an SMMU that stalls: it works through pages with so many accesses in flight, and
 * an access that is held simply takes longer.
 */
import { assert } from "../../errors.ts";
import { NO_PASID } from "../tag-array.ts";
import { Outcome, Translation } from "../translation-unit.ts";
import { type DmaSegment, PageStream } from "./page-stream.ts";
import { type StalledDma, StallOutcome, type StallQueue } from "./stall-queue.ts";

/** What a device's work came to so far. */
export interface DmaCounts {
  /** Pages read or written. */
  done: number;
  /** Pages that the device may not reach. */
  failed: number;
}

/** A device. */
export class StallDevice implements StalledDma {
  readonly rid: number;
  readonly pasid: number;
  readonly counts: DmaCounts = { done: 0, failed: 0 };
  readonly #queue: StallQueue;
  readonly #inFlightMax: number;
  readonly #out = new Translation();
  #stream: PageStream | null = null;
  #held = 0;

  /** @param options.inFlightMax - accesses at once, 1 without it */
  constructor(
    queue: StallQueue,
    options: { readonly rid: number; readonly pasid?: number; readonly inFlightMax?: number },
  ) {
    this.rid = options.rid;
    this.pasid = options.pasid ?? NO_PASID;
    this.#queue = queue;
    this.#inFlightMax = options.inFlightMax ?? 1;
    assert(this.#inFlightMax >= 1, "a device has an access in flight");
  }

  /** Whether work is left. */
  get isBusy(): boolean {
    return this.#held > 0 || (this.#stream?.left ?? 0) > 0;
  }

  /** Gives the device work. It has none. */
  start(segments: readonly DmaSegment[]): void {
    assert(!this.isBusy, "a device does one job at a time");
    this.#stream = new PageStream(segments);
  }

  /** Works until everything that may be in flight is held. @returns pages it got to */
  run(): number {
    const stream = this.#stream;
    if (stream === null) return 0;
    const before = stream.left;
    while (stream.left > 0 && this.#held < this.#inFlightMax) {
      const { iovaPfn, access } = stream;
      // The hold comes first, because the answer may come before the call returns.
      this.#held += 1;
      const { rid, pasid } = this;
      const outcome = this.#queue.access(rid, pasid, iovaPfn, 0, access, this.#out, this);
      if (outcome === StallOutcome.BUSY) {
        this.#held -= 1;
        break;
      }
      stream.advance();
      if (outcome !== StallOutcome.STALLED) this.resumed(outcome);
    }
    return before - stream.left;
  }

  resumed(outcome: number): void {
    this.#held -= 1;
    if (outcome === Outcome.FAULT) this.counts.failed += 1;
    else this.counts.done += 1;
  }
}
