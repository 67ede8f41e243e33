/** What there is to say about a recording beside its result: bad lines, lost events, unknowns. */
import type { Oddity } from "../allocations.ts";
import { readingRemarks } from "../verify/reading-remarks.ts";
import type { Diagnostic } from "../verify/result.ts";
import type { WorkloadReader } from "./workload-reader.ts";

/** `error`: events that could not be used; `warning`: the result may be off; `note`: what it lacks. */
type Severity = Diagnostic["severity"];

/** Lines listed of each sort; the rest is summed up. */
const LISTED_MAX = 5;

const oddityTexts: Record<Oddity, readonly [Severity, string, string]> = {
  "size is zero": ["error", "bad-size", "the size is zero; the event is left out"],
  "not a whole number of pages": [
    "error",
    "bad-size",
    "address or size is not a whole number of 4 KiB pages; the event is left out",
  ],
  "runs past the end of the address space": [
    "error",
    "bad-range",
    "the range runs past the end of the 64-bit space; the event is left out",
  ],
  "overlaps a live mapping": [
    "warning",
    "overlap",
    "the map overlaps a mapping that is still live: another domain's, or its unmap was lost",
  ],
  "unmaps a part of a mapping": [
    "note",
    "part",
    "the unmap takes a part out of a mapping; the rest stays mapped",
  ],
  "unmaps what is not mapped": [
    "error",
    "not-mapped",
    "the unmap covers nothing that is mapped, though the range was seen before; the event is left out",
  ],
  "driver removed another size than asked": [
    "note",
    "short-unmap",
    "the driver unmapped another size than asked; what it unmapped counts",
  ],
};

/** Collects the remarks on a recording that was read to its end. */
export function diagnosticsOf(file: string, reader: WorkloadReader): Diagnostic[] {
  const { notes } = reader;
  const remarks = readingRemarks(file, notes, reader.unusedEvents(), "warning");
  const add = (severity: Severity, code: string, message: string, line?: number) => {
    const remark = { severity, code: `replay/${code}`, message, file };
    remarks.push(line === undefined ? remark : { ...remark, line });
  };
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
      "the recording has no time: how long memory stays reachable is not known, nor when a flush queue is flushed",
    );
  }
  if (!reader.knowsCpus) {
    add(
      "note",
      "no-cpus",
      "the recording names no CPUs: everything runs on one, so per-CPU queues and caches act as one",
    );
  }
  if (reader.domains > 1) {
    add(
      "note",
      "domains-joined",
      `the recording has ${reader.domains} domains: they are replayed as one with a common flush queue`,
    );
  }
  if (reader.allocations.counts.oddities.has("overlaps a live mapping") && reader.domains <= 1) {
    add(
      "note",
      "domains-joined",
      "mappings overlap, so several domains may be in this recording: they are replayed as one",
    );
  }
}
