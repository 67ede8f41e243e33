/**
 * Translations of a QEMU log against ours. QEMU writes one line when a device asks, and a second
 * one when a mapping answered; where there is none, the access was an interrupt, bypassed the
 * IOMMU, or was refused (hw/virtio/virtio-iommu.c, virtio_iommu_translate).
 *
 * Threads write to one log: a question may stand apart from its answer, with requests in between
 * that changed it. Questions wait in a small ring for their answers.
 */
import { Translation } from "../../virtio/iommu/device-translate.ts";
import type { QemuEvent } from "../qemu-event.ts";
import type { LogDevice } from "./log-device.ts";
import { addressText } from "./request-text.ts";
import type { RowTally } from "./result.ts";

/** Questions that wait for their answers; threads that use the IOMMU at once are fewer. */
const WAITING_MAX = 64;

/** What our device says to an access. */
const Answer = { mapped: 0, bypass: 1, msi: 2, fault: 3 } as const;

const answerTexts: readonly string[] = [
  "a mapping",
  "no translation: the endpoint bypasses",
  "no translation: an interrupt",
  "no translation: a fault",
];

/** Called when QEMU translated what our device does not know; true when it was inferred. */
export type Infer = (event: QemuEvent) => boolean;

/** Compares translations. */
export class LogAccesses {
  readonly #tally: RowTally;
  readonly #infer: Infer;
  #log: LogDevice;
  /** Questions `#first` … `#next` − 1 wait, some of them answered. */
  #first = 0;
  #next = 0;
  readonly #line = new Float64Array(WAITING_MAX);
  readonly #endpoint = new Float64Array(WAITING_MAX);
  readonly #pfn = new Float64Array(WAITING_MAX);
  readonly #offset = new Int32Array(WAITING_MAX);
  readonly #access = new Int32Array(WAITING_MAX);
  readonly #answer = new Uint8Array(WAITING_MAX);
  readonly #physPfn = new Float64Array(WAITING_MAX);
  readonly #physOffset = new Int32Array(WAITING_MAX);
  readonly #isOpen = new Uint8Array(WAITING_MAX);
  /** Where the last access leads, written by the device. */
  readonly #target = {
    pfn: 0,
    offset: 0,
    segment(pfn: number, offset: number): void {
      this.pfn = pfn;
      this.offset = offset;
    },
  };
  /** What the endpoint that asked last does without a mapping, while nothing changed. */
  #modeEndpoint = -1;
  #modeGeneration = -1;
  #modeIsBypass = false;

  constructor(log: LogDevice, tally: RowTally, infer: Infer) {
    this.#log = log;
    this.#tally = tally;
    this.#infer = infer;
  }

  /** Goes on with another device: the old one's questions are settled. */
  use(log: LogDevice): void {
    this.finish();
    this.#log = log;
    this.#modeEndpoint = -1;
  }

  /** A device asks. */
  ask(event: QemuEvent): void {
    if (this.#next - this.#first === WAITING_MAX) this.#settleFirst();
    const at = this.#next % WAITING_MAX;
    this.#next += 1;
    this.#line[at] = event.line;
    this.#endpoint[at] = event.endpoint;
    this.#pfn[at] = event.startPfn;
    this.#offset[at] = event.startOffset;
    this.#access[at] = event.flags & 3;
    this.#isOpen[at] = 1;
    this.#answer[at] = this.#evaluate(at);
    this.#physPfn[at] = this.#target.pfn;
    this.#physOffset[at] = this.#target.offset;
  }

  /** QEMU answers. */
  answer(event: QemuEvent): void {
    let at = this.#find(event);
    if (at < 0) {
      // The question is missing: the log starts between the two.
      event.flags = 0;
      this.ask(event);
      at = (this.#next - 1) % WAITING_MAX;
    }
    this.#close(at);
    if (!this.#agrees(at, event)) {
      this.#answer[at] = this.#evaluate(at);
      this.#physPfn[at] = this.#target.pfn;
      this.#physOffset[at] = this.#target.offset;
    }
    if (this.#agrees(at, event)) {
      if (this.#waiver === null) this.#tally.match();
      else this.#waive(event, this.#waiver);
      return;
    }
    if (this.#answer[at] !== Answer.mapped && this.#infer(event)) return;
    const got = this.#text(at);
    this.#tally.diverge(event.line, null, () => [
      addressText(event.physPfn, event.physOffset),
      got,
      accessText(event.endpoint, event.startPfn, event.startOffset),
    ]);
  }

  #waiver: readonly string[] | null = null;

  /** Translations by a mapping agree only by these departures of the peer, until told otherwise. */
  setWaiver(names: readonly string[] | null): void {
    this.#waiver = names;
  }

  #waive(event: QemuEvent, names: readonly string[]): void {
    this.#tally.diverge(event.line, names, () => [
      addressText(event.physPfn, event.physOffset),
      "no mapping without the departure",
      accessText(event.endpoint, event.startPfn, event.startOffset),
    ]);
  }

  /** QEMU refuses. */
  refuse(event: QemuEvent): void {
    const at = this.#find(event);
    if (at < 0) return;
    this.#close(at);
    if (this.#answer[at] === Answer.fault || this.#evaluate(at) === Answer.fault) {
      this.#tally.match();
      return;
    }
    const got = this.#text(at);
    this.#tally.diverge(event.line, null, () => [
      "a fault",
      got,
      accessText(event.endpoint, event.startPfn, event.startOffset),
    ]);
  }

  /** Settles every question that waits. */
  finish(): void {
    while (this.#first < this.#next) this.#settleFirst();
  }

  /** What our device says to question `at` now; a mapping leads to `#target`. */
  #evaluate(at: number): number {
    const { device } = this.#log;
    const endpoint = this.#endpoint[at]!;
    if (endpoint !== this.#modeEndpoint) this.#log.add(endpoint);
    const pfn = this.#pfn[at]!;
    const outcome = device.translate(
      endpoint,
      pfn,
      this.#offset[at]!,
      1,
      this.#access[at]!,
      this.#target,
    );
    if (outcome === Translation.MSI) return Answer.msi;
    if (outcome === Translation.FAULT) return Answer.fault;
    return this.#bypasses(endpoint) ? Answer.bypass : Answer.mapped;
  }

  #bypasses(endpoint: number): boolean {
    const { device } = this.#log;
    const { generation } = device;
    if (endpoint !== this.#modeEndpoint || generation !== this.#modeGeneration) {
      const domain = device.domainOf(endpoint);
      this.#modeIsBypass = domain === null || device.isBypassDomain(domain);
      this.#modeEndpoint = endpoint;
      this.#modeGeneration = generation;
    }
    return this.#modeIsBypass;
  }

  #agrees(at: number, event: QemuEvent): boolean {
    return (
      this.#answer[at] === Answer.mapped &&
      this.#physPfn[at] === event.physPfn &&
      this.#physOffset[at] === event.physOffset
    );
  }

  /** The youngest question that an answer fits, −1 if there is none. */
  #find(event: QemuEvent): number {
    for (let number = this.#next - 1; number >= this.#first; number -= 1) {
      const at = number % WAITING_MAX;
      if (this.#isOpen[at] === 0 || this.#pfn[at] !== event.startPfn) continue;
      if (this.#offset[at] === event.startOffset && this.#endpoint[at] === event.endpoint) {
        return at;
      }
    }
    return -1;
  }

  #close(at: number): void {
    this.#isOpen[at] = 0;
    while (this.#first < this.#next && this.#isOpen[this.#first % WAITING_MAX] === 0) {
      this.#first += 1;
    }
  }

  /** Nobody answered the oldest question: no mapping was used. */
  #settleFirst(): void {
    const at = this.#first % WAITING_MAX;
    this.#first += 1;
    if (this.#isOpen[at] === 0) return;
    this.#isOpen[at] = 0;
    if (this.#answer[at] !== Answer.mapped) {
      this.#tally.match();
      return;
    }
    const got = this.#text(at);
    const isLater = this.#evaluate(at) !== Answer.mapped;
    this.#tally.diverge(this.#line[at]!, isLater ? ["log-other-thread"] : null, () => [
      "no translation",
      got,
      accessText(this.#endpoint[at]!, this.#pfn[at]!, this.#offset[at]!),
    ]);
  }

  #text(at: number): string {
    const answer = this.#answer[at]!;
    if (answer !== Answer.mapped) return answerTexts[answer]!;
    return addressText(this.#physPfn[at]!, this.#physOffset[at]!);
  }
}

function accessText(endpoint: number, pfn: number, offset: number): string {
  return `endpoint=${endpoint} accesses ${addressText(pfn, offset)}`;
}
