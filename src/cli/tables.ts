/** The verb `tables`: firmware tables from a topology, and what is in tables. */
import { writeFileSync } from "node:fs";
import { suggestion } from "../config/nearest.ts";
import { StackError } from "../errors.ts";
import { decodeTable } from "../firmware/acpi/decode.ts";
import { deliver } from "../firmware/acpi/delivery.ts";
import { HEADER_BYTES } from "../firmware/acpi/header.ts";
import { acpiFamily } from "../firmware/acpi/kinds.ts";
import { defaultIds, idsOf, type TableIds } from "../firmware/acpi/table-writer.ts";
import { checkMachine } from "../firmware/check-machine.ts";
import type {
  DescriptionDocument,
  DescriptionFamily,
  DescriptionKind,
  DescriptionReading,
} from "../firmware/table-description.ts";
import { descriptionKinds, familyOf } from "../firmware/table-kinds.ts";
import { STDIN_PATH } from "../recording/node/file-source.ts";
import { renderFindings, renderTree } from "../report/tables-text.ts";
import type { Machine } from "../topology/machine.ts";
import { Exit } from "./problem.ts";
import { type InputFile, readBytes, readFiles } from "./tables-input.ts";
import type { Terminal } from "./terminal.ts";

/** File descriptor of the standard output. */
const STDOUT = 1;

/** Flags of `tables dump`. */
export interface DumpFlags {
  readonly json: boolean;
  readonly yaml: boolean;
}

/** Flags of `tables check`. */
export interface CheckFlags {
  readonly json: boolean;
  /** A topology file to hold the tables against. */
  readonly topology?: string;
  readonly strict: boolean;
}

/** Flags of `tables build`. */
export interface BuildFlags {
  /** Name of a kind of description. */
  readonly as: string;
  readonly output?: string;
  /** An existing table to take the header's ids from. */
  readonly like?: string;
}

/** What was read, and how many files of folders were left out. */
interface Readings {
  readonly readings: readonly DescriptionReading[];
  readonly skipped: number;
}

/**
 * Reads files, those of a family together, in the order in which the families first appear. A file
 * that was named must be a table; what merely stands in a folder is named and left out.
 */
async function readAll(
  words: readonly string[],
  terminal: Terminal,
  functions: Machine["functions"] = [],
): Promise<Readings> {
  const skipped: StackError[] = [];
  const files = await readFiles(words, (error) => skipped.push(error));
  const groups = new Map<DescriptionFamily, InputFile[]>();
  for (const file of files) {
    const family = orSkipped(file, skipped, () => familyOf(file));
    if (family === null) continue;
    groups.set(family, [...(groups.get(family) ?? []), file]);
  }
  const readings: DescriptionReading[] = [];
  for (const [family, all] of groups) {
    // What one file alone makes unreadable must not take the others along.
    const usable = all.filter(
      (file) => file.isNamed || orSkipped(file, skipped, () => family.read([file], functions)),
    );
    if (usable.length > 0) readings.push(family.read(usable, functions));
  }
  if (readings.length === 0 && skipped.length > 0) throw skipped[0];
  for (const { at, message } of skipped) terminal.note(`${at?.file}: skipped: ${message}`);
  return { readings, skipped: skipped.length };
}

/** What a call gives; null when the call refuses a file that was not named. */
function orSkipped<T>(file: InputFile, skipped: StackError[], call: () => T): T | null {
  try {
    return call();
  } catch (error) {
    if (file.isNamed || !(error instanceof StackError)) throw error;
    skipped.push(error);
    return null;
  }
}

async function readTopology(path: string): Promise<Machine> {
  const { machineFromYaml } = await import("../config/read-machine.ts");
  const file = path === STDIN_PATH ? "(standard input)" : path;
  return machineFromYaml(new TextDecoder().decode(await readBytes(path, file)), file);
}

/** Shows tables: every field with its offset, or what they say of the machine. */
export async function dump(
  flags: DumpFlags,
  words: readonly string[],
  terminal: Terminal,
): Promise<Exit> {
  const { readings, skipped } = await readAll(words, terminal);
  const documents = readings.flatMap((reading) => reading.documents);
  if (flags.yaml) {
    if (readings.length > 1) {
      throw new StackError({
        code: "tables/mixed",
        kind: "usage",
        message: "These files are descriptions of different kinds, each of a whole machine",
        hint: "pass those of one kind",
      });
    }
    const { machineToYaml } = await import("../config/write-machine.ts");
    terminal.print(machineToYaml(readings[0]!.machine));
    noteFindings(documents, terminal);
  } else if (flags.json) {
    const result = { tables: documents.map((one) => ({ ...one, tree: one.tree() })) };
    terminal.print(`${JSON.stringify({ schema: "iommukit/tables-dump@1", result }, null, 2)}\n`);
  } else {
    const { width, style } = terminal;
    const texts = documents.map((one) => renderTree(one, width, style).join("\n"));
    terminal.print(`${texts.join("\n\n")}\n`);
    noteFindings(documents, terminal);
  }
  return skipped > 0 ? Exit.BAD_INPUT : Exit.DONE;
}

/** Findings of form as lines on standard error; `check` says what they mean. */
function noteFindings(documents: readonly DescriptionDocument[], terminal: Terminal): void {
  for (const { file, findings } of documents) {
    for (const { at, severity, message } of findings) {
      terminal.note(`${file}+0x${at.toString(16)}: ${severity}: ${message}`);
    }
  }
}

