/**
 * A PCI function with ATS and PRI: it works through pages out of its translation cache, asks for
 * those that miss in groups, and asks for their translation again when a group is answered.
 *
 * Source: PCI Express Base specification, 10.4.1 "Page Request Services Overview": a page that is
 * requested need not stay, so that after SUCCESS a translation request can miss again.
 */
import { assert } from "../../errors.ts";
import { NO_PASID } from "../tag-array.ts";
import { Outcome, Translation, type TranslationUnit } from "../translation-unit.ts";
import { PageResponse } from "./page-request.ts";
import { type DmaSegment, PageStream } from "./page-stream.ts";
import type { PriInterface } from "./pri-interface.ts";
import type { DmaCounts } from "./stall-device.ts";

/** How a function works. */
export interface PriDeviceOptions {
  readonly unit: TranslationUnit;
  readonly pri: PriInterface;
  readonly pasid?: number;
  /** Pages that it looks at together and asks for as a group, 1 without it. */
  readonly groupPages?: number;
  /** How often it asks for a page that it was told to be there, 16 without it. */
  readonly triesMax?: number;
}

interface Waiting {
  readonly iovaPfn: number;
  readonly access: number;
  tries: number;
}

/** A function. */
export class PriDevice {
  readonly counts: DmaCounts = { done: 0, failed: 0 };
  readonly #unit: TranslationUnit;
  readonly #pri: PriInterface;
  readonly #pasid: number;
  readonly #groupPages: number;
  readonly #triesMax: number;
  readonly #out = new Translation();
  /** Pages to look at next: those of the answered group, then those of the stream. */
  #ready: Waiting[] = [];
  #stream: PageStream | null = null;
  #groupsInFlight = 0;

  constructor(options: PriDeviceOptions) {
    this.#unit = options.unit;
    this.#pri = options.pri;
    this.#pasid = options.pasid ?? NO_PASID;
    this.#groupPages = options.groupPages ?? 1;
    this.#triesMax = options.triesMax ?? 16;
    assert(this.#groupPages >= 1 && this.#triesMax >= 1, "a function asks for a page, and once");
  }

  /** Whether work is left. */
  get isBusy(): boolean {
    return this.#groupsInFlight > 0 || this.#ready.length > 0 || (this.#stream?.left ?? 0) > 0;
  }

  /** Gives the function work. It has none. */
  start(segments: readonly DmaSegment[]): void {
    assert(!this.isBusy, "a function does one job at a time");
    this.#stream = new PageStream(segments);
  }

  /** Works until a group has to be waited for, or nothing is left. @returns pages it got to */
  run(): number {
    let reached = 0;
    while (this.#groupsInFlight === 0 && this.isBusy) {
      const missed: Waiting[] = [];
      reached += this.#look(missed);
      if (missed.length > 0) this.#ask(missed);
    }
    return reached;
  }

  /** Looks at the next pages, and collects those that are not there and alike. */
  #look(missed: Waiting[]): number {
    const again = this.#ready;
    this.#ready = [];
    let looked = 0;
    for (; looked < again.length && missed.length < this.#room(missed); looked += 1) {
      this.#try(again[looked]!, missed);
    }
    this.#ready.push(...again.slice(looked));
    const stream = this.#stream!;
    while (this.#ready.length === 0 && stream.left > 0 && missed.length < this.#room(missed)) {
      const page = { iovaPfn: stream.iovaPfn, access: stream.access, tries: 0 };
      // A group asks for one kind of access.
      if (missed.length > 0 && missed[0]!.access !== page.access) break;
      stream.advance();
      looked += 1;
      this.#try(page, missed);
    }
    return looked;
  }

  #room(missed: readonly Waiting[]): number {
    // Without room the first miss is still found out, and fails.
    return missed.length === 0 ? 1 : Math.min(this.#groupPages, this.#pri.room);
  }

  #try(page: Waiting, missed: Waiting[]): void {
    const { rid } = this.#pri;
    const { iovaPfn, access } = page;
    const outcome = this.#unit.translateAts(rid, this.#pasid, iovaPfn, access, this.#out);
    if (outcome !== Outcome.FAULT) this.counts.done += 1;
    else if (page.tries === this.#triesMax) this.counts.failed += 1;
    else missed.push(page);
  }

  #ask(missed: readonly Waiting[]): void {
    const pfns = missed.map(({ iovaPfn }) => iovaPfn);
    this.#groupsInFlight += 1;
    const index = this.#pri.send(this.#pasid, pfns, missed[0]!.access, (code) => {
      this.#groupsInFlight -= 1;
      if (code !== PageResponse.SUCCESS) {
        this.counts.failed += missed.length;
        return;
      }
      for (const page of missed) {
        page.tries += 1;
        this.#ready.push(page);
      }
    });
    if (index >= 0) return;
    this.#groupsInFlight -= 1;
    this.counts.failed += missed.length;
  }
}
