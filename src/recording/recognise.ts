/**
 * Tells the kind of a recording by its content, never by its name, from a stream that can be read
 * only once: the chunks that were looked at are given out again.
 */
import { StackError } from "../errors.ts";
import { kindOfLine, type RecordingKind, recordingKinds } from "./kinds.ts";
import { LINE_BYTES_MAX, LineSplitter } from "./line-splitter.ts";

/** Bytes in which a line of a known kind must stand. */
export const RECOGNISE_BYTES_MAX = 4 * 1024 * 1024;

/** A recording whose kind is known. */
export interface Recording {
  readonly kind: RecordingKind;
  /** All its bytes, from the first. */
  readonly chunks: AsyncIterable<Uint8Array>;
}

/** Looks at chunks until a line tells the kind. */
export class Recogniser {
  /** The kind, null while it is not known. */
  kind: RecordingKind | null = null;
  readonly #splitter = new LineSplitter(this);
  #bytes = 0;
  #longLines = 0;
  #oddOffset = -1;

  /** Bytes looked at. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Whether more bytes would help. */
  get wants(): boolean {
    return this.kind === null && this.#bytes < RECOGNISE_BYTES_MAX;
  }

  push(chunk: Uint8Array): void {
    if (this.#oddOffset < 0) {
      const odd = chunk.findIndex(isNoText);
      if (odd >= 0) this.#oddOffset = this.#bytes + odd;
    }
    this.#bytes += chunk.length;
    this.#splitter.push(chunk);
  }

  end(): void {
    this.#splitter.end();
  }

  /** {@link LineSink.line} */
  line(bytes: Uint8Array, start: number, end: number): void {
    if (this.kind === null && start < end) this.kind = kindOfLine(bytes, start, end);
  }

  /** {@link LineSink.longLine} */
  longLine(): void {
    this.#longLines += 1;
  }

  /** Why no kind was found. */
  error(file: string): StackError {
    if (this.#bytes === 0) {
      return new StackError({
        code: "recording/empty",
        kind: "input",
        message: "The file is empty",
        at: { file, offset: 0 },
        hint: "a recording of nothing still has a header; was the recorder stopped too early?",
      });
    }
    const isText = this.#oddOffset < 0;
    const hasLongLines = this.#longLines > 0 || this.#splitter.lines === 0;
    const what =
      hasLongLines && isText
        ? `lines are longer than ${LINE_BYTES_MAX} bytes`
        : isText
          ? `none of its first ${this.#splitter.lines} lines is known`
          : "it is not text";
    return new StackError({
      code: "recording/unknown-kind",
      kind: "input",
      message: `This is no recording that can be read: ${what}`,
      at: isText ? { file, line: 1 } : { file, offset: this.#oddOffset },
      hint: `known are: ${recordingKinds.map((kind) => kind.title).join("; ")}`,
    });
  }
}

/** Bytes that text does not hold: NUL and the like. */
function isNoText(byte: number): boolean {
  return byte < 0x20 && byte !== 0x09 && byte !== 0x0a && byte !== 0x0d && byte !== 0x1b;
}

/**
 * Finds the kind of a recording.
 *
 * @param file - its name, for messages
 * @throws StackError `recording/empty` or `recording/unknown-kind`
 */
export async function recognise(
  file: string,
  chunks: AsyncIterable<Uint8Array>,
): Promise<Recording> {
  const source = chunks[Symbol.asyncIterator]();
  const recogniser = new Recogniser();
  const head: Uint8Array[] = [];
  let done = false;
  while (recogniser.wants && !done) {
    const next = await source.next();
    done = next.done === true;
    if (next.done !== true) {
      // The chunk may be reused by its producer once the next one is asked for.
      const chunk = next.value.slice();
      head.push(chunk);
      recogniser.push(chunk);
    }
  }
  if (done) recogniser.end();
  if (recogniser.kind === null) {
    await source.return?.();
    throw recogniser.error(file);
  }
  return { kind: recogniser.kind, chunks: resumed(head, source, done) };
}

async function* resumed(
  head: readonly Uint8Array[],
  source: AsyncIterator<Uint8Array>,
  done: boolean,
): AsyncGenerator<Uint8Array, void, undefined> {
  let ended = done;
  try {
    yield* head;
    while (!ended) {
      const next = await source.next();
      ended = next.done === true;
      if (next.done !== true) yield next.value;
    }
  } finally {
    if (!ended) await source.return?.();
  }
}
