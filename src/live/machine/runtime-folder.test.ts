import { spawn } from "node:child_process";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { RuntimeFolder } from "./runtime-folder.ts";

let base: string;

beforeEach(() => {
  base = fs.mkdtempSync(join(tmpdir(), "iommukit-folder-"));
});
afterEach(() => fs.rmSync(base, { recursive: true, force: true }));

/** A folder of the name, with a file in it that is none of ours. */
function foreign(name: string, mode = 0o700): string {
  const path = join(base, name);
  fs.mkdirSync(path);
  fs.writeFileSync(join(path, "thesis.txt"), "years of work");
  fs.chmodSync(path, mode);
  return path;
}

async function claimed(path: string, machine = "m"): Promise<RuntimeFolder> {
  const folder = new RuntimeFolder(path);
  await folder.claim(machine);
  return folder;
}

const refusal = (message: RegExp) =>
  expect.objectContaining({
    code: "live/runtime-folder",
    message: expect.stringMatching(message),
    hint: expect.stringMatching(/./),
  });

/** What a process leaves that is killed: the files, the list, and no lock. */
function crashed(path: string, files: readonly string[], isMade: boolean): void {
  fs.mkdirSync(path, { recursive: true, mode: 0o700 });
  for (const name of files) fs.writeFileSync(join(path, name), "stale");
  const list = { machine: "m", process: 1, isMade, files };
  fs.writeFileSync(join(path, "served.json"), JSON.stringify(list));
}

describe.runIf(process.platform === "linux")("a runtime folder", () => {
  it("that was there keeps what was in it, and its mode, when it is given up", async () => {
    const path = foreign("own");
    const folder = await claimed(path);
    folder.write(folder.viot, new Uint8Array(8));
    folder.makeSparse(folder.diskOf("d"), 4096);
    folder.remove();
    expect(fs.readdirSync(path)).toEqual(["thesis.txt"]);
    expect(fs.statSync(path).mode & 0o777).toBe(0o700);
  });

  it("that was made is removed with those above it, in mode 0700 until then", async () => {
    const path = join(base, "a", "b");
    const folder = await claimed(path);
    folder.write(folder.viot, new Uint8Array(8));
    expect(fs.statSync(path).mode & 0o777).toBe(0o700);
    folder.remove();
    expect(fs.readdirSync(base)).toEqual([]);
  });

  it("that was made stays when somebody has put a file into it", async () => {
    const folder = await claimed(join(base, "run"));
    folder.write(folder.viot, new Uint8Array(8));
    fs.writeFileSync(join(folder.path, "notes"), "");
    folder.remove();
    expect(fs.readdirSync(folder.path)).toEqual(["notes"]);
  });

  it("open to others is refused, and its mode is left alone", async () => {
    const path = foreign("open", 0o755);
    await expect(claimed(path)).rejects.toEqual(refusal(/mode 0755/));
    expect(fs.statSync(path).mode & 0o777).toBe(0o755);
  });

  it("is not made where everybody can write, and nothing above it is", async () => {
    const parent = foreign("all", 0o777);
    await expect(claimed(join(parent, "x", "run"))).rejects.toEqual(refusal(/everybody/));
    expect(fs.readdirSync(parent)).toEqual(["thesis.txt"]);
  });

  it("that is a link, or a file, is refused before anything is made", async () => {
    const target = foreign("target");
    fs.symlinkSync(target, join(base, "link"));
    fs.symlinkSync(join(base, "nowhere"), join(base, "dangling"));
    await expect(claimed(join(base, "link"))).rejects.toEqual(refusal(/link/));
    await expect(claimed(join(base, "dangling"))).rejects.toEqual(refusal(/link/));
    await expect(claimed(join(base, "dangling", "x"))).rejects.toEqual(refusal(/link|ENO/));
    await expect(claimed(join(target, "thesis.txt"))).rejects.toEqual(refusal(/no folder/));
    await expect(claimed(join(target, "thesis.txt", "x"))).rejects.toEqual(refusal(/folder|ENO/));
    expect(fs.existsSync(join(base, "nowhere"))).toBe(false);
  });

  it.runIf(process.getuid?.() === 0)("of another user is refused", async () => {
    const path = foreign("theirs");
    fs.chownSync(path, 12_345, 12_345);
    await expect(claimed(path)).rejects.toEqual(refusal(/somebody else/));
    await expect(claimed(join(path, "run"))).rejects.toEqual(refusal(/somebody else/));
  });

  it("is one machine's: another is refused, told who has it, and may have it later", async () => {
    const path = join(base, "run");
    const first = await claimed(path, "alpha");
    first.makeSparse(first.diskOf("d"), 4096);
    await expect(claimed(path, "beta")).rejects.toEqual(
      refusal(new RegExp(`process ${process.pid} serves the machine alpha`)),
    );
    expect(fs.existsSync(first.diskOf("d"))).toBe(true);
    first.remove();
    (await claimed(path, "beta")).remove();
    expect(fs.existsSync(path)).toBe(false);
  });

  it("is given to exactly one of eight that want it at once", async () => {
    const all = Array.from({ length: 8 }, () => new RuntimeFolder(join(base, "run")));
    const results = await Promise.allSettled(all.map((folder) => folder.claim("m")));
    expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    for (const folder of all) folder.remove();
  });

  it("of a process that was killed is free again", async () => {
    const path = join(base, "run");
    fs.mkdirSync(path, { mode: 0o700 });
    const child = spawn("flock", ["-x", path, "-c", "echo held; read forever"], {
      stdio: ["pipe", "pipe", "inherit"],
      detached: true,
    });
    const ended = new Promise((resolve) => child.once("exit", resolve));
    await new Promise((resolve) => child.stdout.once("data", resolve));
    await expect(claimed(path)).rejects.toEqual(refusal(/another process/));
    process.kill(-child.pid!, "SIGKILL");
    await ended;
    (await claimed(path)).remove();
  });

  it("that a crash left loses what the crashed one made, and a new disk is empty", async () => {
    const path = foreign("own");
    crashed(path, ["d.disk", "d.sock", "viot.aml"], false);
    const folder = await claimed(path);
    folder.makeSparse(folder.diskOf("d"), 16);
    expect([...fs.readFileSync(folder.diskOf("d"))]).toEqual(new Array(16).fill(0));
    folder.remove();
    expect(fs.readdirSync(path)).toEqual(["thesis.txt"]);
    crashed(join(base, "made"), ["d.disk"], true);
    (await claimed(join(base, "made"))).remove();
    expect(fs.existsSync(join(base, "made"))).toBe(false);
  });

  it("refuses a list that names files elsewhere, and one that is none", async () => {
    for (const text of ['{"files":["../x"]}', "{", "[]"]) {
      const path = foreign(`list${text.length}`);
      const list = { machine: "m", process: 1, isMade: true, files: ["../victim"] };
      fs.writeFileSync(join(path, "served.json"), text === "{" ? JSON.stringify(list) : text);
      await expect(claimed(path)).rejects.toEqual(refusal(/no list/));
      expect(fs.existsSync(join(path, "served.json"))).toBe(true);
    }
  });

  it("refuses to make a file that is there already", async () => {
    const path = foreign("own");
    fs.writeFileSync(join(path, "d.disk"), "precious");
    const folder = await claimed(path);
    expect(() => folder.makeSparse(folder.diskOf("d"), 16)).toThrow(/there already/);
    folder.remove();
    expect(fs.readFileSync(join(path, "d.disk"), "utf8")).toBe("precious");
  });
});
