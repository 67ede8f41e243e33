/** Answers scrapes over HTTP, on a socket of the runtime folder or a loopback port. */
import { rmSync } from "node:fs";
import { createServer, request, type Server } from "node:http";
import { StackError } from "../../errors.ts";
import { listenAt } from "../supervisor/socket-path.ts";
import type { System } from "../system/system.ts";
import type { MetricsEndpoint } from "./live-machine.ts";
import { type MetricFamily, OPEN_METRICS_TYPE, openMetricsText } from "./open-metrics.ts";

const HEADER_BYTES_MAX = 8192;
const REQUEST_MS = 5000;
const CONNECTIONS_MAX = 16;
const ANSWER_BYTES_MAX = 16 << 20;

/** A running server; {@link close} it. */
export class MetricsServer {
  readonly #server: Server;
  readonly #endpoint: MetricsEndpoint;

  private constructor(server: Server, endpoint: MetricsEndpoint) {
    this.#server = server;
    this.#endpoint = endpoint;
  }

  /**
   * Listens. At a path, what a dead server left is removed, and nothing else.
   *
   * @throws StackError `live/metrics` or `live/socket` when the address is taken
   */
  static listen(
    system: System,
    endpoint: MetricsEndpoint,
    families: () => readonly MetricFamily[],
  ): Promise<MetricsServer> {
    const server = createServer({ maxHeaderSize: HEADER_BYTES_MAX }, (incoming, answer) => {
      const path = incoming.url?.split("?")[0];
      const isScrape = incoming.method === "GET" && (path === "/metrics" || path === "/");
      answer.shouldKeepAlive = false;
      if (!isScrape) {
        answer.writeHead(404, { "content-type": "text/plain" }).end("metrics are at /metrics\n");
        return;
      }
      answer.writeHead(200, { "content-type": OPEN_METRICS_TYPE }).end(openMetricsText(families()));
    });
    // A client has so long for all it does, be it slow to ask or slow to take the answer: the
    // descriptors of this process are for the guest's devices.
    server.maxConnections = CONNECTIONS_MAX;
    server.on("connection", (socket) => {
      const timer = setTimeout(() => socket.destroy(), REQUEST_MS);
      socket.once("close", () => clearTimeout(timer));
    });
    return new Promise((resolve, reject) => {
      server.once("error", (cause: NodeJS.ErrnoException) => reject(taken(endpoint, cause)));
      server.once("listening", () => resolve(new MetricsServer(server, endpoint)));
      if (endpoint.kind === "unix") {
        const fd = listenAt(system, endpoint.path, "metrics");
        // It is the server's from now on, which closes it.
        system.ledger.strike(fd);
        server.listen({ fd });
      } else server.listen(endpoint.port, "127.0.0.1");
    });
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
    if (this.#endpoint.kind === "unix") rmSync(this.#endpoint.path, { force: true });
  }
}

function nameOf(endpoint: MetricsEndpoint): string {
  return endpoint.kind === "unix" ? endpoint.path : `127.0.0.1:${endpoint.port}`;
}

function taken(endpoint: MetricsEndpoint, cause: NodeJS.ErrnoException): StackError {
  return new StackError({
    code: "live/metrics",
    kind: "input",
    message: `Metrics cannot be served (${cause.code ?? cause.message})`,
    at: { file: nameOf(endpoint) },
    hint: "name another address under `metrics` of the machine file",
    cause,
  });
}

/**
 * Scrapes a server.
 *
 * @throws StackError `live/no-metrics` when none answers
 */
export function scrapeText(endpoint: MetricsEndpoint): Promise<string> {
  const where =
    endpoint.kind === "unix"
      ? { socketPath: endpoint.path }
      : { host: "127.0.0.1", port: endpoint.port };
  return new Promise((resolve, reject) => {
    const fail = (why: string, cause?: unknown) =>
      reject(
        new StackError({
          code: "live/no-metrics",
          kind: "input",
          message: `No machine answers (${why})`,
          at: { file: nameOf(endpoint) },
          hint: "`iommukit serve` or `iommukit vm` must be running with this machine file",
          cause,
        }),
      );
    const outgoing = request({ ...where, path: "/metrics", timeout: REQUEST_MS }, (answer) => {
      const pieces: Buffer[] = [];
      let bytes = 0;
      answer.on("data", (piece: Buffer) => {
        bytes += piece.length;
        if (bytes > ANSWER_BYTES_MAX) answer.destroy();
        else pieces.push(piece);
      });
      answer.on("end", () => resolve(Buffer.concat(pieces).toString("utf8")));
      answer.on("error", (cause) => fail(cause.message, cause));
    });
    outgoing.on("timeout", () => outgoing.destroy(new Error("it is silent")));
    outgoing.on("error", (cause: NodeJS.ErrnoException) =>
      fail(cause.code ?? cause.message, cause),
    );
    outgoing.end();
  });
}
