/** Files of firmware tables: paths, folders of them, standard input; gzip as it is; bounded. */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { StackError } from "../errors.ts";
import type { DescriptionFile } from "../firmware/table-description.ts";
import { openFile, STDIN_PATH } from "../recording/node/file-source.ts";

/** A file of tables is read up to this size; a devicetree of QEMU is 1 MiB, a DSDT less. */
const FILE_BYTES_MAX = 16 * 2 ** 20;
/** Files of a folder that are read. */
const FILES_MAX = 1000;

/** A file, and whether it was named or only stands in a folder that was. */
export interface InputFile extends DescriptionFile {
  readonly isNamed: boolean;
}

/**
 * Reads all files that the words name; a folder stands for the files in it.
 *
 * @param skip - told of each file of a folder that cannot be read; the others are
 */
export async function readFiles(
  words: readonly string[],
  skip: (error: StackError) => void,
): Promise<InputFile[]> {
  const files: InputFile[] = [];
  for (const word of words) {
    const inFolder = filesIn(word);
    for (const path of inFolder ?? [word]) {
      const file = path === STDIN_PATH ? "(standard input)" : path;
      try {
        files.push({ file, bytes: await readBytes(path, file), isNamed: inFolder === null });
      } catch (error) {
        if (inFolder === null || !(error instanceof StackError)) throw error;
        skip(error);
      }
    }
  }
  return files;
}

/** The files of a folder; null when it is none. */
function filesIn(word: string): string[] | null {
  if (word === STDIN_PATH) return null;
  if (statSync(word, { throwIfNoEntry: false })?.isDirectory() !== true) return null;
  // Beside the tables, sysfs has folders for tables that were loaded later.
  const names = readdirSync(word, { withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.name.endsWith(".md"))
    .map((entry) => entry.name)
    .sort();
  if (names.length > 0 && names.length <= FILES_MAX) return names.map((name) => join(word, name));
  throw new StackError({
    code: "firmware/folder",
    kind: "input",
    message: names.length === 0 ? "No file is in this folder" : `More than ${FILES_MAX} files`,
    at: { file: word },
    hint: "name a folder of tables, such as /sys/firmware/acpi/tables",
  });
}

/** Reads one file whole, unpacked. @param name - what messages call it */
export async function readBytes(path: string, name: string): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  try {
    for await (const chunk of openFile(path)) {
      chunks.push(chunk);
      bytes += chunk.length;
      if (bytes > FILE_BYTES_MAX) throw tooLarge(name);
    }
  } catch (error) {
    throw forTables(error);
  }
  return Buffer.concat(chunks);
}

function tooLarge(file: string): StackError {
  return new StackError({
    code: "firmware/too-large",
    kind: "input",
    message: `The file has more than ${FILE_BYTES_MAX} bytes`,
    at: { file },
    hint: "pass one table a file",
  });
}

/** Errors of the reader of recordings, with the hint that fits tables. */
function forTables(error: unknown): unknown {
  if (!(error instanceof StackError) || error.code !== "recording/not-permitted") return error;
  return new StackError({
    code: "firmware/not-permitted",
    kind: error.kind,
    message: error.message,
    ...(error.at === undefined ? {} : { at: error.at }),
    hint: "tables of the running system belong to root: copy them, or use sudo",
    cause: error,
  });
}
