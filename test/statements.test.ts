/** Every numbered statement about descriptions of topology is the name of a test. */
import { readdirSync, readFileSync } from "node:fs";
import { expect, it } from "vitest";

/** F1 … F96. */
const STATEMENTS = 96;

it("F1 to F96 are each cited by a test's name or row", () => {
  const files = ["src", "test"].flatMap((folder) =>
    readdirSync(folder, { recursive: true, encoding: "utf8" })
      .filter((name) => /\.(test|suite|vm)\.ts$/.test(name))
      .map((name) => `${folder}/${name}`),
  );
  const cited = new Set<number>();
  for (const file of files) {
    if (file.endsWith("statements.test.ts")) continue;
    for (const [, number] of readFileSync(file, "utf8").matchAll(/\bF(\d{1,2})\b/g)) {
      cited.add(Number(number));
    }
  }
  const all = Array.from({ length: STATEMENTS }, (_, index) => index + 1);
  expect(all.filter((number) => !cited.has(number))).toEqual([]);
});
