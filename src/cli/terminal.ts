/**
 * The two output streams as a verb sees them: results to standard output in one piece, progress and
 * diagnostics to standard error.
 */
import { styleText } from "node:util";
import { plainText } from "../errors.ts";
import type { Style } from "../report/table.ts";

/** What a verb may do with the terminal. */
export interface Terminal {
  /** Columns that a table may use. */
  readonly width: number;
  /** Colours for standard output; plain where it is no terminal or colour is not wanted. */
  readonly style: Style;
  /** Writes a complete result to standard output. */
  print(text: string): void;
  /** Writes one diagnostic line to standard error. */
  note(text: string): void;
  /**
   * Shows how far the work is, from the second second on and only where a person looks on.
   *
   * @param share - 0 … 1, or `null` when the end is not known
   */
  progress(what: string, share: number | null): void;
}

/** A stream to write to, as `process.stdout` is one. */
export interface OutputStream {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

/** What the terminal needs of the process. */
export interface TerminalOptions {
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** A clock in milliseconds. */
  readonly now: () => number;
}

const WIDTH_DEFAULT = 80;
const WIDTH_MIN = 40;
const WIDTH_MAX = 160;
const PROGRESS_AFTER_MS = 1000;
const PROGRESS_EVERY_MS = 100;
// biome-ignore lint/suspicious/noControlCharactersInRegex: what styleText writes
const COLOUR = /(\u001b\[\d+m)/;
const CLEAR_LINE = "\r\u001b[2K";

const formatByRole = {
  title: "bold",
  heading: "dim",
  name: "cyan",
  quiet: "dim",
} as const;

/** The terminal of a process; {@link ProcessTerminal.clear} must be called before it is left. */
export class ProcessTerminal implements Terminal {
  readonly width: number;
  readonly style: Style;
  readonly #options: TerminalOptions;
  readonly #startMs: number;
  #shownMs = 0;
  #isShown = false;

  constructor(options: TerminalOptions) {
    this.#options = options;
    this.#startMs = options.now();
    const columns = Number(options.env.COLUMNS) || options.stdout.columns || WIDTH_DEFAULT;
    this.width = Math.min(WIDTH_MAX, Math.max(WIDTH_MIN, Math.floor(columns)));
    // styleText looks at NO_COLOR, FORCE_COLOR, TERM and the kind of the stream itself.
    this.style = (role, text) => (text === "" ? "" : styleText(formatByRole[role], text));
  }

  print(text: string): void {
    this.clear();
    const { stdout } = this.#options;
    stdout.write(stdout.isTTY === true ? exceptColours(text) : text);
  }

  note(text: string): void {
    this.clear();
    this.#options.stderr.write(`${plainText(text)}\n`);
  }

  progress(what: string, share: number | null): void {
    const { stderr, now } = this.#options;
    if (stderr.isTTY !== true) return;
    const nowMs = now();
    if (nowMs - this.#startMs < PROGRESS_AFTER_MS) return;
    if (nowMs - this.#shownMs < PROGRESS_EVERY_MS) return;
    this.#shownMs = nowMs;
    this.#isShown = true;
    const shown = share === null ? "" : ` ${bar(share)}`;
    stderr.write(`${CLEAR_LINE}${`${what}${shown}`.slice(0, this.width - 1)}`);
  }

  /** Removes the progress line. */
  clear(): void {
    if (!this.#isShown) return;
    this.#isShown = false;
    this.#options.stderr.write(CLEAR_LINE);
  }
}

/** Colours are our own; whatever else a terminal would obey is from an input. */
function exceptColours(text: string): string {
  return text
    .split(COLOUR)
    .map((part, at) => (at % 2 === 0 ? plainText(part) : part))
    .join("");
}

function bar(share: number): string {
  const cells = 24;
  const full = Math.min(cells, Math.max(0, Math.floor(share * cells)));
  const percent = Math.min(100, Math.floor(share * 100));
  return `[${"#".repeat(full)}${".".repeat(cells - full)}] ${percent} %`;
}
