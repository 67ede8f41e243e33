/** Real tables, templates of iasl and damaged ones, decoded and encoded again. */
import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { encodeItem } from "../table-item.ts";
import { decodeTable } from "./decode.ts";

const folder = new URL("./vectors/", import.meta.url);
const vectors = readdirSync(folder, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .flatMap((entry) =>
    readdirSync(new URL(`${entry.name}/`, folder)).map((name) => `${entry.name}/${name}`),
  )
  .sort();
const read = (name: string) => new Uint8Array(readFileSync(new URL(name, folder)));

describe("a real table", () => {
  it.each(vectors)("%s comes back byte for byte", (name) => {
    const bytes = read(name);
    const table = decodeTable(bytes);
    expect(encodeItem(table.root)).toEqual(bytes);
    expect(table.findings).toEqual([]);
  });
});
