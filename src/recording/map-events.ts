/**
 * Map and unmap events of a trace in columns, to be compared with the calls that caused them.
 *
 * A trace holds the events of every task; those of one call follow each other in its own.
 */
import { type TraceEvent, TraceKind } from "./trace-event.ts";
import { TraceTextReader } from "./trace-text.ts";

/** Events that are kept; a trace with more is read to there. */
export const MAP_EVENTS_MAX = 4_000_000;

const FIRST_CAPACITY = 4096;

/** The events. */
export class MapEvents {
  /** Lines of the trace. */
  lines: Float64Array = new Float64Array(FIRST_CAPACITY);
  tasks: Int32Array = new Int32Array(FIRST_CAPACITY);
  iovaPfns: Float64Array = new Float64Array(FIRST_CAPACITY);
  /** −1 for an unmap. */
  physPfns: Float64Array = new Float64Array(FIRST_CAPACITY);
  /** Of a map what was mapped, of an unmap what was asked for. */
  pages: Float64Array = new Float64Array(FIRST_CAPACITY);
  /** Of an unmap what it removed, in bytes; of a map the same as asked. */
  doneBytes: Float64Array = new Float64Array(FIRST_CAPACITY);
  count = 0;
  /** Events that no longer fitted, or are no whole pages. */
  dropped = 0;
  readonly #reader = new TraceTextReader((event) => this.#event(event));

  /** First line at which the trace says that events are missing, 0 when it does not. */
  get firstLostLine(): number {
    return this.#reader.notes.lostLines[0] ?? 0;
  }

  push(chunk: Uint8Array): void {
    this.#reader.push(chunk);
  }

  end(): void {
    this.#reader.end();
  }

  #event(event: TraceEvent): void {
    if (event.kind !== TraceKind.map && event.kind !== TraceKind.unmap) return;
    const isWhole = event.iovaOffset + event.physOffset + event.pagesRest === 0;
    if (this.count === MAP_EVENTS_MAX || !isWhole) {
      this.dropped += 1;
      return;
    }
    if (this.count === this.lines.length) this.#grow();
    const index = this.count;
    this.lines[index] = event.line;
    this.tasks[index] = event.pid;
    this.iovaPfns[index] = event.iovaPfn;
    this.physPfns[index] = event.kind === TraceKind.map ? event.physPfn : -1;
    this.pages[index] = event.pages;
    const isUnmap = event.kind === TraceKind.unmap;
    const done = isUnmap ? event.unmappedPages * 4096 + event.unmappedRest : event.pages * 4096;
    this.doneBytes[index] = done;
    this.count += 1;
  }

  #grow(): void {
    const capacity = Math.min(MAP_EVENTS_MAX, this.count * 2);
    const wider = (from: Float64Array): Float64Array => {
      const to = new Float64Array(capacity);
      to.set(from);
      return to;
    };
    this.lines = wider(this.lines);
    this.iovaPfns = wider(this.iovaPfns);
    this.physPfns = wider(this.physPfns);
    this.pages = wider(this.pages);
    this.doneBytes = wider(this.doneBytes);
    const tasks = new Int32Array(capacity);
    tasks.set(this.tasks);
    this.tasks = tasks;
  }
}
