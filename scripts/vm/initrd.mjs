// Builds the initial RAM disk of a test guest: busybox, kernel modules with what they depend on,
// files, and an /init that runs one script and hands back what the script left in /out.
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { gzipSync } from "node:zlib";
import { busybox, modulesFolder } from "./parts.mjs";

const directory = 0o040755;
const program = 0o100755;
const symlink = 0o120777;

/** A cpio archive of the `newc` form that the kernel unpacks. */
export class Archive {
  #pieces = [];
  #inode = 0;
  #folders = new Set();

  folder(path) {
    if (path === "." || path === "" || this.#folders.has(path)) return;
    this.folder(path.split("/").slice(0, -1).join("/"));
    this.#folders.add(path);
    this.#entry(path, directory, Buffer.alloc(0));
  }

  file(path, content, mode = program) {
    this.folder(path.split("/").slice(0, -1).join("/"));
    this.#entry(path, mode, Buffer.from(content));
  }

  link(path, target) {
    this.file(path, target, symlink);
  }

  #entry(path, mode, content) {
    this.#inode += 1;
    const name = Buffer.from(`${path}\0`);
    const fields = [this.#inode, mode, 0, 0, 1, 0, content.length, 0, 0, 0, 0, name.length, 0];
    const head = fields.map((field) => field.toString(16).padStart(8, "0")).join("");
    const pad = (bytes) => Buffer.alloc((4 - (bytes % 4)) % 4);
    this.#pieces.push(Buffer.from(`070701${head}`), name, pad(110 + name.length));
    this.#pieces.push(content, pad(content.length));
  }

  bytes() {
    this.#entry("TRAILER!!!", 0, Buffer.alloc(0));
    return gzipSync(Buffer.concat(this.#pieces), { level: 1 });
  }
}

const moduleName = (file) => basename(file).split(".")[0].replaceAll("-", "_");

/** Every loadable module of the kernel: name to file. */
function moduleFiles(parts) {
  const root = join(modulesFolder(parts), "kernel");
  const paths = readdirSync(root, { recursive: true }).filter((path) => /\.ko(\.|$)/.test(path));
  return new Map(paths.map((path) => [moduleName(path), join(root, path)]));
}

const unpackers = { xz: ["xz", "-dc"], zst: ["zstd", "-dcq"], gz: ["gzip", "-dc"] };

function moduleBytes(file) {
  const unpacker = unpackers[file.split(".").at(-1)];
  if (unpacker === undefined) return readFileSync(file);
  const [command, flags] = unpacker;
  const done = spawnSync(command, [flags, file], { maxBuffer: 256 * 2 ** 20 });
  if (done.status !== 0) throw new Error(`${command} cannot unpack ${file}: ${done.stderr}`);
  return done.stdout;
}

/** Modules and what they need, in an order in which they load: `[{ name, bytes }]`. */
export function resolveModules(parts, wanted) {
  const files = moduleFiles(parts);
  const done = new Map();
  const visit = (given) => {
    const name = moduleName(given);
    if (done.has(name)) return;
    const file = files.get(name);
    if (file === undefined) {
      process.stderr.write(`no module ${given}: built in, or not of this kernel\n`);
      return;
    }
    const bytes = moduleBytes(file);
    done.set(name, null);
    const depends = /(?:^|\0)depends=([^\0]*)\0/.exec(bytes.toString("latin1"))?.[1] ?? "";
    for (const needed of depends.split(",").filter(Boolean)) visit(needed);
    done.delete(name);
    done.set(name, bytes);
  };
  for (const name of wanted) visit(name);
  return [...done].map(([name, bytes]) => ({ name, bytes }));
}

/** What the guest runs first. The script's own output goes to the console. */
function initScript(modules, parameters) {
  const loads = modules.map(
    ({ name }) =>
      `insmod /modules/${name}.ko ${parameters[name] ?? ""} || echo "insmod ${name}: $?"`,
  );
  return `#!/bin/sh
export PATH=/bin:/usr/bin
/bin/busybox mount -t proc proc /proc; /bin/busybox --install -s /bin
mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp; mkdir -p /out
mount -t tracefs tracing /sys/kernel/tracing 2>/dev/null
${loads.join("\n")}
/run.sh; echo $? > /out/status
port=/dev/ttyS1; [ -c /dev/ttyAMA1 ] && port=/dev/ttyAMA1
if [ -c $port ]; then stty -F $port raw -echo; tar -c -C /out . | gzip > $port; fi
sync; poweroff -f
`;
}

/**
 * The RAM disk, packed.
 *
 * @param guest - `script`: text of a shell script; `modules`: names, dependencies follow;
 *   `parameters`: module name to its parameters; `files`: path in the guest to content
 */
export function buildInitrd(parts, guest) {
  const archive = new Archive();
  for (const folder of ["proc", "sys", "dev", "tmp", "out", "usr/bin", "modules"]) {
    archive.folder(folder);
  }
  archive.file("bin/busybox", readFileSync(busybox(parts)));
  archive.link("bin/sh", "busybox");
  const modules = resolveModules(parts, guest.modules ?? []);
  for (const { name, bytes } of modules) archive.file(`modules/${name}.ko`, bytes);
  for (const [path, content] of Object.entries(guest.files ?? {})) {
    archive.file(path.replace(/^\/+/, ""), content);
  }
  archive.file(
    "run.sh",
    guest.script.startsWith("#!") ? guest.script : `#!/bin/sh\n${guest.script}`,
  );
  archive.file("init", initScript(modules, guest.parameters ?? {}));
  return archive.bytes();
}
