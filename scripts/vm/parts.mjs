// Where the parts of a test machine lie: QEMU with its libraries, a Linux kernel with its modules,
// and a static busybox, unpacked in a cache folder beside the system. fetch.mjs fills it.
import { existsSync, readdirSync, readFileSync, realpathSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

/** The cache folder: nothing outside it is ever written by these scripts. */
export function cacheFolder() {
  return join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "iommukit", "vm");
}

/** The file that lists what was fetched last, for a kernel series such as `7.2`. */
export function partsFile(series, arch = "amd64") {
  return join(cacheFolder(), `parts-${series}${arch === "amd64" ? "" : `-${arch}`}.json`);
}

/** The series that is used where none is named: the one the bundled recordings come from. */
export const kernelSeries = "7.2";

/**
 * What was fetched: `{ qemu: folder, kernel: folder, release, busybox: folder, versions }`, or null
 * when something is missing.
 */
export function readParts(series = kernelSeries, arch = "amd64") {
  try {
    const parts = JSON.parse(readFileSync(partsFile(series, arch), "utf8"));
    const needed = [qemuProgram(parts), vmlinuz(parts), modulesFolder(parts), busybox(parts)];
    return needed.every(existsSync) ? parts : null;
  } catch {
    return null;
  }
}

/** Whether the guest is an Arm one; else it is an x86 one. */
export const isArm = (parts) => parts.arch === "arm64";
export const qemuProgram = (parts) =>
  join(parts.qemu, "usr/bin", `qemu-system-${isArm(parts) ? "aarch64" : "x86_64"}`);
export const busybox = (parts) => join(parts.busybox, "usr/bin/busybox");

/** The kernel image, wherever this packaging puts it. */
export function vmlinuz(parts) {
  const boot = join(parts.kernel, "boot", `vmlinuz-${parts.release}`);
  return existsSync(boot) ? boot : join(modulesFolder(parts), "vmlinuz");
}

export function modulesFolder(parts) {
  const merged = join(parts.kernel, "usr/lib/modules", parts.release);
  return existsSync(merged) ? merged : join(parts.kernel, "lib/modules", parts.release);
}

/** Folders of libraries below `root`, the deepest last. */
function libraryFolders(root) {
  const found = [];
  const visit = (folder, depth) => {
    if (!existsSync(folder)) return;
    const entries = readdirSync(folder, { withFileTypes: true });
    if (entries.some(({ name }) => /\.so(\.|$)/.test(name))) found.push(folder);
    if (depth === 0) return;
    for (const entry of entries) {
      if (entry.isDirectory()) visit(join(folder, entry.name), depth - 1);
    }
  };
  visit(join(root, "usr/lib/x86_64-linux-gnu"), 1);
  visit(join(root, "lib/x86_64-linux-gnu"), 0);
  return found;
}

/**
 * The words that start the unpacked QEMU with its own loader, libraries and firmware, whatever the
 * system itself has: `[program, …arguments]`.
 */
export function qemuCommand(parts) {
  const loader = ["usr/lib64", "lib64", "usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"]
    .map((folder) => join(parts.qemu, folder, "ld-linux-x86-64.so.2"))
    .find(existsSync);
  if (loader === undefined) throw new Error(`no dynamic loader below ${parts.qemu}`);
  return [
    realpathSync(loader),
    "--library-path",
    libraryFolders(parts.qemu).join(":"),
    qemuProgram(parts),
    ...["qemu", "seabios", "ovmf"].flatMap((name) => {
      const folder = join(parts.qemu, "usr/share", name);
      return existsSync(folder) ? ["-L", folder] : [];
    }),
  ];
}
