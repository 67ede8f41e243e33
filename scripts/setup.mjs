// Brings a fresh checkout to a runnable state: installs packages and builds, each only when needed.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
process.chdir(root);

function run(title, command, args) {
  process.stderr.write(`${title} …\n`);
  const done = spawnSync(command, args, {
    stdio: ["ignore", 2, 2],
    shell: process.platform === "win32",
  });
  if (done.status !== 0) {
    process.stderr.write(`${title} failed: ${command} ${args.join(" ")}\n`);
    process.exit(done.status ?? 1);
  }
}

function newest(folder) {
  let latest = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    latest = Math.max(latest, entry.isDirectory() ? newest(path) : statSync(path).mtimeMs);
  }
  return latest;
}

const stamp = (path) => (existsSync(path) ? statSync(path).mtimeMs : 0);

if (stamp("node_modules/.package-lock.json") < stamp("package-lock.json")) {
  run("installing packages", "npm", ["ci", "--no-audit", "--no-fund"]);
}
const sources = Math.max(newest("src"), stamp("tsconfig.json"), stamp("tsconfig.build.json"));
if (stamp("dist/.tsbuildinfo") < sources) {
  run("building", process.execPath, [
    "node_modules/typescript/bin/tsc",
    "-p",
    "tsconfig.build.json",
  ]);
}
