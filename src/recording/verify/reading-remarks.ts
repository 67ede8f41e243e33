/** What a reader noticed, as diagnostics of the recording: unusable lines, lost events, the rest. */
import type { LineNote, LineProblem, ReadingNotes } from "../notes.ts";
import type { Diagnostic } from "./result.ts";

/** Lines of one sort that are listed; the rest is summed up. */
const LISTED_MAX = 5;

const problemTexts: Record<LineProblem, string> = {
  torn: "the line cannot be read: it is torn or mixed with another",
  "too long": "the line is too long to be an event and is skipped",
  "range and size disagree": "the event's range and size disagree: the line is torn",
  "number too large": "a number of the event does not fit 64 bits",
  "a key stands twice": "a key stands twice in the line, which is skipped",
  "a field is missing or wrong":
    "a field is missing or holds what it cannot, and the line is skipped",
  "not an event": "the line is no event",
  "not a known row": "the line is no row of such a recording, and is skipped",
};

/**
 * Turns notes into diagnostics.
 *
 * @param unused - names of events that were counted but not used
 * @param unreadable - how grave a line is that cannot be used
 */
export function readingRemarks(
  file: string,
  notes: ReadingNotes,
  unused: readonly { readonly name: string; readonly count: number }[],
  unreadable: "warning" | "error",
): Diagnostic[] {
  const remarks: Diagnostic[] = [];
  for (const note of notes.unreadableLines.slice(0, LISTED_MAX)) {
    const { line, problem } = note;
    // A recorder that is stopped cuts its last line; QEMU writes its messages to the same log.
    const isCut = problem === "torn" && line === notes.lines;
    const severity = isCut || problem === "not an event" ? "note" : unreadable;
    const message = isCut ? "the last line was cut" : problemText(note);
    remarks.push({ severity, code: "recording/bad-line", message, file, line });
  }
  const more = notes.unreadable - Math.min(notes.unreadableLines.length, LISTED_MAX);
  if (more > 0) {
    const message = `${more} more lines cannot be used`;
    remarks.push({ severity: unreadable, code: "recording/bad-line", message, file });
  }
  remarks.push(...lossRemarks(file, notes));
  if (notes.backwards > 0) {
    remarks.push({
      severity: "warning",
      code: "recording/time-backwards",
      message: `time runs backwards, here first, ${notes.backwards} times in all; the order of the lines counts`,
      file,
      line: notes.backwardsLine,
    });
  }
  if (notes.events === 0) {
    remarks.push({
      severity: "warning",
      code: "recording/no-events",
      message: "the recording holds no event that can be checked",
      file,
      hint: "were the events of the iommu system enabled?",
    });
  }
  if (unused.length > 0) {
    const listed = unused.slice(0, LISTED_MAX).map(({ name, count }) => `${name} (${count})`);
    const others = unused.length > LISTED_MAX ? `, and ${unused.length - LISTED_MAX} more` : "";
    const message = `events that are counted but not used: ${listed.join(", ")}${others}`;
    remarks.push({ severity: "note", code: "recording/unused-events", message, file });
  }
  return remarks;
}

/** Why a line cannot be used, in words. */
export function problemText({ problem, field }: LineNote): string {
  return field === undefined ? problemTexts[problem] : `${problemTexts[problem]}: ${field}`;
}

function lossRemarks(file: string, notes: ReadingNotes): Diagnostic[] {
  if (notes.lostMarkers === 0) return [];
  const count = notes.lostEvents > 0 ? `${notes.lostEvents} events` : "an unknown number of events";
  const places = notes.lostMarkers === 1 ? "1 place" : `${notes.lostMarkers} places`;
  return [
    {
      severity: "warning",
      code: "recording/lost-events",
      message: `the recorder lost ${count}, in ${places}, here first: what follows may not fit`,
      file,
      line: notes.lostLines[0]!,
      hint: "record with a larger buffer (buffer_size_kb, trace-cmd -b, perf -m)",
    },
  ];
}
