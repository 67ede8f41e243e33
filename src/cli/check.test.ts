import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { capturePath } from "../host/real-hosts.suite.ts";
import { runCommandLine } from "./command-line.ts";
import { lockedLimit } from "./vm-input.ts";

const host = capturePath("q35-2node-intel-iommu");
const vm = "@examples/vms/two-nodes.sh";

async function run(...words: string[]) {
  let stdout = "";
  let stderr = "";
  const terminal = {
    width: 100,
    style: (_role: string, text: string) => text,
    print(text: string): void {
      stdout += text;
    },
    note(text: string): void {
      stderr += `${text}\n`;
    },
    progress(): void {},
  };
  const status = await runCommandLine(words, terminal, false);
  return { status, stdout, stderr };
}

describe("iommukit check", () => {
  it("prints findings as one object, and ends with 1 only under --strict", async () => {
    const words = ["check", "--root", host, "--qemu", vm, "--json"];
    const { status, stdout } = await run(...words);
    expect(status).toBe(0);
    const { schema, result } = JSON.parse(stdout);
    expect(schema).toBe("iommukit/check@1");
    expect(result.findings.map(({ code }: { code: string }) => code)).toEqual([
      "device-bound",
      "node-mismatch",
      "too-many-mappings",
      "boot-bypass",
      "no-access-platform",
    ]);
    expect((await run(...words, "--strict")).status).toBe(1);
  });

  it("ends with 0 under --strict where nothing is found", async () => {
    const { status, stdout } = await run("check", "--qemu", "qemu-system-x86_64", "--strict");
    expect([status, stdout]).toEqual([0, "nothing found\n"]);
  });

  it("reads the limit of a process", () => {
    const line = "Max locked memory         8388608              8388608              bytes";
    expect(lockedLimit(`Limit  Soft\n${line}\n`)).toBe(8_388_608n);
    expect(lockedLimit("Max locked memory         unlimited   unlimited  bytes")).toBeNull();
  });

  it("is documented with what it prints", async () => {
    const page = readFileSync("docs/check.md", "utf8");
    const shown = [...page.matchAll(/<!-- output of: (.+) -->\n```\n([\s\S]*?)\n```/g)];
    expect(shown.length).toBeGreaterThan(2);
    for (const [, words, text] of shown) {
      const { stdout } = await run(...words!.split(" "));
      expect(stdout.trimEnd()).toBe(text);
    }
  });

  it("lists all codes where explain is given none", async () => {
    const { status, stdout } = await run("explain");
    expect(status).toBe(0);
    expect(stdout.split("\n")).toContain("rmrr-refused");
  });

  it.each([
    [["explain", "bogus"], /without an argument lists all codes/],
    [["check", "--qemu", "x", "--pid", "1"], /exclude each other/],
    [["check", "--qemu", "@/nowhere"], /there is no such file/],
    [["check", "--libvirt", "package.json"], /no libvirt domain/],
    [["check", "--pid", "x"], /no process id/],
    [["check", "--pid", `${process.pid}`], /this is no QEMU/],
    [["inspect", "--qemu", ""], /the command line is empty/],
    [["check", "--qemu", "ls -la /tmp"], /this is no QEMU command line/],
    [["check", "--qemu", "@/bin/true"], /this is no QEMU command line/],
    [["check", "--qemu", "@src/host/vm.ts"], /no QEMU command line|no command line/],
    [["check", "--device", "zz"], /no PCI function/],
    [["inspect", "--root", host, "--emit", "xen", "--device", "81:00.0"], /qemu or libvirt/],
    [["explain", "nod-mismatch"], /iommukit explain node-mismatch/],
  ])("%j is refused with status 2", async (words, message) => {
    const { status, stdout, stderr } = await run(...words);
    expect(stderr).toMatch(message);
    expect([status, stdout]).toEqual([2, ""]);
  });
});
