/** Commands to a guest and their answers, with a socket in the guest's place. */
import { mkdtempSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { GuestAgent } from "./guest-agent.ts";

let folder: string;
let agent: GuestAgent;
let guest: Socket;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "agent-"));
  agent = await GuestAgent.listen(join(folder, "s"));
  guest = connect(join(folder, "s"));
});
afterEach(() => {
  guest.destroy();
  agent.close();
  rmSync(folder, { recursive: true });
});

/** Answers each command by what `reply` makes of it, in small pieces. */
function answer(reply: (command: string) => [output: string, status: number]): void {
  guest.write("@re");
  guest.write("ady\r\n");
  guest.on("data", (bytes) => {
    const [output, status] = reply(Buffer.from(bytes.toString(), "base64").toString());
    const lines =
      Buffer.from(output)
        .toString("base64")
        .match(/.{1,8}/g) ?? [];
    for (const line of lines) guest.write(`${line}\r\n`);
    guest.write(`@done ${status}\n`);
  });
}

describe("a guest's agent", () => {
  it("answers commands one after the other, with output and status", async () => {
    answer((command) => [`ran ${command}`, command === "false" ? 1 : 0]);
    await agent.ready(5000);
    expect(await agent.run("echo é")).toMatchObject({ status: 0, output: "ran echo é" });
    expect(await agent.run("false")).toMatchObject({ status: 1, output: "ran false" });
  });

  it("that closes its end fails the command that waits, and all after it", async () => {
    guest.write("@ready\n");
    await agent.ready(5000);
    const lost = agent.run("sleep 1000");
    guest.end();
    await expect(lost).rejects.toThrow("QEMU has closed its serial port");
    await expect(agent.run("true")).rejects.toThrow("QEMU has closed its serial port");
  });

  it("that never answers is given up after the time allowed", async () => {
    await expect(agent.ready(1)).rejects.toThrow("it took longer than 0.001 s: booting");
  });
});
