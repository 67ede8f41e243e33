import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, describe, expect, it } from "vitest";
import { openHost } from "./open-host.ts";

const folder = mkdtempSync(join(tmpdir(), "open-host-"));
afterAll(() => rmSync(folder, { recursive: true }));

function file(bytes: Uint8Array | string): string {
  const path = join(folder, "host");
  writeFileSync(path, bytes);
  return path;
}

describe("openHost", () => {
  it("takes the XML of lstopo, with or without gzip", () => {
    const xml = '<?xml version="1.0"?><topology version="2.0"/>';
    const plain = openHost(file(xml));
    expect(plain).toMatchObject({ kind: "lstopo", text: xml });
    expect(openHost(file(gzipSync(xml)))).toEqual(plain);
  });

  it.each([
    ["a zip archive", Buffer.from("504b030414000000", "hex"), /zip archive/, /unpack/],
    ["a devicetree blob", Buffer.from("d00dfeed00000048", "hex"), /devicetree blob/, /tables dump/],
    ["an ACPI table", readFileSync("examples/tables/VIOT"), /ACPI table, VIOT/, /tables dump/],
    ["a topology file", "# vm\nschema: iommukit/topology@1\n", /topology file/, /tables build/],
    ["xz", Buffer.from("fd377a585a000004", "hex"), /xz/, /unpack/],
  ])("says of %s what it is and what reads it", (_, bytes, message, hint) => {
    expect(() => openHost(file(bytes))).toThrow(
      expect.objectContaining({
        code: "host/not-a-host",
        message: expect.stringMatching(message),
        hint: expect.stringMatching(hint),
      }),
    );
  });

  it("tells damaged gzip from gzip that expands without end", () => {
    const whole = gzipSync(Buffer.alloc(100_000, "x"));
    expect(() => openHost(file(whole.subarray(0, 50)))).toThrow(
      expect.objectContaining({ code: "host/gzip-damaged" }),
    );
    const piece = gzipSync(new Uint8Array(1 << 26));
    const bomb = Buffer.concat(Array.from({ length: 17 }, () => piece));
    expect(() => openHost(file(bomb))).toThrow(/expands beyond 1073741824 bytes/);
  });
});
