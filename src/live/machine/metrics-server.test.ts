import * as fs from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { openLinuxSystem } from "../system/linux-system.ts";
import type { System } from "../system/system.ts";
import { MetricsServer, scrapeText } from "./metrics-server.ts";

let base: string;
let system: System;

beforeEach(async () => {
  base = fs.mkdtempSync(join(tmpdir(), "iommukit-metrics-"));
  system = await openLinuxSystem();
});
afterEach(() => fs.rmSync(base, { recursive: true, force: true }));

const serve = (path: string) => MetricsServer.listen(system, { kind: "unix", path }, () => []);
const scrape = (path: string) => scrapeText({ kind: "unix", path });

describe.runIf(process.platform === "linux")("metrics at a path", () => {
  it("of a regular file are refused, and the file is left as it is", async () => {
    const path = join(base, "thesis");
    fs.writeFileSync(path, "years of work");
    await expect(serve(path)).rejects.toMatchObject({ code: "live/socket" });
    expect(fs.readFileSync(path, "utf8")).toBe("years of work");
  });

  it("are refused where another server answers, which goes on", async () => {
    const path = join(base, "m.sock");
    const first = await serve(path);
    await expect(serve(path)).rejects.toMatchObject({ code: "live/socket" });
    expect(await scrape(path)).toBe("# EOF\n");
    first.close();
    expect(system.ledger.descriptorCount).toBe(0);
  });

  it("take the place of a dead server's socket, open to this user alone", async () => {
    const path = join(base, "m.sock");
    system.close(system.listen(path, 1, "dead"));
    const server = await serve(path);
    expect(fs.statSync(path).mode & 0o777).toBe(0o600);
    expect(await scrape(path)).toBe("# EOF\n");
    server.close();
    expect(fs.existsSync(path)).toBe(false);
  });

  it("keep at most 16 connections, and none for long: scrapes are answered again", async () => {
    const path = join(base, "m.sock");
    const server = await serve(path);
    const before = fs.readdirSync("/proc/self/fd").length;
    const clients = Array.from({ length: 200 }, () => connect(path));
    let closed = 0;
    const ends = clients.map(
      (client) =>
        new Promise<void>((resolve) => {
          client.on("error", () => {});
          client.on("close", () => {
            closed += 1;
            resolve();
          });
          client.resume().write("GET /metrics HTTP/1.1\r\nHost: a\r\nX-Slow: ");
        }),
    );
    while (closed < 184) await new Promise((resolve) => setTimeout(resolve, 5));
    // Both ends of a connection are this process's.
    expect(fs.readdirSync("/proc/self/fd").length - before).toBeLessThanOrEqual(32);
    await Promise.all(ends);
    expect(await scrape(path)).toBe("# EOF\n");
    server.close();
  }, 30_000);
});
