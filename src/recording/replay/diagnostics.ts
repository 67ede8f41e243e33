/** What there is to say about a recording beside its result: bad lines, lost events, unknowns. */
import type { Oddity } from "../allocations.ts";
import type { LineProblem } from "../notes.ts";
import type { WorkloadReader } from "./workload-reader.ts";

/** `error`: lines that could not be used; `warning`: the result may be off; `note`: what it lacks. */
export type Severity = "error" | "warning" | "note";

/** One remark on a recording. */
export interface Diagnostic {
  readonly severity: Severity;
  /** Public interface: `replay/what`. */
  readonly code: string;
  readonly message: string;
  readonly file: string;
  readonly line: number | null;
}

/** Lines listed of each sort; the rest is summed up. */
const LISTED_MAX = 5;

const problemTexts: Record<LineProblem, string> = {
  torn: "The line cannot be read",
  "too long": "The line is too long to be an event",
  "range and size disagree": "Range and size of the mapping disagree",
  "number too large": "A number does not fit 64 bits",
  "not an event": "The line is no event",
};

const oddityTexts: Record<Oddity, readonly [Severity, string, string]> = {
  "size is zero": ["error", "bad-size", "The size is zero; the event is left out"],
  "not a whole number of pages": [
    "error",
    "bad-size",
    "Address or size is not a whole number of 4 KiB pages; the event is left out",
  ],
  "runs past the end of the address space": [
    "error",
    "bad-range",
    "The range runs past the end of the 64-bit space; the event is left out",
  ],
  "overlaps a live mapping": [
    "warning",
    "overlap",
    "The map overlaps a mapping that is still live: another domain's, or its unmap was lost",
  ],
  "unmaps a part of a mapping": [
    "note",
    "part",
    "The unmap takes a part out of a mapping; the rest stays mapped",
  ],
  "unmaps what is not mapped": [
    "error",
    "not-mapped",
    "The unmap covers nothing that is mapped, though the range was seen before; the event is left out",
  ],
  "driver removed another size than asked": [
    "note",
    "short-unmap",
    "The driver unmapped another size than asked; what it unmapped counts",
  ],
};

/** Collects the remarks on a recording that was read to its end. */
export function diagnosticsOf(file: string, reader: WorkloadReader): Diagnostic[] {
  const { notes } = reader;
  const remarks: Diagnostic[] = [];
  const add = (severity: Severity, code: string, message: string, line: number | null = null) =>
    remarks.push({ severity, code: `replay/${code}`, message, file, line });

  for (const { line, problem } of notes.unreadableLines.slice(0, LISTED_MAX)) {
    // A recorder that is stopped cuts its last line.
    const isCut = line === notes.lines && problem === "torn" && notes.unreadable === 1;
    add(isCut ? "note" : "error", "bad-line", problemTexts[problem], line);
  }
  const moreLines = notes.unreadable - LISTED_MAX;
  if (moreLines > 0) add("error", "bad-line", `${moreLines} more lines cannot be used`);

  const isLossy = notes.lostMarkers > 0;
  for (const [oddity, count] of reader.allocations.counts.oddities) {
    const lines = reader.oddities.filter((entry) => entry.oddity === oddity);
    if (lines.length === 0) continue;
    const [severity, code, text] = oddityTexts[oddity];
    const level = isLossy && code === "not-mapped" ? "warning" : severity;
    for (const { line } of lines.slice(0, LISTED_MAX)) add(level, code, text, line);
    const more = count - Math.min(count, LISTED_MAX);
    if (more > 0) add(level, code, `${more} more events like this`);
  }
  for (const line of notes.lostLines.slice(0, LISTED_MAX)) {
    add("warning", "lost-events", "The recorder lost events here: counts are too low", line);
  }
  const moreLost = notes.lostMarkers - LISTED_MAX;
  if (moreLost > 0) add("warning", "lost-events", `Events were lost in ${moreLost} more places`);
  if (notes.backwards > 0) {
    add(
      "warning",
      "time-backwards",
      `Time runs backwards, ${notes.backwards === 1 ? "once" : `${notes.backwards} times`}; the replay's clock waits`,
      notes.backwardsLine,
    );
  }
  addUnknowns(reader, add);
  return remarks;
}

function addUnknowns(
  reader: WorkloadReader,
  add: (severity: Severity, code: string, message: string) => void,
): void {
  if (!reader.knowsTime) {
    add(
      "note",
      "no-time",
      "The recording has no time: flush timers never expire, and how long memory stays reachable is not known",
    );
  }
  if (!reader.knowsCpus) {
    add(
      "note",
      "no-cpus",
      "The recording names no CPUs: everything runs on one, so per-CPU queues and caches act as one",
    );
  }
  if (reader.domains > 1) {
    add(
      "note",
      "domains-joined",
      `The recording has ${reader.domains} domains: they are replayed as one with a common flush queue`,
    );
  }
  if (reader.allocations.counts.oddities.has("overlaps a live mapping") && reader.domains <= 1) {
    add(
      "note",
      "domains-joined",
      "Mappings overlap, so several domains may be in this recording: they are replayed as one",
    );
  }
}
