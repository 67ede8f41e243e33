// Packages of newer Debian releases, unpacked beside the system: apt with a state of its own, on the
// mirror that the machine's apt uses; signatures and sums are checked by apt as ever. A machine that
// is no Debian names a mirror in IOMMUKIT_DEBIAN_MIRROR.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const suites = ["trixie", "trixie-backports"];
const keyrings = ["gpg", "pgp"].map((end) => `/usr/share/keyrings/debian-archive-keyring.${end}`);

export const say = (text) => process.stderr.write(`${text}\n`);

export function run(command, args, options = {}) {
  const done = spawnSync(command, args, {
    encoding: "utf8",
    maxBuffer: 64 * 2 ** 20,
    ...options,
  });
  if (done.error) throw done.error;
  if (done.status !== 0) {
    throw new Error(`${command} ${args.slice(0, 4).join(" ")} … failed:\n${done.stderr}`);
  }
  return done.stdout;
}

/** The mirror of the Debian archive that this machine's apt uses. */
function mirror() {
  if (process.env.IOMMUKIT_DEBIAN_MIRROR) return process.env.IOMMUKIT_DEBIAN_MIRROR;
  const targets = run("apt-get", ["indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(LABEL)"]);
  const line = targets.split("\n").find((text) => text.endsWith(" Debian Debian"));
  if (line === undefined) {
    throw new Error(
      "apt knows no Debian archive: name a mirror in IOMMUKIT_DEBIAN_MIRROR, or run apt-get update",
    );
  }
  return line.split(" ")[0];
}

/**
 * Sets up apt's private folders in `root`; returns its environment.
 *
 * @param foreign - architectures whose packages are wanted besides
 */
export function privateApt(root, foreign = []) {
  for (const folder of ["state/lists/partial", "cache/archives/partial", "none"]) {
    mkdirSync(join(root, folder), { recursive: true });
  }
  writeFileSync(join(root, "status"), "");
  const keyring = keyrings.find(existsSync);
  if (keyring === undefined) throw new Error(`no keyring: install debian-archive-keyring`);
  const uri = mirror();
  const lines = suites.map((suite) => `deb [signed-by=${keyring}] ${uri} ${suite} main\n`);
  writeFileSync(join(root, "sources.list"), lines.join(""));
  const settings = {
    "Dir::State": join(root, "state"),
    "Dir::State::status": join(root, "status"),
    "Dir::Cache": join(root, "cache"),
    "Dir::Etc::sourcelist": join(root, "sources.list"),
    "Dir::Etc::sourceparts": join(root, "none"),
    "Dir::Etc::preferencesparts": join(root, "none"),
    "APT::Architecture": "amd64",
    "APT::Sandbox::User": "",
    "APT::Install-Recommends": "false",
    "Acquire::Languages": "none",
  };
  const text = Object.entries(settings).map(([name, value]) => `${name} "${value}";\n`);
  const all = ["amd64", ...foreign].map((name) => `"${name}"; `).join("");
  const architectures = `#clear APT::Architectures;\nAPT::Architectures { ${all}};\n`;
  writeFileSync(join(root, "apt.conf"), `${architectures}${text.join("")}`);
  return { root, env: { ...process.env, APT_CONFIG: join(root, "apt.conf"), LC_ALL: "C" } };
}

/** Version of a package that apt would take, backports first. */
export function candidate(apt, name) {
  const args = ["-o", `APT::Default-Release=${suites[1]}`, "policy", name];
  const found = /Candidate: (\S+)/.exec(run("apt-cache", args, { env: apt.env }));
  if (found === null || found[1] === "(none)") throw new Error(`no package ${name} in ${suites}`);
  return found[1];
}

/** Unpacks packages into `folder`, which appears only when all are unpacked. */
function unpack(folder, files) {
  const partial = `${folder}.partial`;
  rmSync(partial, { recursive: true, force: true });
  mkdirSync(partial, { recursive: true });
  for (const file of files) run("dpkg-deb", ["-x", file, partial]);
  renameSync(partial, folder);
}

/** Downloads packages and, with `depends`, all that they need; unpacks them into `folder`. */
export function fetchInto(apt, folder, packages, depends) {
  if (existsSync(folder)) return;
  say(`fetching ${packages.join(" ")} …`);
  const downloads = `${folder}.downloads`;
  rmSync(downloads, { recursive: true, force: true });
  mkdirSync(join(downloads, "partial"), { recursive: true });
  const common = ["-q", "-y", "-t", suites[1]];
  if (depends) {
    const archives = ["-o", `Dir::Cache::archives=${downloads}`];
    run("apt-get", [...common, ...archives, "--download-only", "install", ...packages], {
      env: apt.env,
    });
  } else {
    run("apt-get", [...common, "download", ...packages], { env: apt.env, cwd: downloads });
  }
  const files = readdirSync(downloads).filter((name) => name.endsWith(".deb"));
  unpack(
    folder,
    files.map((name) => join(downloads, name)),
  );
  rmSync(downloads, { recursive: true, force: true });
}
