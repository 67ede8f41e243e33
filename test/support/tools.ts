/**
 * Outside tools that some tests need: where each is, and what to install where it is missing.
 *
 * A test whose tool is missing is skipped with the install command in its name. Where
 * `IOMMUKIT_REQUIRE_TOOLS` lists the tool, as in continuous integration, it fails instead.
 */
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { it } from "vitest";

/** Where a program lies on the PATH, or null. */
export function toolPath(name: string): string | null {
  for (const folder of (process.env.PATH ?? "").split(delimiter)) {
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
      throw new Error(`${tool} is required here and not installed: apt-get install ${tool}`);
    });
  } else {
    it.skip(`${title} [skipped: needs ${tool}, apt-get install ${tool}]`);
  }
}
