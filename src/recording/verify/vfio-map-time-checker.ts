/**
 * Verifies recorded VFIO mappings of device memory and of anonymous memory: each is mapped through a
 * container of ours, and the calls of iommu_map that come of it must be those of the recording.
 *
 * Two things are the recorded machine's and are taken from its map events: where the BAR lies, and
 * which frames the anonymous memory got, page by page. How pages become calls is ours to find out.
 * Without map events only what the calls returned is compared.
 */
import { addressOf, hex } from "../../units.ts";
import type { FrameRun } from "../../vfio/process/frame-source.ts";
import {
  CALLS_MAX,
  type CallEvents,
  type EventsOfCalls,
  eventsOfCalls,
  isBetter,
  isInWindow,
  type OrphanEvents,
  type TaskWindow,
} from "../events-of-calls.ts";
import type { MapEvents } from "../map-events.ts";
import { MapTimeReader, type RecordedBar, type TimedMapping } from "../vfio-map-time.ts";
import type { Checker, CheckOutcome } from "./checker.ts";
import { readingRemarks } from "./reading-remarks.ts";
import { type MappedRuns, mapRecorded, PAGES_MAX } from "./recorded-mapping.ts";
import { type Diagnostic, RowTally } from "./result.ts";
import {
  answerText,
  areFrames,
  commonStart,
  type EventText,
  hasUnmaps,
  mappingText,
  mapText,
  unmapText,
} from "./vfio-map-time-text.ts";
import type { RecordingWaiverName } from "./waivers.ts";

/** Where the recorded program maps, when no event tells. */
const IOVA_PFN = 0x100_0000;
const FRAME_PFN = 0x10_0000;
/** VFIO_REGION_INFO_FLAG_MMAP */
const REGION_MMAP = 4;

/** A trace that may belong to the recording. */
export interface MapEventsFile {
  readonly file: string;
  readonly events: MapEvents;
}

/** A mapping, and the BAR that the recording told of before it. */
interface MappingOfBar {
  readonly mapping: TimedMapping;
  readonly bar: RecordedBar | null;
}

