/**
 * Verifies kernel traces: the rules that hold for every IOVA, and, where the recording allows it,
 * every IOVA against the one that our allocator hands out.
 *
 * The second part searches over the whole recording and is handed in, as a {@link ScheduleVerifier}:
 * it needs all operations in memory, so a recording past the bound is checked by the rules only.
 */
import { AllocationReader } from "../allocations.ts";
import type { TaskWindow } from "../events-of-calls.ts";
import { OperationColumns } from "../operation-columns.ts";
import { type TraceEvent, TraceKind } from "../trace-event.ts";
import { TraceTextReader } from "../trace-text.ts";
import type { Checker, CheckOutcome } from "./checker.ts";
import { readingRemarks } from "./reading-remarks.ts";
import { type Diagnostic, type Divergence, RowTally } from "./result.ts";
import { TraceRules } from "./trace-rules.ts";

/** Operations, and allocations among them, that are kept for the search. */
const OPERATIONS_KEPT_MAX = 2_000_000;
const ALLOCATIONS_KEPT_MAX = 100_000;

/** What is known about a trace beside its operations. */
export interface ScheduleFacts {
  /** The devices were attached in the recording, and nothing is from before it. */
  readonly fromBoot: boolean;
  /** CPUs that the recording says the machine has, 0 when it does not say. */
  readonly cpus: number;
  readonly lostEvents: boolean;
}

/** What the search says; rows are allocations. */
export interface ScheduleOutcome {
  readonly compared: number;
  readonly matched: number;
  readonly moves?: number;
  readonly flushesInferred?: number;
  /** Rows that do not match, the first of them at least. */
  readonly divergences: readonly Divergence[];
  /** What there is to say about the search. */
  readonly remarks?: readonly string[];
}

/** Checks allocations against our allocator; null when the recording does not allow it. */
export type ScheduleVerifier = (
  operations: OperationColumns,
  facts: ScheduleFacts,
) => ScheduleOutcome | null;

/** The verifier. */
export class TraceChecker implements Checker {
  readonly #file: string;
  readonly #schedule: ScheduleVerifier | null;
  readonly #elsewhere: readonly TaskWindow[];
  readonly #rules = new TraceRules();
  readonly #grouping = new AllocationReader(
    (operation) => {
      this.#rules.operation(operation);
      if (this.#columns === null) return;
      const { count, allocations } = this.#columns;
      const fits = count < OPERATIONS_KEPT_MAX && allocations < ALLOCATIONS_KEPT_MAX;
      if (fits) this.#columns.add(operation);
      else this.#columns = null;
    },
    { oddity: (oddity, event) => this.#rules.oddity(oddity, event) },
  );
  readonly #reader = new TraceTextReader((event) => this.#event(event));
  #columns: OperationColumns | null;
  /** A device was attached before anything was mapped. */
  #attachedFirst = false;
  #faults = 0;
  #faultLine = 0;
  /** Events that are compared with another recording. */
  #leftOut = 0;

  /**
   * @param schedule - null to check the rules only
   * @param elsewhere - tasks, and addresses of them, whose events belong to another recording, and are compared there
   */
  constructor(
    file: string,
    schedule: ScheduleVerifier | null,
    elsewhere: readonly TaskWindow[] = [],
  ) {
    this.#file = file;
    this.#schedule = schedule;
    this.#elsewhere = elsewhere;
    this.#columns = schedule === null ? null : new OperationColumns();
  }

  push(chunk: Uint8Array): void {
    this.#reader.push(chunk);
  }

  get lines(): number {
    return this.#reader.notes.events;
  }

  end(): CheckOutcome {
    this.#reader.end();
    this.#grouping.end();
    const { notes } = this.#reader;
    const { counts } = this.#grouping;
    const lost = notes.lostMarkers > 0;
    const tally = new RowTally();
    const outcome = this.#verifySchedule(lost);
    if (outcome !== null) {
      tally.matchMany(outcome.matched);
      for (const { line, expected, got, waivedBy, what } of outcome.divergences) {
        const names = waivedBy === null ? null : [waivedBy];
        tally.diverge(line, names, () =>
          what === undefined ? [expected, got] : [expected, got, what],
        );
      }
      tally.divergeMany(Math.max(0, outcome.compared - tally.compared), null);
    }
    this.#rules.finish(tally, { matches: outcome === null, lost });
    return {
      tally,
      ...(outcome?.moves === undefined ? {} : { moves: outcome.moves }),
      ...(outcome?.flushesInferred === undefined
        ? {}
        : { flushesInferred: outcome.flushesInferred }),
      inferredBefore: counts.before,
      lostEvents: notes.lostEvents,
      lostMarkers: notes.lostMarkers,
      diagnostics: [
        ...readingRemarks(this.#file, notes, this.#reader.unusedEvents(), "error"),
        ...this.#sizeRemarks(),
        ...this.#faultRemarks(),
        ...this.#elsewhereRemarks(),
        ...this.#scheduleRemarks(outcome),
      ],
    };
  }

  #event(event: TraceEvent): void {
    if (this.#elsewhere.some((window) => belongsTo(window, event))) {
      this.#leftOut += 1;
      return;
    }
    if (event.kind === TraceKind.fault) {
      this.#faults += 1;
      if (this.#faultLine === 0) this.#faultLine = event.line;
    }
    if (event.kind === TraceKind.attach && this.#grouping.counts.maps === 0) {
      this.#attachedFirst = this.#grouping.counts.unmaps === 0;
    }
    this.#grouping.event(event);
  }

  #verifySchedule(lost: boolean): ScheduleOutcome | null {
    const columns = this.#columns;
    if (this.#schedule === null || columns === null || columns.allocations === 0) return null;
    if (this.#hasSeveralDomains() || this.#rules.areUserChosen) return null;
    return this.#schedule(columns, {
      fromBoot: this.#attachedFirst && this.#grouping.counts.before === 0 && !lost,
      cpus: this.#reader.cpus,
      lostEvents: lost,
    });
  }

  /** Allocators of several domains cannot be told apart in a trace. */
  #hasSeveralDomains(): boolean {
    return this.#grouping.counts.oddities.has("overlaps a live mapping");
  }

