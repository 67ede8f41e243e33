/**
 * What holds for every kernel's IOVAs, whatever its caches and whenever the recording started: the
 * rules of a trace that need no schedule.
 *
 * Sources: drivers/iommu/iova.c (size-aligned allocation, first frame 1), drivers/iommu/dma-iommu.c
 * (reserved MSI window, unmap of whole allocations only). The MSI window is that of x86.
 */
import { addressOf, hex, log2Ceil } from "../../units.ts";
import type { Oddity } from "../allocations.ts";
import { type Operation, OperationKind } from "../operation.ts";
import type { TraceEvent } from "../trace-event.ts";
import type { RowTally } from "./result.ts";
import type { RecordingWaiverName } from "./waivers.ts";

/** First and last frame of the window of message-signalled interrupts on x86. */
const MSI_FIRST = 0xfee00;
const MSI_LAST = 0xfeeff;

/** An allocation of so many frames is a guest's memory, mapped by VFIO: 128 MiB. */
const GUEST_PAGES_MIN = 2 ** 15;

/** Violations that are kept until the end, when it is known what waives them. */
const VIOLATIONS_KEPT_MAX = 10_000;
/** Tasks that are told apart. */
const TASKS_MAX = 4096;

interface Violation {
  readonly line: number;
  readonly pid: number;
  readonly rule: Rule;
  readonly expected: string;
  readonly got: string;
}

/** Sorts of rules, by what can waive them. */
type Rule = "address" | "overlap" | "pairing";

/** Checks operations and oddities as they come; `finish` writes the rows. */
export class TraceRules {
  readonly #kept: Violation[] = [];
  /** Violations by task and rule, past those that are kept. */
  readonly #dropped = new Map<number, number>();
  readonly #droppedRules: Record<Rule, number> = { address: 0, overlap: 0, pairing: 0 };
  /** Tasks that map whole guests. */
  readonly #guestTasks = new Set<number>();
  /** Allocations of each task, past the bound of none. */
  readonly #byTask = new Map<number, number>();
  readonly #firstLines = new Map<Oddity, number>();
  #allocations = 0;
  #broken = 0;
  #pairingBroken = 0;

  /** One operation of the recording. */
  operation(operation: Operation): void {
    const { kind } = operation;
    if (kind !== OperationKind.allocate && kind !== OperationKind.freeBefore) return;
    this.#allocations += 1;
    const { pid, pages } = operation;
    if (this.#byTask.has(pid) || this.#byTask.size < TASKS_MAX) {
      this.#byTask.set(pid, (this.#byTask.get(pid) ?? 0) + 1);
    }
    if (pages >= GUEST_PAGES_MIN && this.#guestTasks.size < TASKS_MAX) this.#guestTasks.add(pid);
    const expected = brokenAddressRule(operation);
    if (expected === null) return;
    this.#broken += 1;
    this.#keep({
      line: operation.line,
      pid,
      rule: "address",
      expected,
      got: rangeText(operation.iovaPfn, pages),
    });
  }

  /** One odd event of the recording. */
  oddity(oddity: Oddity, event: TraceEvent): void {
    if (!this.#firstLines.has(oddity)) this.#firstLines.set(oddity, event.line);
    const rule = ruleOf(oddity);
    if (rule === null) return;
    if (rule === "pairing") this.#pairingBroken += 1;
    this.#keep({
      line: event.line,
      pid: event.pid,
      rule,
      expected: expectations[oddity] ?? "",
      got: rangeText(event.iovaPfn, event.pages),
    });
  }

  /** Whether every allocation is one of a task that maps whole guests, so none was allocated. */
  get areUserChosen(): boolean {
    let chosen = 0;
    for (const pid of this.#guestTasks) chosen += this.#byTask.get(pid) ?? 0;
    return chosen > 0 && chosen === this.#allocations;
  }

  /** First line with an oddity, 0 when there is none. */
  lineOf(oddity: Oddity): number {
    return this.#firstLines.get(oddity) ?? 0;
  }

  /**
   * Writes the rows: one for each allocation, one for each odd event.
   *
   * @param tally - receives the rows
   * @param options.matches - whether allocations that keep the rules count as rows
   * @param options.lost - whether the recording lost events
   */
  finish(tally: RowTally, options: { readonly matches: boolean; readonly lost: boolean }): void {
    const kept = this.#allocations - this.#broken;
    if (options.matches) tally.matchMany(kept);
    for (const { line, pid, rule, expected, got } of this.#kept) {
      tally.diverge(line, this.#waiver(rule, pid, options.lost), () => [expected, got]);
    }
    for (const rule of ["overlap", "pairing"] as const) {
      tally.divergeMany(this.#droppedRules[rule], this.#waiver(rule, -1, options.lost));
    }
    for (const [pid, count] of this.#dropped) {
      tally.divergeMany(count, this.#waiver("address", pid, options.lost));
    }
  }

  #waiver(rule: Rule, pid: number, lost: boolean): readonly RecordingWaiverName[] | null {
    if (rule === "address") return this.#guestTasks.has(pid) ? ["trace-user-chosen-iova"] : null;
    if (lost) return ["trace-lost-events"];
    // Were it one domain, the unmap of one of the two would have found nothing.
    if (rule === "overlap" && this.#pairingBroken === 0) return ["trace-names-no-domain"];
    return null;
  }

  #keep(violation: Violation): void {
    if (this.#kept.length < VIOLATIONS_KEPT_MAX) {
      this.#kept.push(violation);
      return;
    }
    if (violation.rule !== "address") {
      this.#droppedRules[violation.rule] += 1;
      return;
    }
    const known = this.#dropped.has(violation.pid) || this.#dropped.size < TASKS_MAX;
    const pid = known ? violation.pid : -1;
    this.#dropped.set(pid, (this.#dropped.get(pid) ?? 0) + 1);
  }
}

/** The rule that an allocation's address breaks, in words; null when it keeps all. */
function brokenAddressRule({ iovaPfn, pages, open }: Operation): string | null {
  if (iovaPfn === 0) return "an address above the first page, which is never given out";
  if (iovaPfn <= MSI_LAST && iovaPfn + pages > MSI_FIRST) {
    return `an address outside the MSI window of x86, ${rangeText(MSI_FIRST, MSI_LAST - MSI_FIRST + 1)}`;
  }
  // The size of what was never unmapped is a guess.
  if (open) return null;
  const alignment = 2 ** log2Ceil(pages);
  if (iovaPfn % alignment === 0) return null;
  return `an address aligned to ${hex(alignment * 4096)}, for a size of ${pages} pages`;
}

function ruleOf(oddity: Oddity): Rule | null {
  switch (oddity) {
    case "overlaps a live mapping":
      return "overlap";
    case "unmaps a part of a mapping":
    case "unmaps what is not mapped":
    case "driver removed another size than asked":
      return "pairing";
    default:
      return null;
  }
}

const expectations: Partial<Record<Oddity, string>> = {
  "overlaps a live mapping": "a range that shares no page with a live mapping",
  "unmaps a part of a mapping": "an unmap of whole allocations",
  "unmaps what is not mapped": "an unmap of something that is mapped",
  "driver removed another size than asked": "an unmap of everything that it asks for",
};

/** Prints a range of frames with its inclusive end. */
export function rangeText(pfn: number, pages: number): string {
  return `${hex(addressOf(pfn))}-${hex(addressOf(pfn) + BigInt(pages) * 4096n - 1n)}`;
}
