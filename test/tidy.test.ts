/** House rules that hold for every source file of the project. */
import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";

const skipped = new Set([".git", "node_modules", "dist", "coverage"]);

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true })
    .filter((entry) => !skipped.has(entry.name))
    .flatMap((entry) => {
      const path = folder === "." ? entry.name : `${folder}/${entry.name}`;
      return entry.isDirectory() ? filesBelow(path) : entry.isFile() ? [path] : [];
    })
    .sort();
}

const files = filesBelow(".");
const sources = files.filter((file) => /^(src|test|bench)\/.*\.ts$/.test(file));
const shipped = sources.filter(
  (file) => /^src\//.test(file) && !/\.(test|suite|fuzz)\.ts$/.test(file),
);
const texts = files.filter((file) => !/\.(gz|png|bin)$/.test(file));
const read = (file: string) => readFileSync(file, "utf8");

/** A source without its comments. */
const code = (text: string) => text.replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, "");

/** Files of `names` in which `wrong` finds something. */
function offenders(names: readonly string[], wrong: (text: string) => boolean): string[] {
  return names.filter((file) => wrong(read(file)));
}

describe("every source file", () => {
  it("exists in a number worth checking", () => {
    expect(shipped.length).toBeGreaterThan(20);
  });

  it("says in its first lines what it is", () => {
    expect(offenders(shipped, (text) => !/^(#!.*\n)?\/\*\*/.test(text))).toEqual([]);
  });

  it("is at most 500 lines long", () => {
    expect(offenders(shipped, (text) => text.split("\n").length > 500)).toEqual([]);
  });

  it("holds no left-over marker, no lone test and no cast to any", () => {
    const marker = new RegExp(
      [
        "\\bTO" + "DO\\b",
        "\\bFIX" + "ME\\b",
        "\\bXX" + "X\\b",
        "@ts-" + "(ignore|nocheck)",
        "\\bas " + "any[;,)\\]]",
        "\\b(it|describe|test)\\.on" + "ly\\b",
      ].join("|"),
    );
    expect(offenders(sources, (text) => marker.test(text))).toEqual([]);
  });

  it("imports with the .ts ending", () => {
    const wrong = /from "\.{1,2}\/[^"]*(?<!\.ts|\.json)"/;
    expect(offenders(sources, (text) => wrong.test(text))).toEqual([]);
  });
});

describe("mechanism", () => {
  const rooms =
    /^src\/([a-z0-9-]+\.ts|(wire|memory|iommu|pci|block|dma|virtio|nvme|vfio|firmware|topology|recording)\/)/;
  const mechanism = shipped.filter(
    (file) =>
      rooms.test(file) && !file.startsWith("src/recording/node/") && file !== "src/index.ts",
  );

  it("knows no clock, no randomness, no timer, no console and no process", () => {
    // Rooms have processes of their own: only what Node's has counts.
    const ofNode = "argv|cwd|env|exit|hrtime|memoryUsage|nextTick|on|pid|platform|std(in|out|err)";
    const impure = new RegExp(
      "\\b(Date\\.now|new Date|performance\\.now|Math\\.random|setTimeout|setInterval|" +
        `console\\.|process\\.(${ofNode})\\b)`,
    );
    expect(offenders(mechanism, (text) => impure.test(code(text)))).toEqual([]);
  });
});

describe("the repository", () => {
  it("names no path of a build machine and no registry host", () => {
    const leak = new RegExp(
      ["/wo" + "rk/", "registry\\.npm" + "js", "deb\\.deb" + "ian"].join("|"),
    );
    expect(offenders(texts, (text) => leak.test(text))).toEqual([]);
  });

  it("stays small enough to clone in seconds", () => {
    const bytes = files.reduce((sum, file) => sum + readFileSync(file).length, 0);
    expect(bytes).toBeLessThan(8 * 2 ** 20);
  });
});
