/**
 * What a reader noticed besides events: lines it could not read, events that the recorder says it
 * lost, time that ran backwards. Counted without bound, listed up to one.
 */

/** How many lines of each sort are listed; the rest is only counted. */
export const NOTES_LISTED_MAX = 100;

/** Why a line could not be used. */
export type LineProblem =
  | "torn"
  | "too long"
  | "range and size disagree"
  | "number too large"
  | "a key stands twice"
  | "a field is missing or wrong"
  | "not an event"
  | "not a known row";

/** One line that could not be used. */
export interface LineNote {
  readonly line: number;
  readonly problem: LineProblem;
  /** The field that is wrong, where a reader knows it. */
  readonly field?: string;
}

/** Counters of one recording. All are plain data. */
export class ReadingNotes {
  /** Lines read, comments and unusable ones included. */
  lines = 0;
  /** Events understood and given out. */
  events = 0;
  /** Lines that could not be used, in all. */
  unreadable = 0;
  /** The first of them. */
  readonly unreadableLines: LineNote[] = [];
  /** Events that the recording itself says are missing, where it gives a number. */
  lostEvents = 0;
  /** Markers of lost events, with or without a number. */
  lostMarkers = 0;
  /** The first lines that carry such a marker. */
  readonly lostLines: number[] = [];
  /** Events whose time lies before the event above them. */
  backwards = 0;
  /** The first of them, 0 if none. */
  backwardsLine = 0;

  unreadableLine(line: number, problem: LineProblem, field?: string): void {
    this.unreadable += 1;
    if (this.unreadableLines.length === NOTES_LISTED_MAX) return;
    this.unreadableLines.push({ line, problem, ...(field === undefined ? {} : { field }) });
  }

  /** @param count - how many events are gone, 0 when the recording does not say */
  lost(line: number, count: number): void {
    this.lostEvents += count;
    this.lostMarkers += 1;
    if (this.lostLines.length < NOTES_LISTED_MAX) this.lostLines.push(line);
  }
}
