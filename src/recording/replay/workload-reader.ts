/**
 * Takes the workload out of a recording: what was mapped and freed, when, on which CPU, how big and
 * of which physical pieces; from a kernel trace or from QEMU's log of virtio-iommu requests.
 *
 * QEMU's log knows domains but neither CPUs nor, mostly, time. Its MAP requests are runs of one
 * page size, so that neighbouring runs of one buffer are put together again by the engine.
 */
import { StackError } from "../../errors.ts";
import { AllocationReader, type Oddity } from "../allocations.ts";
import type { RecordingKind } from "../kinds.ts";
import type { ReadingNotes } from "../notes.ts";
import type { OperationSink } from "../operation.ts";
import { type QemuEvent, QemuKind } from "../qemu-event.ts";
import { QemuLogReader } from "../qemu-log.ts";
import { ContextFlag, TraceEvent, TraceKind } from "../trace-event.ts";
import { TraceTextReader } from "../trace-text.ts";

/** Oddities listed by line; the rest is counted. */
const ODDITIES_LISTED_MAX = 100;

/** One odd event and its line. */
export interface OddityNote {
  readonly line: number;
  readonly oddity: Oddity;
}

/** Options of {@link WorkloadReader}. */
export interface WorkloadReaderOptions {
  readonly kind: RecordingKind;
  readonly file: string;
  readonly sink: OperationSink;
  /** See `AllocationOptions.window`. */
  readonly window?: number;
}

/** Reads one recording; call `push` for each chunk and `end` once. */
export class WorkloadReader {
  readonly allocations: AllocationReader;
  readonly oddities: OddityNote[] = [];
  /** The recording names CPUs. */
  readonly knowsCpus: boolean;
  readonly #reader: TraceTextReader | QemuLogReader;
  readonly #event = new TraceEvent();
  readonly #domains = new Set<number>();
  #hasTime = false;
  #lacksTime = false;

  constructor(options: WorkloadReaderOptions) {
    const { kind, file, sink, window } = options;
    this.allocations = new AllocationReader(sink, {
      ...(window === undefined ? {} : { window }),
      oddity: (oddity, event) => this.#note(oddity, event.line),
    });
    this.knowsCpus = kind.family === "trace";
    if (kind.family === "trace") {
      this.#reader = new TraceTextReader((event) => {
        this.#hasTime = true;
        this.allocations.event(event);
      });
    } else if (kind.family === "qemu-log") {
      this.#reader = new QemuLogReader((event) => this.#qemuEvent(event));
    } else {
      throw new StackError({
        code: "replay/no-workload",
        kind: "input",
        message: `This recording (${kind.title}) holds no DMA of a running system`,
        at: { file },
        hint: "`iommukit verify` checks it; replay takes traces of iommu:map and iommu:unmap, and QEMU logs",
      });
    }
  }

  /** What the reader noticed. */
  get notes(): ReadingNotes {
    return this.#reader.notes;
  }

  /** Names of events that are counted but not used, with how often they came. */
  unusedEvents(): { readonly name: string; readonly count: number }[] {
    return this.#reader.unusedEvents();
  }

  /** CPUs that the recording says the machine has, 0 when it does not say. */
  get cpusStated(): number {
    return this.#reader instanceof TraceTextReader ? this.#reader.cpus : 0;
  }

  /** Every event has a time in seconds. */
  get knowsTime(): boolean {
    if (this.#reader instanceof TraceTextReader && this.#reader.ticks) return false;
    return this.#hasTime && !this.#lacksTime;
  }

  /** Domains that the recording names, 0 when it names none. */
  get domains(): number {
    return this.#domains.size;
  }

  push(chunk: Uint8Array): void {
    this.#reader.push(chunk);
  }

  end(): void {
    this.#reader.end();
    this.allocations.end();
  }

  #note(oddity: Oddity, line: number): void {
    // Domains have address spaces of their own; only a trace cannot tell them apart.
    if (oddity === "overlaps a live mapping" && this.#domains.size > 1) return;
    if (this.oddities.length < ODDITIES_LISTED_MAX) this.oddities.push({ line, oddity });
  }

  #qemuEvent(qemu: QemuEvent): void {
    if (qemu.kind !== QemuKind.map && qemu.kind !== QemuKind.unmap) return;
    const event = this.#event;
    event.kind = qemu.kind === QemuKind.map ? TraceKind.map : TraceKind.unmap;
    event.line = qemu.line;
    event.timeUs = Math.max(0, qemu.timeUs);
    if (qemu.timeUs < 0) this.#lacksTime = true;
    else this.#hasTime = true;
    // Ranges of one domain are kept apart from another's as those of two CPUs are.
    event.cpu = qemu.domain % 2 ** 31;
    event.pid = qemu.domain;
    event.context = ContextFlag.unknown;
    event.iovaPfn = qemu.startPfn;
    event.iovaOffset = qemu.startOffset;
    event.physPfn = event.kind === TraceKind.map ? qemu.physPfn : 0;
    event.physOffset = event.kind === TraceKind.map ? qemu.physOffset : 0;
    const offset = qemu.lastOffset + 1 - qemu.startOffset;
    event.pages = Math.max(0, qemu.lastPfn - qemu.startPfn + Math.floor(offset / 4096));
    event.pagesRest = ((offset % 4096) + 4096) % 4096;
    event.unmappedPages = event.pages;
    event.unmappedRest = event.pagesRest;
    if (this.#domains.size < 65_536) this.#domains.add(qemu.domain);
    this.allocations.event(event);
  }
}