/** Says what a kernel would reject or ignore, and why. */
export async function check(
  flags: CheckFlags,
  words: readonly string[],
  terminal: Terminal,
): Promise<Exit> {
  const actual = flags.topology === undefined ? null : await readTopology(flags.topology);
  const { readings, skipped } = await readAll(words, terminal, actual?.functions);
  const documents = readings.flatMap((reading) => reading.documents);
  const against =
    actual === null ? [] : readings.flatMap(({ machine }) => checkMachine(machine, actual));
  const all = [...documents.flatMap((document) => document.findings), ...against];
  const errors = all.filter((finding) => finding.severity === "error").length;
  const warnings = all.filter((finding) => finding.severity === "warning").length;
  if (flags.json) {
    const tables = documents.map(({ file, kind, bytes, findings }) => ({
      file,
      kind,
      bytes,
      findings,
    }));
    const topology = actual === null ? null : { file: flags.topology, findings: against };
    const result = { errors, warnings, tables, topology };
    terminal.print(`${JSON.stringify({ schema: "iommukit/tables-check@1", result }, null, 2)}\n`);
  } else {
    const { width, style } = terminal;
    const blocks = documents.map(({ file, kind, findings }) => ({ file, kind, findings }));
    if (actual !== null)
      blocks.push({ file: flags.topology!, kind: "topology", findings: against });
    const texts = blocks.map((one) => renderFindings(one, width, style).join("\n"));
    terminal.print(`${texts.join("\n")}\n`);
  }
  if (skipped > 0) return Exit.BAD_INPUT;
  return errors > 0 || (flags.strict && warnings > 0) ? Exit.NO : Exit.DONE;
}

/** Writes a topology as a table. */
export async function build(flags: BuildFlags, path: string, terminal: Terminal): Promise<Exit> {
  const kind = kindNamed(flags.as);
  const machine = await readTopology(path);
  const bytes = kind.build(machine, await idsLike(flags.like, kind));
  if (flags.output !== undefined && flags.output !== STDIN_PATH) {
    writeTo(flags.output, flags.output, bytes);
    terminal.note(`${flags.output}: ${kind.name}, ${bytes.length} bytes`);
    for (const line of await waysOf(bytes, flags)) terminal.note(line);
  } else if (kind.isText) {
    terminal.print(new TextDecoder().decode(bytes));
  } else if (flags.output === undefined) {
    throw new StackError({
      code: "tables/binary-output",
      kind: "usage",
      message: `${kind.name} is binary, and no file for it was named`,
      hint: `add -o ${kind.name}.aml, or -o - for standard output`,
    });
  } else {
    writeTo(STDOUT, "(standard output)", bytes);
  }
  return Exit.DONE;
}

/** How a table that was written reaches a guest. */
async function waysOf(bytes: Uint8Array, { like, output }: BuildFlags): Promise<string[]> {
  if (!acpiFamily.recognises(bytes)) return [];
  const known = like === undefined ? [] : [await readBytes(like, like)];
  const target = { board: "q35", tables: known } as const;
  const name = output!.replace(/^.*\//, "");
  return (["acpitable", "initrd"] as const).map((way) => {
    const { outcome, why } = deliver(bytes, way, target);
    const how = way === "initrd" ? `kernel/firmware/acpi/${name}` : `-acpitable file=${output}`;
    // What the platform has is known only where the table is like one of it.
    if (outcome !== "used") return `  ${how}: ${outcome}, ${why}`;
    const more = way === "initrd" ? "; --like makes one that replaces" : " by QEMU";
    return `  ${how}: used where there is none${more}`;
  });
}

function kindNamed(name: string): DescriptionKind {
  const kind = descriptionKinds.find((one) => one.name === name);
  if (kind !== undefined) return kind;
  const names = descriptionKinds.map((one) => one.name);
  throw new StackError({
    code: "tables/no-such-kind",
    kind: "usage",
    message: `There is no description called "${name}"${suggestion(name, names)}`,
    hint: descriptionKinds.map((one) => `${one.name} (${one.brief})`).join("; "),
  });
}

/** Writes a file whole. @param name - what messages call it */
function writeTo(target: string | number, name: string, bytes: Uint8Array): void {
  try {
    writeFileSync(target, bytes);
  } catch (error) {
    throw new StackError({
      code: "tables/not-writable",
      kind: "input",
      message: `The table cannot be written: ${error instanceof Error ? error.message : error}`,
      at: { file: name },
      cause: error,
    });
  }
}

/**
 * Ids for a table that shall take the place of another: the same maker and table, one revision up,
 * as Linux's override from the initial RAM disk wants it.
 */
async function idsLike(path: string | undefined, kind: DescriptionKind): Promise<TableIds> {
  if (path === undefined) return defaultIds;
  const bytes = await readBytes(path, path);
  const { signature } = bytes.length < HEADER_BYTES ? { signature: "" } : decodeTable(bytes);
  if (signature !== kind.name.toUpperCase()) {
    throw new StackError({
      code: "tables/like-other",
      kind: "input",
      message: `This is no ${kind.name.toUpperCase()}, which the new table shall replace`,
      at: { file: path, offset: 0 },
      hint: "tables of a running system are in /sys/firmware/acpi/tables",
    });
  }
  const ids = idsOf(bytes);
  return { ...ids, oemRevision: Math.min(0xffff_ffff, ids.oemRevision + 1) };
}
