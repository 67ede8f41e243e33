/**
 * Outside tools that some tests need: where each is, and what to install where it is missing.
 *
 * Tools that a script of this project fetches lie in its cache folder and come before the PATH, since
 * the system's may be too old. A test whose tool is missing is skipped with the command that brings
 * it in its name. Where `IOMMUKIT_REQUIRE_TOOLS` lists the tool, as in continuous integration, it
 * fails instead.
 */
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import { it } from "vitest";

const fetched = join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "iommukit", "tools");
/** How tools are had that are not a package of their own name. */
const commands: Readonly<Record<string, string>> = {
  dtc: "apt-get install device-tree-compiler",
  iasl: "node scripts/tools/fetch-iasl.mjs",
  lstopo: "apt-get install hwloc-nox",
};
const commandFor = (tool: string) => commands[tool] ?? `apt-get install ${tool}`;

/** Where a program lies, in the cache folder or on the PATH, or null. */
export function toolPath(name: string): string | null {
  for (const folder of [fetched, ...(process.env.PATH ?? "").split(delimiter)]) {
    const path = join(folder, name);
    if (folder !== "" && existsSync(path)) return path;
  }
  return null;
}

/** A test that needs a program of a Debian package; `body` receives the program's path. */
export function itNeeds(
  tool: string,
  title: string,
  body: (path: string) => Promise<void> | void,
  timeoutMs?: number,
): void {
  const path = toolPath(tool);
  const required = (process.env.IOMMUKIT_REQUIRE_TOOLS ?? "").split(/\s+/).includes(tool);
  if (path !== null) {
    it(title, () => body(path), timeoutMs);
  } else if (required) {
    it(title, () => {
      throw new Error(`${tool} is required here and not installed: ${commandFor(tool)}`);
    });
  } else {
    it.skip(`${title} [skipped: needs ${tool}, ${commandFor(tool)}]`);
  }
}
