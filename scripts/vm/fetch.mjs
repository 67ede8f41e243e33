// Fetches the parts of a test machine into the cache folder:
// `node scripts/vm/fetch.mjs [--kernel 7.2] [--arch amd64|arm64]`.
//
// QEMU, a Linux kernel of the wanted series and busybox come as Debian packages of trixie and its
// backports, through apt with a state of its own: the system is not touched, signatures and sums are
// checked by apt as ever. The mirror is the one that the machine's apt uses; a machine that is no
// Debian names one in IOMMUKIT_DEBIAN_MIRROR. What is there already is not fetched again.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { candidate, fetchInto, privateApt, run, say } from "../tools/debian.mjs";
import { cacheFolder, kernelSeries, partsFile, readParts } from "./parts.mjs";

/** The newest release of a kernel series, as `7.2.12+deb13-amd64`. */
function newestRelease(apt, series, arch) {
  const pattern = `^linux-binary-${series.replaceAll(".", "\\.")}\\.[0-9]+\\+deb[0-9]+-${arch}$`;
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

/** Fetches what is missing; returns the parts as parts.mjs reads them. */
export function fetchParts(series = kernelSeries, update = false, arch = "amd64") {
  const there = update ? null : readParts(series, arch);
  if (there !== null) return there;
  const isNative = arch === "amd64";
  const apt = privateApt(
    join(cacheFolder(), isNative ? "apt" : `apt-${arch}`),
    isNative ? [] : [arch],
  );
  const guest = (name) => (isNative ? name : `${name}:${arch}`);
  const emulator = isNative ? "qemu-system-x86" : "qemu-system-arm";
  say("reading the package lists …");
  run("apt-get", ["-q", "update"], { env: apt.env });
  const release = newestRelease(apt, series, arch);
  const versions = {
    qemu: candidate(apt, emulator),
    kernel: candidate(apt, guest(`linux-binary-${release}`)),
    busybox: candidate(apt, guest("busybox-static")),
  };
  const folderOf = (name, version) => join(cacheFolder(), `${name}-${version.replace(/:/g, "_")}`);
  const parts = {
    qemu: folderOf(isNative ? "qemu" : emulator, versions.qemu),
    kernel: folderOf("kernel", release),
    busybox: folderOf(isNative ? "busybox" : `busybox-${arch}`, versions.busybox),
    arch,
    release,
    versions,
  };
  fetchInto(apt, parts.qemu, [`${emulator}=${versions.qemu}`], true);
  fetchInto(apt, parts.busybox, [`${guest("busybox-static")}=${versions.busybox}`], false);
  const kernel = [`linux-binary-${release}`, `linux-modules-${release}`].map(guest);
  fetchInto(apt, parts.kernel, kernel, false);
  writeFileSync(partsFile(series, arch), `${JSON.stringify(parts, null, 2)}\n`);
  const read = readParts(series, arch);
  if (read === null) throw new Error("the packages hold no QEMU, kernel or busybox where expected");
  return read;
}

if (import.meta.url === `file://${process.argv[1]}`) {
  const { values } = parseArgs({
    options: {
      kernel: { type: "string", default: kernelSeries },
      arch: { type: "string", default: "amd64" },
      update: { type: "boolean" },
    },
  });
  const parts = fetchParts(values.kernel, values.update, values.arch);
  process.stdout.write(`${JSON.stringify(parts, null, 2)}\n`);
}