  #sizeRemarks(): Diagnostic[] {
    const { oddities } = this.#grouping.counts;
    const remarks: Diagnostic[] = [];
    for (const oddity of [
      "size is zero",
      "not a whole number of pages",
      "runs past the end of the address space",
    ] as const) {
      const count = oddities.get(oddity) ?? 0;
      if (count === 0) continue;
      const line = this.#rules.lineOf(oddity);
      remarks.push({
        severity: "warning",
        code: "recording/bad-size",
        message: `an event is left out because its ${oddityTexts[oddity]}, here first, ${count} in all`,
        file: this.#file,
        ...(line === 0 ? {} : { line }),
      });
    }
    return remarks;
  }

  #faultRemarks(): Diagnostic[] {
    if (this.#faults === 0) return [];
    return [
      {
        severity: "note",
        code: "recording/io-page-faults",
        message: `devices were refused ${this.#faults} accesses (io_page_fault), here first`,
        file: this.#file,
        line: this.#faultLine,
      },
    ];
  }

  #elsewhereRemarks(): Diagnostic[] {
    if (this.#leftOut === 0) return [];
    return [
      {
        severity: "note",
        code: "verify/map-events",
        message: `${this.#leftOut} events are those of a recording of VFIO calls and compared there`,
        file: this.#file,
      },
    ];
  }

  #scheduleRemarks(outcome: ScheduleOutcome | null): Diagnostic[] {
    const add = (message: string, severity: "note" | "warning" = "note"): Diagnostic => ({
      severity,
      code: "verify/schedule",
      message,
      file: this.#file,
    });
    if (outcome !== null) return (outcome.remarks ?? []).map((text) => add(text));
    if (this.#schedule === null || this.#grouping.counts.maps === 0) return [];
    const why =
      this.#columns === null
        ? `the recording has more than ${ALLOCATIONS_KEPT_MAX} allocations`
        : this.#hasSeveralDomains()
          ? "mappings overlap, so it shows several domains"
          : this.#rules.areUserChosen
            ? "the task that maps chooses the addresses itself, as VFIO lets it"
            : "the recording does not show enough of the machine's life";
    return [add(`only the rules that need no schedule are checked: ${why}`)];
  }
}

/** Whether an event is one of a task's calls; all but maps and unmaps tell of no address. */
function belongsTo({ task, startPfn, endPfn }: TaskWindow, event: TraceEvent): boolean {
  if (event.pid !== task) return false;
  const isMapping = event.kind === TraceKind.map || event.kind === TraceKind.unmap;
  return !isMapping || (event.iovaPfn >= startPfn && event.iovaPfn < endPfn);
}

const oddityTexts = {
  "size is zero": "size is zero: a mapping that failed",
  "not a whole number of pages": "address or size is no whole number of 4 KiB pages",
  "runs past the end of the address space": "range runs past the end of the 64-bit space",
} as const;