/** The verifier. */
export class VfioMapTimeChecker implements Checker {
  readonly #file: string;
  readonly #tally = new RowTally();
  readonly #reader = new MapTimeReader(this);
  readonly #mappings: MappingOfBar[] = [];
  #bar: RecordedBar | null = null;
  #dropped = 0;
  #isRead = false;
  /** Lines of mappings that cannot be rebuilt. */
  readonly #skipped: number[] = [];
  #trace: MapEventsFile | null = null;
  #events: EventsOfCalls | null = null;
  /** Whether the trace tells of unmaps as well. */
  #hasUnmaps = false;
  /** Where each BAR lies. */
  readonly #barPfns = new Map<RecordedBar | null, number>();
  /** Events that were compared, one by one. */
  #comparedEvents = 0;
  /** The first trace whose events make up too few of the calls. */
  #refused: string | null = null;

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
    this.#bar = bar;
  }

  /** {@link MapTimeSink.mapping} */
  mapping(mapping: TimedMapping): void {
    if (this.#mappings.length < CALLS_MAX) this.#mappings.push({ mapping, bar: this.#bar });
    else this.#dropped += 1;
  }

  /**
   * Offers a trace. Of all that are offered the one is taken that explains most calls, then the one
   * with the fewest others; of two runs of the same program the one whose name is more alike.
   */
  offer(trace: MapEventsFile): void {
    this.#finishReading();
    const sizes = this.#mappings.map(({ mapping: { errno, pages } }) => (errno === 0 ? pages : 0));
    const events = eventsOfCalls(trace.events, sizes);
    // Sizes of a few calls are met by chance in any trace.
    const wanted = sizes.filter((pages) => pages > 0).length;
    if (events === null || events.found * 2 < wanted) {
      if (trace.events.count > 0) this.#refused ??= trace.file;
      return;
    }
    if (!this.#isBetter(trace, events)) return;
    this.#events = events;
    this.#trace = trace;
    this.#hasUnmaps = hasUnmaps(trace.events, events);
  }

  #isBetter({ file }: MapEventsFile, events: EventsOfCalls): boolean {
    const best = this.#events;
    if (best === null || isBetter(events, best)) return true;
    if (isBetter(best, events)) return false;
    return commonStart(file, this.#file) > commonStart(this.#trace!.file, this.#file);
  }

  /** The trace that was taken, and which of its events are compared here. */
  get events(): { readonly file: string; readonly window: TaskWindow } | null {
    if (this.#trace === null || this.#events === null) return null;
    return { file: this.#trace.file, window: this.#events.window };
  }

  end(): CheckOutcome {
    this.#finishReading();
    this.#findBars();
    for (const [index, each] of this.#mappings.entries()) {
      const found = this.#events?.calls[index] ?? null;
      this.#verify(each, found?.isWhole === true ? found : null);
      const { errno, pages } = each.mapping;
      const isMade = errno === 0 && pages > 0 && this.#events !== null;
      if (isMade && found?.isWhole !== true) this.#divergeCall(index, found);
    }
    for (const orphans of this.#events?.orphans ?? []) this.#divergeOrphans(orphans);
    return {
      tally: this.#tally,
      inferredBefore: 0,
      lostEvents: 0,
      lostMarkers: 0,
      diagnostics: [
        ...readingRemarks(this.#file, this.#reader.notes, [], "error"),
        ...this.#traceRemarks(),
      ],
    };
  }

  /** The last line may have no end. */
  #finishReading(): void {
    if (!this.#isRead) this.#reader.end();
    this.#isRead = true;
  }

  /** A BAR lies where most of its calls say; one that says otherwise then differs. */
  #findBars(): void {
    const counts = new Map<RecordedBar | null, Map<number, number>>();
    for (const [index, { mapping, bar }] of this.#mappings.entries()) {
      const found = this.#events?.calls[index];
      if (mapping.kind !== "bar" || found?.isWhole !== true) continue;
      const pfn = this.#trace!.events.physPfns[found.first]!;
      const ofBar = counts.get(bar) ?? new Map<number, number>();
      counts.set(bar, ofBar.set(pfn, (ofBar.get(pfn) ?? 0) + 1));
    }
    for (const [bar, ofBar] of counts) {
      const most = [...ofBar].reduce((a, b) => (b[1] > a[1] ? b : a));
      this.#barPfns.set(bar, most[0]);
    }
  }

  /** @param found - events that make up the mapping, null to compare without */
  #verify(each: MappingOfBar, found: CallEvents | null): void {
    const { mapping, bar } = each;
    if (mapping.pages > PAGES_MAX[mapping.kind] || (mapping.kind === "bar" && bar === null)) {
      this.#skipped.push(mapping.line);
      return;
    }
    const runs = found === null ? null : this.#framesOf(found);
    if (runs !== null && mapping.kind === "anon" && !areFrames(runs)) {
      this.#divergeFrames(mapping, found!);
      this.#verify(each, null);
      return;
    }
    const ours = this.#mapOurs(each, found, runs);
    const isSame =
      ours.errno === mapping.errno &&
      (mapping.unmapErrno === null || ours.unmapErrno === mapping.unmapErrno) &&
      (mapping.unmapped === null || ours.unmapped === mapping.unmapped);
    if (isSame) this.#tally.match();
    else {
      this.#tally.diverge(mapping.line, null, () => [
        answerText(mapping, mapping.errno, mapping.unmapErrno ?? 0, mapping.unmapped ?? 0n),
        answerText(mapping, ours.errno, ours.unmapErrno, ours.unmapped),
        mappingText(mapping),
      ]);
    }
    if (found !== null) this.#compareEvents(mapping, found, ours);
  }

  /** What our container does. */
  #mapOurs(
    { mapping, bar }: MappingOfBar,
    found: CallEvents | null,
    frames: readonly FrameRun[] | null,
  ): MappedRuns {
    const { kind, pages } = mapping;
    const runs = frames ?? [{ pfn: FRAME_PFN, pages }];
    const pfn = this.#barPfns.get(bar) ?? FRAME_PFN;
    return mapRecorded({
      iovaPfn: found === null ? IOVA_PFN : this.#trace!.events.iovaPfns[found.first]!,
      pages,
      isHuge: mapping.isHuge ?? false,
      memory:
        kind === "bar"
          ? { kind, pfn, barPages: bar!.pages, isMappable: (bar!.flags & REGION_MMAP) !== 0 }
          : { kind, runs },
    });
  }

  #divergeFrames(mapping: TimedMapping, found: CallEvents): void {
    const { lines } = this.#trace!.events;
    this.#tally.diverge(mapping.line, null, () => [
      `map events from line ${lines[found.first]} to ${lines[found.end - 1]} of ${this.#trace!.file}`,
      "frames that are no memory of a process: past the end, frame 0, or one of them twice",
      mappingText(mapping),
    ]);
  }

  /** A call whose events are missing, or do not make up its size. */
  #divergeCall(index: number, found: CallEvents | null): void {
    const { mapping } = this.#mappings[index]!;
    const { file, events } = this.#trace!;
    const waivers = this.#waivers(this.#endOf(index), index < this.#events!.callsBefore);
    this.#tally.diverge(mapping.line, waivers, () => {
      const got = `calls of iommu_map that make up ${hex(addressOf(mapping.pages))} bytes`;
      if (found === null) return [`no event in ${file}`, got, mappingText(mapping)];
      const { at, pages, count } = this.#firstOdd(found, mapping.pages);
      const where =
        at < 0
          ? `they end at line ${events.lines[found.end - 1]}`
          : `line ${events.lines[at]} does not fit`;
      const expected = `${count} events of ${hex(addressOf(pages))} bytes in ${file}: ${where}`;
      return [expected, got, mappingText(mapping)];
    });
  }

  /** Events of a call that do not make it up: the first that does not fit, −1 if all do. */
  #firstOdd(found: CallEvents, wanted: number): { at: number; pages: number; count: number } {
    const { events } = this.#trace!;
    let [at, total, count] = [-1, 0, 0];
    const start = events.iovaPfns[found.first]!;
    for (let index = found.first; index < found.end; index += 1) {
      if (!isInWindow(events, this.#events!.window, index)) continue;
      count += 1;
      const isMap = events.physPfns[index]! >= 0;
      const isNext = isMap && events.iovaPfns[index] === start + total;
      if (isMap) total += events.pages[index]!;
      if (at < 0 && (!isNext || total > wanted)) at = index;
    }
    return { at, pages: total, count };
  }

  #divergeOrphans({ first, count, afterCall }: OrphanEvents): void {
    const { file, events } = this.#trace!;
    const { callsBefore } = this.#events!;
    const waivers = this.#waivers(events.lines[first]!, callsBefore > 0 && afterCall < callsBefore);
    const line = this.#mappings[Math.max(0, afterCall)]!.mapping.line;
    this.#tally.diverge(line, waivers, () => {
      const more = count === 1 ? "" : `, and ${count - 1} more`;
      const what = `event at line ${events.lines[first]} of ${file}${more}`;
      return [this.#eventText(first), "no call that makes it", what];
    });
  }

  /** First line behind the events of a call. */
  #endOf(index: number): number {
    const { lines } = this.#trace!.events;
    const next = this.#events!.calls.find((call, at) => at > index && call !== null);
    return next === undefined || next === null ? Number.POSITIVE_INFINITY : lines[next.first]!;
  }

  /** What excuses a row: the trace says that events are missing above a line, or begins later. */
  #waivers(line: number, isBefore: boolean): readonly RecordingWaiverName[] | null {
    const { firstLostLine } = this.#trace!.events;
    if (firstLostLine > 0 && firstLostLine <= line) return ["trace-lost-events"];
    return isBefore ? ["trace-begins-later"] : null;
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
    const { events } = this.#trace!;
    const texts = { maps: [] as EventText[], unmaps: [] as EventText[] };
    for (let index = found.first; index < found.unmapEnd; index += 1) {
      if (!isInWindow(events, this.#events!.window, index)) continue;
      const isMap = events.physPfns[index]! >= 0;
      const row = { line: events.lines[index]!, text: this.#eventText(index) };
      texts[isMap ? "maps" : "unmaps"].push(row);
    }
    const maps = ours.runs.map((run) => mapText(run.pages, run.physPfn));
    this.#compareTexts(mapping, texts.maps, maps);
    // A trace of iommu:map alone says nothing about unmapping.
    const unmaps = ours.unmaps.map((each) =>
      unmapText(each.pages, each.iovaPfn, each.pages * 4096),
    );
    if (this.#hasUnmaps) this.#compareTexts(mapping, texts.unmaps, unmaps);
  }

  #eventText(index: number): string {
    const { iovaPfns, physPfns, pages, doneBytes } = this.#trace!.events;
    return physPfns[index]! < 0
      ? unmapText(pages[index]!, iovaPfns[index]!, doneBytes[index]!)
      : mapText(pages[index]!, physPfns[index]!);
  }

  #compareTexts(
    mapping: TimedMapping,
    recorded: readonly EventText[],
    ours: readonly string[],
  ): void {
    this.#comparedEvents += recorded.length;
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
    const say = (severity: Diagnostic["severity"], message: string, line?: number) =>
      remarks.push({
        severity,
        code: "verify/map-events",
        message,
        file: this.#file,
        ...(line === undefined ? {} : { line }),
      });
    const made = this.#mappings.filter(({ mapping: { errno, pages } }) => errno === 0 && pages > 0);
    if (this.#events === null && made.length > 0) {
      const isRefused = this.#refused !== null;
      const what = isRefused
        ? `the map events of ${this.#refused} do not make up these calls, nor do those of another trace on the command line`
        : "no trace on the command line holds the map events of these calls";
      remarks.push({
        severity: isRefused ? "warning" : "note",
        code: "verify/map-events",
        message: `${what}, so of ${made.length} mappings only what the calls returned is compared`,
        file: this.#file,
        hint: "give the ftrace text of iommu:map of the same run as a further file",
      });
    } else if (this.#events !== null) {
      const { window, found } = this.#events;
      const where = `task ${window.task} in ${this.#trace!.file}`;
      say(
        "note",
        `map events are those of ${where}: ${this.#comparedEvents} events of ${found} mappings are compared`,
      );
      const missing = made.length - found;
      if (missing > 0)
        say("warning", `${missing} mappings have no map events that make up their size`);
      const { dropped } = this.#trace!.events;
      if (dropped > 0) say("warning", `${dropped} events of ${this.#trace!.file} are left out`);
    }
    if (this.#dropped > 0)
      say("error", `${this.#dropped} mappings past the first ${CALLS_MAX} are left out`);
    if (this.#skipped.length > 0) {
      const what = "a mapping is left out, here first, because it is too large or of no known BAR";
      say("error", `${what}: ${this.#skipped.length} in all`, this.#skipped[0]!);
    }
    return remarks;
  }
}
