/**
 * The mappings that an UNMAP of a QEMU log removed, from both sides: ours reports them while the
 * request is handled, QEMU's follow in the log, one line each. Every one must have its counterpart.
 */
import { type ByteRange, isSameRange } from "./device-client.ts";
import { addressText } from "./request-text.ts";
import type { RowTally } from "./result.ts";

/** A mapping of a domain. */
export interface DomainRange extends ByteRange {
  readonly domain: number;
}

/** Compares removals. */
export class RemovedRanges {
  readonly #tally: RowTally;
  /** What ours removed and QEMU has not named yet; taken ones are null. */
  #waiting: (DomainRange | null)[] = [];
  #first = 0;
  #line = 0;
  #isListening = false;
  /** Pages taken for mappings from before the log, by domain. */
  readonly #inferred = new Map<number, Set<number>>();
  #inferredPages = 0;

  constructor(tally: RowTally) {
    this.#tally = tally;
  }

  get inferredPages(): number {
    return this.#inferredPages;
  }

  /** An UNMAP is about to be handled. */
  start(line: number): void {
    this.#line = line;
    this.#isListening = true;
  }

  /** Our device removed a mapping. */
  ours(range: DomainRange): void {
    if (this.#isListening) this.#waiting.push(range);
  }

  /** QEMU removed a mapping. @returns whether ours did so too */
  take(range: DomainRange): boolean {
    for (let at = this.#first; at < this.#waiting.length; at += 1) {
      const other = this.#waiting[at];
      if (other === null || other === undefined) continue;
      if (other.domain !== range.domain || !isSameRange(other, range)) continue;
      this.#waiting[at] = null;
      while (this.#first < this.#waiting.length && this.#waiting[this.#first] === null) {
        this.#first += 1;
      }
      this.#forget(other);
      this.#tally.match();
      return true;
    }
    return false;
  }

  /** Notes a page that was mapped for what must have been there before the log. */
  infer(page: DomainRange): void {
    let pages = this.#inferred.get(page.domain);
    if (pages === undefined) {
      pages = new Set();
      this.#inferred.set(page.domain, pages);
    }
    if (pages.has(page.startPfn)) return;
    pages.add(page.startPfn);
    this.#inferredPages += 1;
  }

  /**
   * QEMU removed a mapping that ours did not have: from before the log.
   *
   * @returns false when ours removed a mapping in there that the log did show
   */
  takeInferred(range: DomainRange): boolean {
    const inside: number[] = [];
    for (let at = this.#first; at < this.#waiting.length; at += 1) {
      const other = this.#waiting[at];
      if (other === null || other === undefined || !overlaps(other, range)) continue;
      if (this.#inferred.get(other.domain)?.has(other.startPfn) !== true) return false;
      inside.push(at);
    }
    for (const at of inside) {
      this.#forget(this.#waiting[at]!);
      this.#waiting[at] = null;
    }
    return true;
  }

  /** The next request comes: what QEMU has not named by now it did not remove. */
  finish(): void {
    this.#isListening = false;
    for (let at = this.#first; at < this.#waiting.length; at += 1) {
      const range = this.#waiting[at];
      if (range === null || range === undefined) continue;
      this.#forget(range);
      this.#tally.diverge(this.#line, null, () => [
        "not removed",
        `removes ${addressText(range.startPfn, range.startOffset)}-${addressText(range.lastPfn, range.lastOffset)}`,
        `UNMAP domain=${range.domain}`,
      ]);
    }
    if (this.#waiting.length > 0) this.#waiting = [];
    this.#first = 0;
  }

  #forget(range: DomainRange): void {
    if (this.#inferred.get(range.domain)?.delete(range.startPfn) === true) {
      this.#inferredPages -= 1;
    }
  }
}

function overlaps(a: DomainRange, b: DomainRange): boolean {
  return a.domain === b.domain && !isBelow(a, b) && !isBelow(b, a);
}

/** Whether a range ends before another starts. */
function isBelow(a: ByteRange, b: ByteRange): boolean {
  return a.lastPfn < b.startPfn || (a.lastPfn === b.startPfn && a.lastOffset < b.startOffset);
}
