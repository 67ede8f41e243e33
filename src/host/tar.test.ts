import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { StackError } from "../errors.ts";
import { readTar, type TarMember, writeTar } from "./tar.ts";

const folder = mkdtempSync(join(tmpdir(), "tar-"));
afterAll(() => rmSync(folder, { recursive: true }));

const none = new Uint8Array(0);
const file = (path: string, text: string): TarMember => {
  return { path, kind: "file", bytes: new TextEncoder().encode(text), target: "" };
};
const long = `sys/${"devices/".repeat(30)}0000:00:01.0`;
const sample: TarMember[] = [
  { path: "sys/bus", kind: "directory", bytes: none, target: "" },
  file("sys/bus/a", "text"),
  file(`${long}/config`, "x".repeat(513)),
  { path: "sys/link", kind: "link", bytes: none, target: "bus/a" },
  { path: "sys/far", kind: "link", bytes: none, target: `../${long}` },
  file("sys/größe", "0x10\n"),
];

describe("archives", () => {
  it("are read as they were written, with long and non-ASCII names", () => {
    expect(readTar(writeTar(sample), "x")).toEqual(sample);
  });

  it("are what tar reads, and lists the same", () => {
    const path = join(folder, "ours.tar");
    writeFileSync(path, writeTar(sample));
    const words = ["tf", path, "--quoting-style=literal"];
    const listed = execFileSync("tar", words, { encoding: "utf8" }).trim().split("\n");
    const names = listed.map((name) => name.replace(/\/$/, ""));
    expect(names).toEqual(sample.map((member) => member.path));
  });

  it.each(["gnu", "pax", "ustar"])("that tar writes as %s are read", (format) => {
    const root = join(folder, format);
    const deep = join(root, "sys", "d".repeat(60), "e".repeat(30));
    mkdirSync(deep, { recursive: true });
    writeFileSync(join(deep, "config"), "text");
    symlinkSync("../target", join(deep, "link"));
    const path = `${root}.tar`;
    execFileSync("tar", ["cf", path, "--format", format, "-C", root, "./sys"]);
    const members = readTar(execFileSync("cat", [path]), path);
    const names = members.map((member) => [member.kind, member.path, member.target]);
    const at = `sys/${"d".repeat(60)}/${"e".repeat(30)}`;
    expect(names).toContainEqual(["file", `${at}/config`, ""]);
    expect(names).toContainEqual(["link", `${at}/link`, "../target"]);
  });

  it("never give the same bytes for different times or owners: both are zero", () => {
    expect(writeTar(sample)).toEqual(writeTar(sample.map((member) => ({ ...member }))));
  });

  it("that are damaged are refused with the offset", () => {
    const good = writeTar(sample);
    const cases: [string, Uint8Array, RegExp][] = [
      ["empty", new Uint8Array(0), /empty/],
      ["cut in a header", good.subarray(0, 300), /empty/],
      ["cut in a member", good.subarray(0, 4 * 512), /longer than the rest/],
      ["other bytes", new Uint8Array(2048).fill(0x41), /no header/],
    ];
    for (const [, bytes, message] of cases) {
      expect(() => readTar(bytes, "x.tar")).toThrow(message);
      expect(() => readTar(bytes, "x.tar")).toThrow(StackError);
    }
  });

  it("with any byte changed are read or refused, never worse", () => {
    const good = writeTar(sample);
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.nat(255), (at, value) => {
        const bytes = good.slice();
        bytes[at] = value;
        try {
          readTar(bytes, "x");
        } catch (error) {
          expect(error).toBeInstanceOf(StackError);
        }
      }),
      { numRuns: 300 },
    );
  });
});
