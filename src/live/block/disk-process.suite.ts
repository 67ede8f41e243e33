/**
 * A process with a disk in a file, for tests that kill it or leave it without room.
 * `durability.test.ts` bundles and starts it: `PATH steps` writes and flushes until it is killed and
 * says which steps were flushed; `PATH fill` writes every block once and says what it was answered.
 */
import { writeSync } from "node:fs";
import { newView } from "../../memory/memory-view.ts";
import { openLinuxSystem } from "../system/linux-system.ts";
import { PollLoop } from "../worker/poll-loop.ts";
import { FileStore } from "./file-store.ts";

export const BLOCK = 65_536;

const [path = "", mode = ""] = process.argv.slice(2);
const system = await openLinuxSystem();
const loop = new PollLoop(system, (name, error) => {
  throw new Error(`${name}: ${error}`);
});
const store = FileStore.open(system, loop, { path, id: "disk", name: "disk" });
const blocks = store.bytes / BLOCK;
const view = newView(BLOCK);

/** Writes one block, each word of it the step. */
function write(step: number): number {
  view.u32.fill(step);
  let errno = -1;
  const segments = [{ view, at: 0, bytes: BLOCK }];
  store.write((step % blocks) * BLOCK, segments, (result) => {
    errno = result;
  });
  return errno;
}

function flush(): number {
  let errno = -1;
  store.flush((result) => {
    errno = result;
  });
  while (errno < 0) loop.turn(1000);
  return errno;
}

if (mode === "steps") {
  for (let step = 1; ; step += 1) {
    const errno = write(step);
    if (errno !== 0 || (step % 3 === 0 && flush() !== 0)) throw new Error(`step ${step}: ${errno}`);
    if (step % 3 === 0) writeSync(1, `${step}\n`);
  }
}
const answers = Array.from({ length: blocks }, (_, step) => write(step));
writeSync(1, `${JSON.stringify({ answers, flush: flush() })}\n`);
store.dispose();
