/** The core in a browser: bundled without Node, it replays a recording to the same bytes. */
import { readFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { gunzipSync } from "node:zlib";
import { build } from "esbuild";
import { chromium } from "playwright-core";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { itNeeds } from "../support/tools.ts";
import { replayText } from "./page.ts";

const recording = "examples/boot-lazy-2cpu.txt.gz";

async function* whole(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

describe("the core in headless Chromium", () => {
  let server: Server | undefined;
  let origin = "";

  beforeAll(async () => {
    const bundle = await build({
      entryPoints: ["test/browser/page.ts"],
      bundle: true,
      platform: "browser",
      format: "iife",
      globalName: "core",
      target: "es2023",
      write: false,
      logLevel: "silent",
    });
    const script = bundle.outputFiles[0]!.text;
    const answers = new Map<string, [string, Uint8Array | string]>([
      ["/", ["text/html", "<!doctype html><title>core</title><script src=core.js></script>"]],
      ["/core.js", ["text/javascript", script]],
      ["/recording", ["application/octet-stream", readFileSync(recording)]],
    ]);
    const listening = createServer((request, response) => {
      const [type, body] = answers.get(request.url ?? "") ?? ["text/plain", ""];
      response.writeHead(body === "" ? 404 : 200, { "content-type": type }).end(body);
    });
    server = listening;
    await new Promise<void>((resolve) => listening.listen(0, "127.0.0.1", resolve));
    origin = `http://127.0.0.1:${(listening.address() as AddressInfo).port}/`;
  });

  afterAll(() => {
    server?.close();
  });

  itNeeds(
    "chromium",
    "replays a real boot under every policy to the same bytes as in Node",
    async (path) => {
      const browser = await chromium.launch({
        executablePath: path,
        args: [
          "--no-sandbox",
          "--disable-gpu",
          "--disable-quic",
          "--no-first-run",
          "--disable-background-networking",
          "--disable-component-update",
          "--disable-sync",
        ],
      });
      try {
        const page = await browser.newPage();
        const errors: string[] = [];
        page.on("pageerror", (error) => errors.push(String(error)));
        await page.goto(origin);
        const inBrowser = await page.evaluate(
          "core.replayUrl('boot', new URL('recording', location.href).href)",
        );
        expect(errors).toEqual([]);
        const inNode = await replayText("boot", whole(gunzipSync(readFileSync(recording))));
        expect(inBrowser).toBe(inNode);
        expect(inNode.length).toBeGreaterThan(1000);
      } finally {
        await browser.close();
      }
    },
    120_000,
  );
});
