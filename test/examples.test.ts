/**
 * Documents tell the truth: an example that they run prints what stands below it, and a line of
 * code gives what its comment says.
 */
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";

const documents = readdirSync("docs")
  .filter((name) => name.endsWith(".md"))
  .map((name) => ({ name, text: readFileSync(`docs/${name}`, "utf8") }));

const runs = documents.flatMap(({ name, text }) =>
  [...text.matchAll(/^```console\n\$ node (examples\/[\w-]+\.mjs)\n([^`]*)```$/gm)].map(
    ([, example = "", output = ""]) => ({ name, example, output }),
  ),
);

const snippets = documents.flatMap(({ name, text }) =>
  [...text.matchAll(/^```js\n([^`]*"iommukit"[^`]*)```$/gm)].map(([, code = ""]) => ({
    name,
    code,
  })),
);

/** Runs node in this folder, where the package finds itself by name. */
function run(words: readonly string[]): string {
  const stdio: ["ignore", "pipe", "inherit"] = ["ignore", "pipe", "inherit"];
  return execFileSync(process.execPath, words, { encoding: "utf8", stdio });
}

/** A line such as `double(2); // 4`. */
const CLAIM = /^(\S.*); \/\/ (-?\d+|\[.*\]|".*")$/gm;

describe("a document", () => {
  it("exists with an example to run and a snippet to copy", () => {
    expect([runs.length > 0, snippets.length > 0]).toEqual([true, true]);
  });

  it.each(runs)("$name: $example prints what stands below it", ({ example, output }) => {
    expect(run([example])).toBe(output);
  });

  it.each(snippets)("$name: a snippet gives what its comments say", ({ code }) => {
    const claims = [...code.matchAll(CLAIM)].map(([, , claim = ""]) => JSON.parse(claim));
    const script = code.replace(CLAIM, "results.push($1);");
    const head = "const results = [];\n";
    const printed = run([
      "--input-type=module",
      "-e",
      `${head}${script}\nprocess.stdout.write(JSON.stringify(results));`,
    ]);
    expect(claims.length).toBeGreaterThan(0);
    expect(JSON.parse(printed)).toEqual(claims);
  });
});
