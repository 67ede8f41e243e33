import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { JsonLine, JsonValue } from "./json-line.ts";

const KEYS = ["op", "size", "flags", "nested", "text"] as const;
const bytesOf = (text: string) => new TextEncoder().encode(text);

function read(line: JsonLine, text: string): number {
  const bytes = bytesOf(text);
  return line.read(bytes, 0, bytes.length);
}

describe("JsonLine", () => {
  it("takes numbers, addresses, texts and words apart", () => {
    const line = new JsonLine(KEYS);
    const text =
      '{ "op" : "map", "size":"0xfffffffffffff123","flags":70000,"nested":[{"a":"]"},2],"text":null}';
    expect(read(line, text)).toBe(text.length);
    expect(line.value(0)).toBe(JsonValue.TEXT);
    expect(text.slice(line.textStart(0), line.textEnd(0))).toBe("map");
    expect([line.pfn(1), line.offset(1)]).toEqual([2 ** 52 - 1, 0x123]);
    expect(line.number(2)).toBe(70_000);
    expect([line.value(3), line.value(4)]).toEqual([JsonValue.NESTED, JsonValue.NULL]);
  });

  it.each([
    ['{"size":-1}', JsonValue.OTHER],
    ['{"size":1.5}', JsonValue.OTHER],
    ['{"size":9007199254740992}', JsonValue.OTHER],
    ['{"size":true}', JsonValue.OTHER],
    ['{"size":"0x10000000000000000"}', JsonValue.TEXT],
    ['{"size":"0x"}', JsonValue.TEXT],
    ['{"size":"0xg"}', JsonValue.TEXT],
    ['{"size":"12"}', JsonValue.TEXT],
    ['{"other":1}', JsonValue.NONE],
    ['{"size":"0xFFF"}', JsonValue.NUMBER],
  ])("%s: the value is of sort %d", (text, sort) => {
    const line = new JsonLine(KEYS);
    expect(read(line, text)).toBe(text.length);
    expect(line.value(1)).toBe(sort);
  });

  it("a key that stands twice is told", () => {
    const line = new JsonLine(KEYS);
    read(line, '{"size":1,"flags":2,"size":3}');
    expect(line.nameOf(line.repeated)).toBe("size");
    read(line, '{"size":1}');
    expect(line.repeated).toBe(-1);
  });

  it.each([
    "",
    "[]",
    '{"op"}',
    '{"op":}',
    '{"op":"map"',
    '{"op":"map}',
    '{"op":"ma\np"}',
    '{"nested":[}]}',
    '{"nested":[[}',
    `{"nested":${"[".repeat(40)}${"]".repeat(40)}}`,
    '{"op":"map",}',
    '{op:"map"}',
  ])("%j is no object", (text) => {
    expect(read(new JsonLine(KEYS), text)).toBe(-1);
  });

  it("never looks past the end it was given", () => {
    const line = new JsonLine(KEYS);
    const bytes = bytesOf('{"size":12345}');
    for (let end = 0; end < bytes.length; end += 1) expect(line.read(bytes, 0, end)).toBe(-1);
  });

  it("agrees with JSON.parse on any object of any writer", () => {
    const value = fc.oneof(
      fc.nat(2 ** 31 - 1),
      fc.bigInt(0n, 2n ** 64n - 1n).map((wide) => `0x${wide.toString(16)}`),
      fc.string(),
      fc.constantFrom(null, true, -3, 1.5, "0x", "0xzz"),
      fc.jsonValue({ maxDepth: 3 }),
    );
    const object = fc.dictionary(fc.oneof(fc.constantFrom(...KEYS), fc.string()), value);
    const line = new JsonLine(KEYS);
    fc.assert(
      fc.property(object, fc.constantFrom(0, 2), (fields, indent) => {
        const text = JSON.stringify(fields, null, indent).replaceAll("\n", " ");
        const bytes = bytesOf(text);
        expect(line.read(bytes, 0, bytes.length)).toBe(bytes.length);
        for (const [slot, key] of KEYS.entries()) {
          const given = Object.hasOwn(fields, key) ? fields[key] : undefined;
          expect([key, line.value(slot)]).toEqual([key, sortOf(given)]);
          if (line.value(slot) !== JsonValue.NUMBER) continue;
          const wide = BigInt(line.pfn(slot)) * 4096n + BigInt(line.offset(slot));
          expect(wide).toBe(BigInt(given as number | string));
        }
      }),
      { numRuns: 500 },
    );
  });
});

function sortOf(value: unknown): JsonValue {
  if (value === undefined) return JsonValue.NONE;
  if (value === null) return JsonValue.NULL;
  if (typeof value === "object") return JsonValue.NESTED;
  if (typeof value === "string") {
    return /^0[xX][0-9a-f]{1,16}$/i.test(value) ? JsonValue.NUMBER : JsonValue.TEXT;
  }
  const isCount = typeof value === "number" && Number.isSafeInteger(value);
  const isPlain = isCount && /^[0-9]+$/.test(JSON.stringify(value));
  return isPlain ? JsonValue.NUMBER : JsonValue.OTHER;
}
