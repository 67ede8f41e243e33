// Bundles the benchmarks, which are TypeScript, and runs them with the arguments given.
import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const outfile = join(here, "..", "dist", "bench.mjs");
await build({
  entryPoints: [join(here, "main.ts")],
  outfile,
  bundle: true,
  platform: "node",
  format: "esm",
  target: "node20",
  // Bundling turns constants into variables, which the engine does not fold as it does in modules.
  minifySyntax: true,
  // Holds a binary that it finds beside itself.
  external: ["koffi"],
  logLevel: "error",
});
const done = spawnSync(process.execPath, ["--expose-gc", outfile, ...process.argv.slice(2)], {
  stdio: "inherit",
});
process.exit(done.status ?? 3);
