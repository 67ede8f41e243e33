/** A host of ten thousand functions: read from disk, inspected, drawn; the whole is to take 1 s and 2 s. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { ArchiveTree } from "../src/host/archive-tree.ts";
import { DiskTree } from "../src/host/disk-tree.ts";
import { inspectMachine } from "../src/host/inspect.ts";
import { largeHost } from "../src/host/large-host.suite.ts";
import { readHost } from "../src/host/sysfs.ts";
import { inspectSvg } from "../src/report/inspect-svg.ts";
import { renderInspected } from "../src/report/inspect-text.ts";
import type { Benchmark } from "./harness.ts";

const FUNCTIONS = 10_000;
/** A second for ten thousand. */
const INSPECT_NS = 1e9 / FUNCTIONS;
const DRAW_NS = 2e9 / FUNCTIONS;

/** A sum that changes with any character's place. */
function hashOf(text: string): number {
  let hash = 0;
  for (let at = 0; at < text.length; at += 1) hash = (hash * 31 + text.charCodeAt(at)) | 0;
  return hash;
}

/** The host as files of a folder that goes when the process ends. */
function onDisk(functions: number): string {
  const root = mkdtempSync(join(tmpdir(), "large-host-"));
  process.once("exit", () => rmSync(root, { recursive: true, force: true }));
  const known = new Set<string>();
  for (const { path, kind, bytes, target } of largeHost(functions)) {
    const file = join(root, path);
    const folder = dirname(file);
    if (!known.has(folder)) mkdirSync(folder, { recursive: true });
    known.add(folder);
    if (kind === "link") symlinkSync(target, file);
    else writeFileSync(file, bytes);
  }
  return root;
}

const plain = (_role: string, text: string) => text;
const heading = { name: "large", release: null, architecture: null };

const fromDisk: Benchmark = {
  name: "inspect: 10 000 functions from disk to text",
  unit: "function",
  target: { ns: INSPECT_NS },
  prepare(scale) {
    const functions = Math.max(64, Math.floor(FUNCTIONS * scale));
    const root = onDisk(functions);
    return {
      units: functions,
      round() {
        const { machine, findings } = readHost(new DiskTree(root));
        const result = inspectMachine(machine, { findings });
        return hashOf(renderInspected(result, heading, 100, plain).join("\n"));
      },
    };
  },
};

const inMemory: Benchmark = {
  name: "inspect: 10 000 functions from memory to JSON",
  unit: "function",
  target: { ns: INSPECT_NS },
  prepare(scale) {
    const functions = Math.max(64, Math.floor(FUNCTIONS * scale));
    const tree = new ArchiveTree("large", largeHost(functions));
    return {
      units: functions,
      round() {
        const { machine, findings } = readHost(tree);
        return JSON.stringify(inspectMachine(machine, { findings })).length;
      },
    };
  },
};

const drawn: Benchmark = {
  name: "inspect: 10 000 functions from memory to SVG",
  unit: "function",
  target: { ns: DRAW_NS },
  prepare(scale) {
    const functions = Math.max(64, Math.floor(FUNCTIONS * scale));
    const tree = new ArchiveTree("large", largeHost(functions));
    return {
      units: functions,
      round() {
        const result = inspectMachine(readHost(tree).machine);
        return hashOf(inspectSvg(result, { name: "large" }));
      },
    };
  },
};

export const benchmarks: readonly Benchmark[] = [fromDisk, inMemory, drawn];
