// Fetches the parts of a test machine into the cache folder: `node scripts/vm/fetch.mjs [--kernel 7.2]`.
//
// QEMU, a Linux kernel of the wanted series and busybox come as Debian packages of trixie and its
// backports, through apt with a state of its own: the system is not touched, signatures and sums are
// checked by apt as ever. The mirror is the one that the machine's apt uses; a machine that is no
// Debian names one in IOMMUKIT_DEBIAN_MIRROR. What is there already is not fetched again.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { cacheFolder, kernelSeries, partsFile, readParts } from "./parts.mjs";

const suites = ["trixie", "trixie-backports"];
const keyrings = ["gpg", "pgp"].map((end) => `/usr/share/keyrings/debian-archive-keyring.${end}`);

const say = (text) => process.stderr.write(`${text}\n`);

function run(command, args, options = {}) {
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

/** Sets up apt's private folders; returns its environment. */
function privateApt() {
  const root = join(cacheFolder(), "apt");
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
  writeFileSync(join(root, "apt.conf"), `#clear APT::Architectures;\n${text.join("")}`);
  return { root, env: { ...process.env, APT_CONFIG: join(root, "apt.conf"), LC_ALL: "C" } };
}

/** Version of a package that apt would take from the backports. */
function candidate(apt, name) {
  const args = ["-o", `APT::Default-Release=${suites[1]}`, "policy", name];
  const found = /Candidate: (\S+)/.exec(run("apt-cache", args, { env: apt.env }));
  if (found === null || found[1] === "(none)") throw new Error(`no package ${name} in ${suites}`);
  return found[1];
}

/** The newest release of a kernel series, as `7.2.12+deb13-amd64`. */
function newestRelease(apt, series) {
  const pattern = `^linux-binary-${series.replaceAll(".", "\\.")}\\.[0-9]+\\+deb[0-9]+-amd64$`;
  const names = run("apt-cache", ["pkgnames", `linux-binary-${series}.`], { env: apt.env });
  const matching = names.split("\n").filter((name) => new RegExp(pattern).test(name));
  if (matching.length === 0) {
    const all = run("apt-cache", ["pkgnames", "linux-binary-"], { env: apt.env });
    const series = [...all.matchAll(/^linux-binary-([0-9]+\.[0-9]+)\.[0-9]+\+.*$/gm)];
    throw new Error(`no kernel of this series; there are ${[...new Set(series.map((m) => m[1]))]}`);
  }
  const patch = (name) => Number(name.match(/[0-9]+/g)[2]);
  matching.sort((a, b) => patch(a) - patch(b));
  return matching.at(-1).slice("linux-binary-".length);
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
function fetchInto(apt, folder, packages, depends) {
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

/** Fetches what is missing; returns the parts as parts.mjs reads them. */
export function fetchParts(series = kernelSeries, update = false) {
  const there = update ? null : readParts(series);
  if (there !== null) return there;
  const apt = privateApt();
  say("reading the package lists …");
  run("apt-get", ["-q", "update"], { env: apt.env });
  const release = newestRelease(apt, series);
  const versions = {
    qemu: candidate(apt, "qemu-system-x86"),
    kernel: candidate(apt, `linux-binary-${release}`),
    busybox: candidate(apt, "busybox-static"),
  };
  const folderOf = (name, version) => join(cacheFolder(), `${name}-${version.replace(/:/g, "_")}`);
  const parts = {
    qemu: folderOf("qemu", versions.qemu),
    kernel: folderOf("kernel", release),
    busybox: folderOf("busybox", versions.busybox),
    release,
    versions,
  };
  fetchInto(apt, parts.qemu, [`qemu-system-x86=${versions.qemu}`], true);
  fetchInto(apt, parts.busybox, [`busybox-static=${versions.busybox}`], false);
  const kernel = [`linux-binary-${release}`, `linux-modules-${release}`];
  fetchInto(apt, parts.kernel, kernel, false);
  writeFileSync(partsFile(series), `${JSON.stringify(parts, null, 2)}\n`);
  const read = readParts(series);
  if (read === null) throw new Error("the packages hold no QEMU, kernel or busybox where expected");
  return read;
}

if (import.meta.url === `file://${process.argv[1]}`) {
  const { values } = parseArgs({
    options: { kernel: { type: "string", default: kernelSeries }, update: { type: "boolean" } },
  });
  const parts = fetchParts(values.kernel, values.update);
  process.stdout.write(`${JSON.stringify(parts, null, 2)}\n`);
}
