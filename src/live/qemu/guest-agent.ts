/**
 * Runs commands in a guest over its second serial port, one at a time, and brings back their output
 * and status; what is counted on this side stands still in between.
 *
 * Protocol: the guest says `@ready`; a command goes there as one line of base64, its output comes
 * back as lines of base64, then `@done STATUS`. {@link AGENT_SCRIPT} is the other end, for
 * busybox's shell.
 */
import { createServer, type Server, type Socket } from "node:net";
import { StackError } from "../../errors.ts";

/** What the guest runs. */
export const AGENT_SCRIPT = `stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
echo @ready >&3
while read -r line <&3; do
  echo "$line" | base64 -d > /tmp/command
  sh /tmp/command > /tmp/output 2>&1 < /dev/null
  status=$?
  base64 /tmp/output >&3
  echo "@done $status" >&3
done
`;

/** QEMU's arguments for a guest whose agent is reached at a socket; behind `-serial stdio`. */
export function agentArguments(socket: string): string[] {
  return ["-chardev", `socket,id=agent,path=${socket}`, "-serial", "chardev:agent"];
}

/** What a command came to. */
export interface GuestAnswer {
  readonly status: number;
  /** As text; {@link bytes} as it came. */
  readonly output: string;
  readonly bytes: Uint8Array;
}

/** Bytes of output that are kept of one command. */
const OUTPUT_MAX = 64 << 20;

interface Waiter {
  readonly resolve: (answer: GuestAnswer) => void;
  readonly reject: (error: Error) => void;
}

/** The agent of one guest. Listens before QEMU starts; {@link close} it. */
export class GuestAgent {
  readonly #server: Server;
  #socket: Socket | null = null;
  #text = "";
  #lines: string[] = [];
  #outputBytes = 0;
  #waiter: Waiter | null = null;
  #failure: Error | null = null;

  private constructor(server: Server) {
    this.#server = server;
    server.on("connection", (socket) => this.#connected(socket));
  }

  /** Listens at a path. */
  static listen(path: string): Promise<GuestAgent> {
    return new Promise((resolve, reject) => {
      const server = createServer();
      server.once("error", reject);
      server.listen(path, () => resolve(new GuestAgent(server)));
    });
  }

  /** Waits until the guest has booted. */
  async ready(timeoutMs: number): Promise<void> {
    await this.#answer("booting", timeoutMs);
  }

  /**
   * Runs a shell command in the guest.
   *
   * @throws StackError `live/guest` when the guest goes away or takes too long
   */
  run(command: string, timeoutMs = 60_000): Promise<GuestAnswer> {
    const answer = this.#answer(command.trim().split("\n")[0]!, timeoutMs);
    this.#socket?.write(`${Buffer.from(command).toString("base64")}\n`);
    return answer;
  }

  /** Sends a command that the guest does not come back from. */
  leave(command: string): void {
    this.#socket?.write(`${Buffer.from(command).toString("base64")}\n`);
  }

  /** Tells whoever waits that there will be no answer. */
  fail(why: string): void {
    this.#failure = lost(why);
    this.#waiter?.reject(this.#failure);
    this.#waiter = null;
  }

  close(): void {
    this.#socket?.destroy();
    this.#server.close();
  }

  #answer(what: string, timeoutMs: number): Promise<GuestAnswer> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
    this.#lines = [];
    this.#outputBytes = 0;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiter = null;
        reject(lost(`it took longer than ${timeoutMs / 1000} s: ${what}`));
      }, timeoutMs);
      const done = () => clearTimeout(timer);
      this.#waiter = {
        resolve: (answer) => {
          done();
          resolve(answer);
        },
        reject: (error) => {
          done();
          reject(error);
        },
      };
    });
  }

  #connected(socket: Socket): void {
    this.#socket = socket;
    socket.setEncoding("latin1");
    socket.on("data", (text: string) => this.#receive(text));
    socket.on("error", () => {});
    socket.on("close", () => this.fail("QEMU has closed its serial port"));
  }

  #receive(text: string): void {
    const lines = (this.#text + text).split("\n");
    this.#text = lines.pop() ?? "";
    for (const line of lines) this.#line(line.trim());
  }

  #line(line: string): void {
    if (line === "@ready") this.#settle(0);
    else if (line.startsWith("@done ")) this.#settle(Number(line.slice("@done ".length)));
    else if (this.#outputBytes + line.length <= OUTPUT_MAX) {
      this.#lines.push(line);
      this.#outputBytes += line.length;
    }
  }

  #settle(status: number): void {
    const bytes = Buffer.from(this.#lines.join(""), "base64");
    const waiter = this.#waiter;
    this.#waiter = null;
    waiter?.resolve({ status, output: bytes.toString("utf8"), bytes });
  }
}

function lost(why: string): StackError {
  return new StackError({
    code: "live/guest",
    kind: "input",
    message: `The guest does not answer: ${why}`,
    hint: "its console tells more: see --console",
  });
}
