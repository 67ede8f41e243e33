/** The worker's process: the devices of one machine, in a loop of their own. */
import { runWorker } from "../worker/run-worker.ts";
import { assemble } from "./assemble.ts";
import type { LiveMachine } from "./live-machine.ts";

await runWorker((machine, context) => assemble(machine as LiveMachine, context));
