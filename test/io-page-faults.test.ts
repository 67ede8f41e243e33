/** The lines that docs/io-page-faults.md quotes are those of the example it runs, in order. */
import { readFileSync } from "node:fs";
import { expect, it } from "vitest";

it("the page on I/O page faults quotes its example", () => {
  const page = readFileSync("docs/io-page-faults.md", "utf8");
  const quoted = /```js\n([^`]*)```/.exec(page)![1]!.trimEnd().split("\n");
  const example = readFileSync("examples/io-page-faults.mjs", "utf8")
    .split("\n")
    .map((line) => line.trim());
  expect(quoted.length).toBeLessThanOrEqual(13);
  let from = 0;
  for (const line of quoted) {
    const at = example.indexOf(line, from);
    expect([line, at >= from]).toEqual([line, true]);
    from = at + 1;
  }
});
