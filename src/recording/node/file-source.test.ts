import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { StackError } from "../../errors.ts";
import { openFile } from "./file-source.ts";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "recording-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

function write(name: string, bytes: Uint8Array | string): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

async function textOf(chunks: AsyncIterable<Uint8Array>): Promise<string> {
  let text = "";
  for await (const chunk of chunks) text += Buffer.from(chunk).toString("latin1");
  return text;
}

async function errorOf(chunks: AsyncIterable<Uint8Array>): Promise<StackError> {
  const thrown = await textOf(chunks).catch((error: unknown) => error);
  expect(thrown).toBeInstanceOf(StackError);
  return thrown as StackError;
}

async function* bytewise(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (const byte of bytes) yield Uint8Array.of(byte);
}

const lines = "a line of some length\n".repeat(50_000);

describe("a file", () => {
  it("is given as it is when it is plain, whatever its name", async () => {
    expect(await textOf(openFile(write("plain.gz", lines)))).toBe(lines);
    expect(await textOf(openFile(write("one", "x")))).toBe("x");
    expect(await textOf(openFile(write("empty", "")))).toBe("");
  });

  it("is unpacked when it is gzip, all members of it", async () => {
    const packed = Buffer.concat([gzipSync(lines), gzipSync("second\n"), gzipSync("third\n")]);
    expect(await textOf(openFile(write("packed.txt", packed)))).toBe(`${lines}second\nthird\n`);
  });

  it("may be left before its end", async () => {
    for await (const chunk of openFile(write("left.gz", gzipSync(lines)))) {
      expect(chunk.length).toBeGreaterThan(0);
      break;
    }
  });
});

describe("standard input", () => {
  it("is read byte by byte, plain and packed", async () => {
    expect(await textOf(openFile("-", bytewise(Buffer.from("plain"))))).toBe("plain");
    expect(await textOf(openFile("-", bytewise(gzipSync("packed"))))).toBe("packed");
    expect(await textOf(openFile("-", bytewise(Buffer.alloc(0))))).toBe("");
    expect(await textOf(openFile("-", bytewise(Uint8Array.of(0x1f))))).toBe("\u001f");
  });

  it("is named in errors", async () => {
    const error = await errorOf(openFile("-", bytewise(gzipSync("packed").subarray(0, 12))));
    expect(error.at?.file).toBe("(standard input)");
  });
});

describe("a file that cannot be read", () => {
  it("is reported when the gzip data ends too early, with the position", async () => {
    const whole = gzipSync(lines);
    for (const bytes of [3, 10, 11, 200, whole.length - 8, whole.length - 1]) {
      const path = write("cut.gz", whole.subarray(0, bytes));
      const error = await errorOf(openFile(path));
      expect(error).toMatchObject({ code: "recording/gzip-truncated", kind: "input" });
      expect(error.at).toEqual({ file: path, offset: bytes });
    }
  });

  it("gives what it could before the cut", async () => {
    const random = Array.from({ length: 200_000 }, (_, index) => `${(index * 7919) % 100_003}\n`);
    const whole = gzipSync(random.join(""));
    let bytes = 0;
    const thrown = await (async () => {
      const path = write("half.gz", whole.subarray(0, whole.length - 100));
      for await (const chunk of openFile(path)) bytes += chunk.length;
    })().catch((error: unknown) => error);
    expect(thrown).toBeInstanceOf(StackError);
    expect(bytes).toBeGreaterThan(200_000);
  });

  it("is reported when the gzip data is damaged", async () => {
    const whole = gzipSync(lines);
    whole[40]! ^= 0xff;
    whole[whole.length - 6]! ^= 0xff;
    const error = await errorOf(openFile(write("damaged.gz", whole)));
    expect(error.code).toBe("recording/gzip-damaged");
    expect(error.at?.offset).toBeGreaterThan(0);
  });

  it("is reported when it does not exist or is a directory", async () => {
    const missing = await errorOf(openFile(join(folder, "missing")));
    expect(missing).toMatchObject({ code: "recording/not-found", kind: "input" });
    expect(missing.at).toEqual({ file: join(folder, "missing") });
    expect(await errorOf(openFile(folder))).toMatchObject({ code: "recording/is-directory" });
  });
});
