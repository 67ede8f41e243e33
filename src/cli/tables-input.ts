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

/** Reads all files that the words name; a folder stands for the files in it. */
export async function readFiles(words: readonly string[]): Promise<DescriptionFile[]> {
  const files: DescriptionFile[] = [];
  for (const path of words.flatMap(filesOf)) {
    const file = path === STDIN_PATH ? "(standard input)" : path;
    files.push({ file, bytes: await readBytes(path, file) });
  }
  return files;
}

function filesOf(word: string): string[] {
  if (word === STDIN_PATH) return [word];
  if (statSync(word, { throwIfNoEntry: false })?.isDirectory() !== true) return [word];
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
