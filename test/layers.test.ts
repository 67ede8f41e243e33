/** The layer rules of `.dependency-cruiser.cjs` hold, and would notice a violation. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";

const root = process.cwd();
const cruiser = join(root, "node_modules/dependency-cruiser/bin/dependency-cruise.mjs");
const config = join(root, ".dependency-cruiser.cjs");

describe("imports", () => {
  it("point downwards only", () => {
    execFileSync(process.execPath, [cruiser, "--config", config, "src"], { cwd: root });
  });

  it("are refused when the ground imports a world or the core imports Node", () => {
    const folder = mkdtempSync(join(tmpdir(), "layers-"));
    try {
      mkdirSync(join(folder, "src/recording"), { recursive: true });
      mkdirSync(join(folder, "src/iommu"));
      writeFileSync(join(folder, "tsconfig.json"), "{}");
      writeFileSync(join(folder, "src/recording/a.ts"), "export const a = 1;\n");
      writeFileSync(
        join(folder, "src/iommu/b.ts"),
        'import { readFileSync } from "node:fs";\nimport { a } from "../recording/a.ts";\nexport const b = [a, readFileSync];\n',
      );
      const done = spawnSync(process.execPath, [cruiser, "--config", config, "src"], {
        cwd: folder,
        encoding: "utf8",
      });
      expect(done.status).not.toBe(0);
      expect(done.stdout).toContain("core-is-pure");
      expect(done.stdout).toContain("imports-downwards");
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
