/**
 * Verifies recorded VFIO mappings of device memory and of anonymous memory: each is mapped through a
 * container of ours, and the calls of iommu_map that come of it must be those of the recording.
 *
 * Two things are the recorded machine's and are taken from its map events: where the BAR lies, and
 * which frames the anonymous memory got, page by page. How pages become calls is ours to find out.
 * Without map events only what the calls returned is compared.
 */
import { errnoName } from "../../errno.ts";
import { addressOf, hex, PFN_LAST } from "../../units.ts";
import type { FrameRun } from "../../vfio/process/frame-source.ts";
import {
  CALLS_MAX,
  type CallEvents,
  type EventsOfCalls,
  eventsOfCalls,
  type MapEvents,
} from "../map-events.ts";
import { MapTimeReader, type RecordedBar, type TimedMapping } from "../vfio-map-time.ts";
import type { Checker, CheckOutcome } from "./checker.ts";
import { readingRemarks } from "./reading-remarks.ts";
import { type MappedRuns, mapRecorded, PAGES_MAX } from "./recorded-mapping.ts";
import { type Diagnostic, RowTally } from "./result.ts";

/** Where the recorded program maps, when no event tells. */
const IOVA_PFN = 0x100_0000;
const FRAME_PFN = 0x10_0000;

/** A trace that may belong to the recording. */
export interface MapEventsFile {
  readonly file: string;
  readonly events: MapEvents;
}

/** An event in the words of a row. */
interface EventText {
  readonly line: number;
  readonly text: string;
}

/** The verifier. */
export class VfioMapTimeChecker implements Checker {
  readonly #file: string;
  readonly #tally = new RowTally();
  readonly #reader = new MapTimeReader(this);
  readonly #mappings: TimedMapping[] = [];
  #bar: RecordedBar | null = null;
  #dropped = 0;
  #isRead = false;
  /** Lines of mappings that cannot be rebuilt. */
  readonly #skipped: number[] = [];
  #trace: MapEventsFile | null = null;
  #events: EventsOfCalls | null = null;
  /** Whether the trace tells of unmaps as well. */
  #hasUnmaps = false;

  constructor(file: string) {
    this.#file = file;
  }

  push(chunk: Uint8Array): void {
    this.#reader.push(chunk);
  }

  get lines(): number {
    return this.#reader.notes.events;
  }

  /** {@link MapTimeSink.bar} */
  bar(bar: RecordedBar): void {
    this.#bar ??= bar;
  }

