/**
 * The two kinds of error that are thrown: an operating error is a {@link StackError}, which the
 * edge turns into a message and an exit status; a programmer error is an {@link AssertionError}.
 * Modelled faults (a denied access, an errno, a virtio status) are values and never thrown.
 */

/** Where in an input an error lies. Lines and columns count from 1, offsets from 0. */
export interface Position {
  readonly file: string;
  readonly line?: number;
  readonly column?: number;
  readonly offset?: number;
}

/** What sort of failure a code stands for; the command line maps it to an exit status. */
export type ErrorKind = "usage" | "input" | "internal";

/** The parts of an operating error. `code` is public interface: `room/what-happened`. */
export interface StackErrorInfo {
  readonly code: `${string}/${string}`;
  readonly kind: ErrorKind;
  /** What happened, in sentence form without a full stop. */
  readonly message: string;
  readonly at?: Position;
  /** The next step for the person who reads it. */
  readonly hint?: string;
  readonly cause?: unknown;
}

/** A failure that outside input or the operating system causes: typed, positioned, with a hint. */
export class StackError extends Error {
  readonly code: string;
  readonly kind: ErrorKind;
  readonly at: Position | undefined;
  readonly hint: string | undefined;

  constructor(info: StackErrorInfo) {
    super(info.message, info.cause === undefined ? undefined : { cause: info.cause });
    this.name = "StackError";
    this.code = info.code;
    this.kind = info.kind;
    this.at = info.at;
    this.hint = info.hint;
  }
}

/** A mistake of this program, not of its input. */
export class AssertionError extends Error {
  override readonly name = "AssertionError";
}

/** Stops the program when something that must hold does not. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new AssertionError(message);
}

/** Marks a branch that the types rule out. */
export function unreachable(value: never): never {
  throw new AssertionError(`unhandled variant ${String(value)}`);
}

/**
 * Prints a position as tools that jump to it expect.
 *
 * @example
 * positionText({ file: "trace.txt", line: 12, column: 3 }); // "trace.txt:12:3"
 */
export function positionText(at: Position): string {
  if (at.line !== undefined) {
    return at.column === undefined ? `${at.file}:${at.line}` : `${at.file}:${at.line}:${at.column}`;
  }
  return at.offset === undefined ? at.file : `${at.file}+0x${at.offset.toString(16)}`;
}

/**
 * Text of an input as a person may see it: what moves a cursor, colours or turns round is a `?`.
 * Line feeds and tabs stay.
 */
export function plainText(text: string): string {
  return text.replace(/(?![\n\t])\p{Cc}|[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu, "?");
}
