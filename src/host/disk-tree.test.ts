import { execFileSync } from "node:child_process";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CapturingTree } from "./capture.ts";
import { DiskTree } from "./disk-tree.ts";
import { openHost } from "./open-host.ts";
import { capturePath, realHost } from "./real-hosts.suite.ts";
import { readHost } from "./sysfs.ts";
import { readTar } from "./tar.ts";
import { follow, resolvePath } from "./tree.ts";

const folder = mkdtempSync(join(tmpdir(), "host-"));
const name = "q35-2node-intel-iommu";

/** Unpacks a capture: with links as links, or each as a file that holds its target. */
function unpack(root: string, areLinksFiles: boolean): void {
  for (const member of readTar(gunzipSync(readFileSync(capturePath(name))), name)) {
    const path = join(root, member.path);
    mkdirSync(member.kind === "directory" ? path : dirname(path), { recursive: true });
    if (member.kind === "file") writeFileSync(path, member.bytes);
    else if (member.kind === "link" && areLinksFiles) writeFileSync(path, member.target);
    else if (member.kind === "link") symlinkSync(member.target, path);
  }
}

const real = join(folder, "real");
beforeAll(() => unpack(real, false));
afterAll(() => {
  execFileSync("chmod", ["-R", "u+rwx", folder]);
  rmSync(folder, { recursive: true });
});

describe("a host on disk", () => {
  it("is read as its capture is, and captured to the same bytes", () => {
    const tree = new CapturingTree(new DiskTree(real));
    expect(readHost(tree)).toEqual(readHost(realHost(name)));
    expect(tree.archive()).toEqual(new Uint8Array(readFileSync(capturePath(name))));
  });

  it("whose links became files with their target is read all the same", () => {
    const flat = join(folder, "flat");
    unpack(flat, true);
    expect(readHost(new DiskTree(flat))).toEqual(readHost(realHost(name)));
  });

  it("packed by tar, below a directory and with files longer than they are, is found", () => {
    const path = join(folder, "by-tar.tar.gz");
    execFileSync("tar", ["czf", path, "-C", folder, "real"]);
    const opened = openHost(path);
    expect(opened.kind).toBe("tree");
    if (opened.kind !== "tree") return;
    expect(readHost(opened.tree).machine).toEqual(readHost(realHost(name)).machine);
  });

  it("packed with zeros behind short files, as tar does with sysfs, reads the same text", () => {
    const padded = readTar(gunzipSync(readFileSync(capturePath(name))), name).map((member) => {
      if (member.kind !== "file" || !/numa_node|resource|type$/.test(member.path)) return member;
      const bytes = new Uint8Array(4096);
      bytes.set(member.bytes);
      return { ...member, bytes };
    });
    const root = join(folder, "padded");
    for (const member of padded) {
      if (member.kind !== "file") continue;
      mkdirSync(dirname(join(root, member.path)), { recursive: true });
      writeFileSync(join(root, member.path), member.bytes);
    }
    const tree = new DiskTree(root);
    const path = "/sys/devices/pci0000:80/0000:80:00.0/0000:81:00.0/numa_node";
    expect(tree.text(path)).toBe("1");
  });

  it("never leads outside: links to the system are not followed", () => {
    const root = join(folder, "hostile");
    const secret = join(folder, "secret");
    mkdirSync(join(root, "sys/bus/pci"), { recursive: true });
    mkdirSync(secret);
    writeFileSync(join(secret, "numa_node"), "1");
    symlinkSync(secret, join(root, "sys/out"));
    symlinkSync(join(secret, "numa_node"), join(root, "sys/file"));
    symlinkSync("../../..", join(root, "sys/up"));
    const tree = new DiskTree(root);
    expect(tree.text("/sys/out/numa_node")).toBe(null);
    expect(tree.text("/sys/file")).toBe(null);
    expect(tree.list("/sys/out")).toBe(null);
    expect(tree.list("/sys/up")).toBe(null);
    expect(tree.list("/sys/../..")).toBe(null);
  });

  it("does not wait for pipes, and follows rings of links only so far", () => {
    const root = join(folder, "odd");
    mkdirSync(join(root, "sys"), { recursive: true });
    execFileSync("mkfifo", [join(root, "sys/pipe")]);
    symlinkSync("b", join(root, "sys/a"));
    symlinkSync("a", join(root, "sys/b"));
    const tree = new DiskTree(root);
    expect(tree.text("/sys/pipe") ?? "").toBe("");
    expect(tree.list("/sys/a")).toBe(null);
    expect(["/sys/a", "/sys/b"]).toContain(follow(tree, "/sys/a"));
  });

  it.skipIf(process.getuid?.() === 0)("counts what may not be read", () => {
    const root = join(folder, "denied");
    mkdirSync(join(root, "sys"), { recursive: true });
    writeFileSync(join(root, "sys/file"), "x");
    chmodSync(join(root, "sys/file"), 0);
    const tree = new DiskTree(root);
    expect(tree.text("/sys/file")).toBe(null);
    expect(tree.deniedCount).toBe(1);
  });
});

describe("what stands for a host", () => {
  it("is refused where it is none, with what to pass instead", () => {
    const text = join(folder, "text");
    writeFileSync(text, "hello");
    const gzip = join(folder, "cut.tar.gz");
    writeFileSync(gzip, readFileSync(capturePath(name)).subarray(0, 500));
    expect(() => openHost(join(folder, "absent"))).toThrow(/no such file/);
    expect(() => openHost(text)).toThrow(/empty/);
    expect(() => openHost(gzip)).toThrow(/gzip data ends early/);
    expect(() => openHost(tmpdir())).toThrow(/no directory sys/);
  });
});

describe("paths", () => {
  it("never lead above the root", () => {
    expect(resolvePath("/sys/class/iommu", "../../devices/x")).toBe("/sys/devices/x");
    expect(resolvePath("/sys", "../../../../etc/passwd")).toBe("/etc/passwd");
    expect(resolvePath("/sys", "/proc/./x//y")).toBe("/proc/x/y");
  });
});
