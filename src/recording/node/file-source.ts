/**
 * Recordings as files: the one part of the readers that needs Node. A path or `-` becomes an async
 * iterator of byte chunks; gzip, recognised by its magic bytes, is unpacked on the way, all its
 * members one after the other.
 */
import { createReadStream } from "node:fs";
import { pipeline, Readable } from "node:stream";
import { createGunzip } from "node:zlib";
import { StackError } from "../../errors.ts";

const CHUNK_BYTES = 256 * 1024;

/** What the path of the standard input is called. */
export const STDIN_PATH = "-";

/**
 * Opens a recording.
 *
 * @param path - a file, or `-` for the standard input
 * @param stdin - what `-` reads
 * @returns its bytes, unpacked; iterating throws StackError when the file cannot be read
 */
export async function* openFile(
  path: string,
  stdin: AsyncIterable<Uint8Array> = process.stdin,
): AsyncGenerator<Uint8Array, void, undefined> {
  const name = path === STDIN_PATH ? "(standard input)" : path;
  const raw = path === STDIN_PATH ? stdin : createReadStream(path, { highWaterMark: CHUNK_BYTES });
  try {
    yield* unpack(name, raw);
  } catch (error) {
    throw asStackError(name, error);
  }
}

/** Passes plain bytes through and unpacks gzip. */
async function* unpack(
  name: string,
  raw: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array, void, undefined> {
  const source = raw[Symbol.asyncIterator]();
  const head: Uint8Array[] = [];
  let bytes = 0;
  let done = false;
  while (bytes < 2 && !done) {
    const next = await source.next();
    done = next.done === true;
    if (next.done !== true) {
      head.push(next.value);
      bytes += next.value.length;
    }
  }
  const given = { bytes: 0 };
  const rest = joined(head, source, done, given);
  const magic = Buffer.concat(head.map((chunk) => chunk.subarray(0, 2))).subarray(0, 2);
  if (magic[0] !== 0x1f || magic[1] !== 0x8b) {
    yield* rest;
    return;
  }
  const gunzip = createGunzip({ chunkSize: CHUNK_BYTES });
  pipeline(Readable.from(rest, { objectMode: false }), gunzip, () => {});
  try {
    for await (const chunk of gunzip) yield chunk as Uint8Array;
  } catch (error) {
    throw gzipError(name, given.bytes, error);
  }
}

async function* joined(
  head: readonly Uint8Array[],
  source: AsyncIterator<Uint8Array>,
  done: boolean,
  given: { bytes: number },
): AsyncGenerator<Uint8Array, void, undefined> {
  try {
    for (const chunk of head) {
      given.bytes += chunk.length;
      yield chunk;
    }
    while (!done) {
      const next = await source.next();
      if (next.done === true) return;
      given.bytes += next.value.length;
      yield next.value;
    }
  } finally {
    await source.return?.();
  }
}

/** @param offset - packed bytes that were read when the error showed */
function gzipError(name: string, offset: number, error: unknown): unknown {
  const code = codeOf(error);
  if (!code.startsWith("Z_")) return error;
  if (code === "Z_BUF_ERROR") {
    return new StackError({
      code: "recording/gzip-truncated",
      kind: "input",
      message: `The gzip data ends in the middle, after ${offset} bytes`,
      at: { file: name, offset },
      hint: "copy the file again, or unpack what there is with `gzip -dc` and pass that",
      cause: error,
    });
  }
  return new StackError({
    code: "recording/gzip-damaged",
    kind: "input",
    message: `The gzip data is damaged within its first ${offset} bytes`,
    at: { file: name, offset },
    hint: "check the file with `gzip -t`",
    cause: error,
  });
}

const openErrors: Readonly<Record<string, { code: string; message: string; hint: string }>> = {
  ENOENT: {
    code: "not-found",
    message: "There is no such file",
    hint: "check the path; `-` reads the standard input",
  },
  EISDIR: {
    code: "is-directory",
    message: "This is a directory, not a recording",
    hint: "name the files in it",
  },
  EACCES: {
    code: "not-permitted",
    message: "The file may not be read",
    hint: "tracefs belongs to root: copy the trace, or use sudo",
  },
  EPERM: {
    code: "not-permitted",
    message: "The file may not be read",
    hint: "tracefs belongs to root: copy the trace, or use sudo",
  },
};

function asStackError(name: string, error: unknown): unknown {
  if (error instanceof StackError) return error;
  const code = codeOf(error);
  if (code === "") return error;
  const known = openErrors[code];
  return new StackError({
    code: `recording/${known?.code ?? "unreadable"}`,
    kind: "input",
    message: known?.message ?? `The file cannot be read (${code})`,
    at: { file: name },
    ...(known === undefined ? {} : { hint: known.hint }),
    cause: error,
  });
}

function codeOf(error: unknown): string {
  if (typeof error !== "object" || error === null || !("code" in error)) return "";
  return typeof error.code === "string" ? error.code : "";
}
