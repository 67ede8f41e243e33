/**
 * The lines of a fio job file: sections with their options in order, each with its position.
 *
 * Source: fio's HOWTO, "Job file format"; behaviour checked against fio 3.33: a semicolon or hash
 * starts a comment anywhere, blanks before a name and after a value do not count, a name without a
 * value is a switch, and what stands before the first section is an error.
 */
import { type Position, plainText, StackError } from "../../errors.ts";

/** Bytes of a job file. */
export const JOB_FILE_BYTES_MAX = 1024 * 1024;
/** Sections and options of a job file, together. */
export const JOB_ITEMS_MAX = 10_000;

/** One option. */
export interface JobOption {
  readonly name: string;
  /** Null for a switch without a value. */
  readonly value: string | null;
  readonly at: Position;
  /** Where the value starts, or the name of a switch. */
  readonly valueAt: Position;
}

/** One section. */
export interface JobSection {
  readonly name: string;
  readonly at: Position;
  readonly options: readonly JobOption[];
}

/**
 * Splits a job file.
 *
 * @param file - its name, for messages
 * @throws StackError `fio/…` with the line and column
 */
export function jobSections(text: string, file: string): JobSection[] {
  if (text.length > JOB_FILE_BYTES_MAX) {
    throw problem("too-long", `A job file has at most ${JOB_FILE_BYTES_MAX} bytes`, { file });
  }
  const sections: { name: string; at: Position; options: JobOption[] }[] = [];
  let items = 0;
  for (const [index, raw] of text.split("\n").entries()) {
    const line = raw.replace(/[;#].*$/s, "").trimEnd();
    const content = line.trimStart();
    if (content === "") continue;
    items += 1;
    const at = { file, line: index + 1, column: line.length - content.length + 1 };
    if (items > JOB_ITEMS_MAX) {
      throw problem("too-many", `A job file has at most ${JOB_ITEMS_MAX} sections and options`, at);
    }
    if (content.startsWith("[")) {
      sections.push({ name: sectionName(content, at), at, options: [] });
      continue;
    }
    const section = sections.at(-1);
    if (section === undefined) {
      throw problem("no-section", `The option ${shown(content)} stands before any section`, at, {
        hint: "start with a line such as [global] or [job1]",
      });
    }
    if (/^include\s/.test(content)) {
      throw problem("include", `${shown(content)} is not followed`, at, {
        hint: "put the lines of that file in its place",
      });
    }
    if (/\$\{\w+\}/.test(content)) {
      throw problem("variable", `${shown(content)} names a variable of fio's environment`, at, {
        hint: "write its value: the environment is not looked at, so that runs can be repeated",
      });
    }
    section.options.push(option(content, at));
  }
  return sections;
}

function sectionName(content: string, at: Position): string {
  const end = content.indexOf("]");
  const name = content.slice(1, end).trim();
  if (end < 0 || name === "") {
    throw problem("bad-section", `${shown(content)} is no section`, at, {
      hint: "write [name]",
    });
  }
  return plainText(name);
}

function option(content: string, at: Position): JobOption {
  const equals = content.indexOf("=");
  if (equals < 0) return { name: content, value: null, at, valueAt: at };
  const name = content.slice(0, equals);
  const value = content.slice(equals + 1);
  if (name.trim() !== name || value.trim() !== value) {
    throw problem("blank-at-equals", `${shown(content)} has a blank beside the equals sign`, at, {
      hint: `fio refuses it; write ${name.trim()}=${value.trim()}`,
    });
  }
  const column = (at.column ?? 1) + equals + 1;
  return { name, value, at, valueAt: { ...at, column } };
}

/** Text of the file as a message shows it. */
export function shown(text: string): string {
  const clean = plainText(text).replace(/[\n\t]/g, "?");
  return clean.length > 40 ? `${clean.slice(0, 40)}…` : clean;
}

/** An error of a job file. */
export function problem(
  code: string,
  message: string,
  at: Position,
  more: { hint?: string } = {},
): StackError {
  return new StackError({ code: `fio/${code}`, kind: "input", message, at, ...more });
}