  /** {@link MapTimeSink.mapping} */
  mapping(mapping: TimedMapping): void {
    if (this.#mappings.length < CALLS_MAX) this.#mappings.push(mapping);
    else this.#dropped += 1;
  }

  /**
   * Offers a trace. Of all that are offered the one is taken that explains most calls, then the one
   * with the fewest others; of two runs of the same program the one whose name is more alike.
   */
  offer(trace: MapEventsFile): void {
    this.#finishReading();
    const sizes = this.#mappings.map(({ errno, pages }) => (errno === 0 ? pages : 0));
    const events = eventsOfCalls(trace.events, sizes);
    // Sizes of a few calls are met by chance in any trace.
    const isLikely = events.found * 2 >= sizes.filter((pages) => pages > 0).length;
    if (events.found === 0 || !isLikely || !this.#isBetter(trace, events)) return;
    this.#events = events;
    this.#trace = trace;
    this.#hasUnmaps = hasUnmaps(trace.events, events);
  }

  #isBetter({ file }: MapEventsFile, events: EventsOfCalls): boolean {
    const best = this.#events;
    if (best === null) return true;
    if (events.found !== best.found) return events.found > best.found;
    if (events.left !== best.left) return events.left < best.left;
    return commonStart(file, this.#file) > commonStart(this.#trace!.file, this.#file);
  }

  /** The trace that was taken, and the task in it that made the calls. */
  get events(): { readonly file: string; readonly task: number } | null {
    if (this.#trace === null || this.#events === null) return null;
    return { file: this.#trace.file, task: this.#events.task };
  }

  end(): CheckOutcome {
    this.#finishReading();
    for (const [index, mapping] of this.#mappings.entries()) {
      this.#verify(mapping, this.#events?.calls[index] ?? null);
    }
    return {
      tally: this.#tally,
      inferredBefore: 0,
      lostEvents: 0,
      lostMarkers: 0,
      diagnostics: [...readingRemarks(this.#file, this.#reader.notes, []), ...this.#traceRemarks()],
    };
  }

  /** The last line may have no end. */
  #finishReading(): void {
    if (!this.#isRead) this.#reader.end();
    this.#isRead = true;
  }

  #verify(mapping: TimedMapping, found: CallEvents | null): void {
    const ours = this.#mapOurs(mapping, found);
    if (ours === null) return;
    const isSame =
      ours.errno === mapping.errno &&
      (mapping.unmapErrno === null || ours.unmapErrno === mapping.unmapErrno) &&
      (mapping.unmappedPages === null || ours.unmappedPages === mapping.unmappedPages);
    if (isSame) this.#tally.match();
    else {
      this.#tally.diverge(mapping.line, null, () => [
        answerText(mapping, mapping.errno, mapping.unmapErrno ?? 0, mapping.unmappedPages ?? 0),
        answerText(mapping, ours.errno, ours.unmapErrno, ours.unmappedPages),
        mappingText(mapping),
      ]);
    }
    if (found !== null) this.#compareEvents(mapping, found, ours);
  }

  /** What our container does; null for memory that is not like that of a process. */
  #mapOurs(mapping: TimedMapping, found: CallEvents | null): MappedRuns | null {
    const { kind, pages } = mapping;
    if (pages > PAGES_MAX[kind] || (kind === "bar" && this.#bar === null)) {
      this.#skipped.push(mapping.line);
      return null;
    }
    const runs = found === null ? [{ pfn: FRAME_PFN, pages }] : this.#framesOf(found);
    const isPlausible = kind === "bar" || areFrames(runs);
    if (!isPlausible) {
      this.#skipped.push(mapping.line);
      return null;
    }
    const iovaPfn = found === null ? IOVA_PFN : this.#trace!.events.iovaPfns[found.first]!;
    return mapRecorded({
      iovaPfn,
      pages,
      isHuge: mapping.isHuge ?? false,
      memory:
        kind === "bar" ? { kind, pfn: runs[0]!.pfn, barPages: this.#bar!.pages } : { kind, runs },
    });
  }

  #framesOf({ first, end }: CallEvents): FrameRun[] {
    const { physPfns, pages } = this.#trace!.events;
    const runs: FrameRun[] = [];
    for (let index = first; index < end; index += 1) {
      if (physPfns[index]! >= 0 && pages[index]! > 0) {
        runs.push({ pfn: physPfns[index]!, pages: pages[index]! });
      }
    }
    return runs;
  }

  /** Events of a mapping against the calls of iommu_map and iommu_unmap that we made, in order. */
  #compareEvents(mapping: TimedMapping, found: CallEvents, ours: MappedRuns): void {
    const { lines, pages, physPfns, tasks } = this.#trace!.events;
    const { task } = this.#events!;
    const texts = { maps: [] as EventText[], unmaps: [] as EventText[] };
    for (let index = found.first; index < found.unmapEnd; index += 1) {
      if (tasks[index] !== task) continue;
      const line = lines[index]!;
      const isMap = physPfns[index]! >= 0;
      const text = isMap ? mapText(pages[index]!, physPfns[index]!) : unmapText(pages[index]!);
      if (isMap || index >= found.end) texts[isMap ? "maps" : "unmaps"].push({ line, text });
    }
    const maps = ours.runs.map((run) => mapText(run.pages, run.physPfn));
    this.#compareTexts(mapping, texts.maps, maps);
    // A trace of iommu:map alone says nothing about unmapping.
    if (this.#hasUnmaps) this.#compareTexts(mapping, texts.unmaps, ours.unmaps.map(unmapText));
  }

  #compareTexts(
    mapping: TimedMapping,
    recorded: readonly EventText[],
    ours: readonly string[],
  ): void {
    for (const [rank, { line, text }] of recorded.entries()) {
      const got = ours[rank] ?? "no further call";
      if (got === text) this.#tally.match();
      else {
        const where = `event at line ${line} of ${this.#trace!.file}`;
        const row = [text, got, `${mappingText(mapping)}, ${where}`] as const;
        this.#tally.diverge(mapping.line, null, () => row);
      }
    }
    const more = ours.length - recorded.length;
    if (more <= 0) return;
    const got = `${more} more, first ${ours[recorded.length]}`;
    const row = ["no further call", got, mappingText(mapping)] as const;
    this.#tally.diverge(mapping.line, null, () => row);
  }

  #traceRemarks(): Diagnostic[] {
    const remarks: Diagnostic[] = [];
    const say = (severity: "note" | "warning", message: string, line?: number) =>
      remarks.push({
        severity,
        code: "verify/map-events",
        message,
        file: this.#file,
        ...(line === undefined ? {} : { line }),
      });
    const succeeded = this.#mappings.filter(({ errno, pages }) => errno === 0 && pages > 0);
    if (this.#events === null && succeeded.length > 0) {
      remarks.push({
        severity: "note",
        code: "verify/map-events",
        message:
          "no trace on the command line holds the map events of these calls, so their sizes are not compared",
        file: this.#file,
        hint: "give the ftrace text of iommu:map of the same run as a further file",
      });
    } else if (this.#events !== null) {
      say("note", `map events are those of task ${this.#events.task} in ${this.#trace!.file}`);
      const missing = succeeded.length - this.#events.found;
      if (missing > 0)
        say("warning", `${missing} mappings have no map events that make up their size`);
      const { dropped } = this.#trace!.events;
      if (dropped > 0) say("warning", `${dropped} events of ${this.#trace!.file} are left out`);
    }
    if (this.#dropped > 0)
      say("warning", `${this.#dropped} mappings past the first ${CALLS_MAX} are left out`);
    if (this.#skipped.length > 0) {
      const what = "a mapping is left out, here first, because no memory of a process is like that";
      say("warning", `${what}: ${this.#skipped.length} in all`, this.#skipped[0]!);
    }
    return remarks;
  }
}

/** Letters in which two names begin alike. */
function commonStart(a: string, b: string): number {
  let count = 0;
  while (count < a.length && a[count] === b[count]) count += 1;
  return count;
}

/** Whether a trace holds unmap events of the task that made the calls. */
function hasUnmaps({ tasks, physPfns }: MapEvents, { task, calls }: EventsOfCalls): boolean {
  for (const call of calls) {
    for (let index = call?.end ?? 0; index < (call?.unmapEnd ?? 0); index += 1) {
      if (tasks[index] === task && physPfns[index]! < 0) return true;
    }
  }
  return false;
}

/** Whether frames can be those of a process: inside the space, and none of them twice. */
function areFrames(runs: readonly FrameRun[]): boolean {
  const sorted = [...runs].sort((a, b) => a.pfn - b.pfn);
  return sorted.every(({ pfn, pages }, index) => {
    const next = sorted[index + 1];
    return (
      pfn >= 1 && pfn + pages - 1 <= PFN_LAST && (next === undefined || pfn + pages <= next.pfn)
    );
  });
}

function mapText(pages: number, physPfn: number): string {
  return `map of ${hex(addressOf(pages))} bytes at ${hex(addressOf(physPfn))}`;
}

function unmapText(pages: number): string {
  return `unmap of ${hex(addressOf(pages))} bytes`;
}

function mappingText({ kind, isHuge, pages }: TimedMapping): string {
  const huge = isHuge === true ? " with huge pages" : "";
  return `${kind === "bar" ? "BAR" : "anonymous memory"}${huge}, ${hex(addressOf(pages))} bytes`;
}

function answerText(
  mapping: TimedMapping,
  errno: number,
  unmapErrno: number,
  unmappedPages: number,
): string {
  const parts = [`map ${errnoName(errno)}`];
  if (mapping.unmapErrno !== null) parts.push(`unmap ${errnoName(unmapErrno)}`);
  if (mapping.unmappedPages !== null) parts.push(`unmapped ${hex(addressOf(unmappedPages))}`);
  return parts.join(", ");
}
