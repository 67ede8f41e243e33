/** A guest behind served devices, for tests: built code, files of a folder that goes away. */
import { createHash } from "node:crypto";
import { closeSync, ftruncateSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { LiveDisk, LiveMachine } from "../../src/live/machine/live-machine.ts";
import { buildOnce } from "../run-cli.ts";

buildOnce();
const dist = (path: string) => import(new URL(`../../dist/${path}.js`, import.meta.url).href);
const { RuntimeFolder } = (await dist(
  "live/machine/runtime-folder",
)) as typeof import("../../src/live/machine/runtime-folder.ts");
const { serveMachine } = (await dist(
  "live/machine/serve-machine",
)) as typeof import("../../src/live/machine/serve-machine.ts");
const { AgentGuest } = (await dist(
  "live/qemu/agent-guest",
)) as typeof import("../../src/live/qemu/agent-guest.ts");
const { loadFioScript, loadScripts } = (await dist(
  "live/qemu/parts",
)) as typeof import("../../src/live/qemu/parts.ts");
const { GUEST_LIBRARY, GUEST_MODULES } = (await dist(
  "live/measure/guest",
)) as typeof import("../../src/live/measure/guest.ts");
const { openMetricsText, parseOpenMetrics } = (await dist(
  "live/machine/open-metrics",
)) as typeof import("../../src/live/machine/open-metrics.ts");

export const scripts = await loadScripts();
export const fio = await loadFioScript();
export const parts = scripts.readParts();

const BOOT_MS = 180_000;

/** A machine that is served, and its guest. */
export interface Live {
  readonly machine: LiveMachine;
  readonly served: Awaited<ReturnType<typeof serveMachine>>;
  readonly guest: Awaited<ReturnType<typeof AgentGuest.boot>>;
  readonly log: string[];
  /** Runs a command in the guest that must succeed; what it printed. */
  run(command: string, timeoutMs?: number): Promise<string>;
  /** The metrics as they are now. */
  scrape(): ReturnType<typeof parseOpenMetrics>;
  /** MD5 of a disk's image, from this side. */
  imageSum(disk: string): string;
  stop(): Promise<void>;
}

/** A disk in a sparse file of its own. */
export function diskIn(folder: string, disk: Omit<LiveDisk, "backing">, bytes: number): LiveDisk {
  const path = join(folder, `${disk.name}.img`);
  const fd = openSync(path, "w");
  ftruncateSync(fd, bytes);
  closeSync(fd);
  return { ...disk, backing: { kind: "file", path } };
}

/** Serves a machine and boots a guest with fio. @param make - given a folder for images */
export async function bootLive(
  make: (folder: string) => LiveMachine,
  options: { readonly append?: string; readonly reboots?: boolean } = {},
): Promise<Live> {
  const images = mkdtempSync(join(tmpdir(), "iommukit-live-"));
  const machine = make(images);
  const folder = new RuntimeFolder(join(images, "run"));
  const log: string[] = [];
  const served = await serveMachine(machine, folder, (line) => log.push(line));
  const clean = async () => {
    await served.stop();
    rmSync(images, { recursive: true, force: true });
  };
  let guest: Live["guest"];
  try {
    guest = await AgentGuest.boot({
      machine,
      folder,
      scripts,
      parts: parts!,
      qemu: scripts.qemuCommand(parts!),
      contents: {
        modules: GUEST_MODULES,
        files: { "/measure.sh": GUEST_LIBRARY, ...fio.fioFiles(fio.fetchFio()) },
      },
      append: options.append ?? "quiet",
      console: join(images, "console"),
      bootMs: BOOT_MS,
      reboots: options.reboots ?? false,
    });
  } catch (error) {
    log.push(readFileSync(join(images, "console"), "utf8").slice(-2000));
    await clean();
    throw new Error(`the guest did not come up: ${log.join("\n")}`, { cause: error });
  }
  /** What the server, QEMU and the guest's console said last. */
  const story = () => {
    const tail = (path: string) => readFileSync(path, "utf8").slice(-2000);
    return [...log, tail(join(folder.path, "qemu.log")), tail(join(images, "console"))].join("\n");
  };
  return {
    machine,
    served,
    guest,
    log,
    async run(command, timeoutMs = 120_000) {
      const answer = await guest.agent.run(command, timeoutMs).catch((cause: Error) => {
        throw new Error(`${cause.message}\n${story()}`, { cause });
      });
      if (answer.status === 0) return answer.output;
      throw new Error(`${command}\nended with ${answer.status}:\n${answer.output}\n${story()}`);
    },
    scrape: () => parseOpenMetrics(openMetricsText(served.families())),
    imageSum(name) {
      const disk = machine.disks.find((one) => one.name === name)!;
      if (disk.backing.kind !== "file") throw new Error(`${name} is in no file`);
      return createHash("md5").update(readFileSync(disk.backing.path)).digest("hex");
    },
    async stop() {
      await guest.stop();
      await clean();
    },
  };
}
