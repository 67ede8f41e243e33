/** A measurement from nothing to its samples: machine, server, guest, runs, and all of it gone. */
import { join } from "node:path";
import type { Doorbell, LiveDisk, LiveMachine } from "../machine/live-machine.ts";
import { openMetricsText, parseOpenMetrics, type Scrape } from "../machine/open-metrics.ts";
import type { RuntimeFolder } from "../machine/runtime-folder.ts";
import { serveMachine } from "../machine/serve-machine.ts";
import { AgentGuest } from "../qemu/agent-guest.ts";
import type { FoundQemu } from "../qemu/find-qemu.ts";
import type { FioScript, Parts, PartsScripts } from "../qemu/parts.ts";
import { GUEST_LIBRARY, GUEST_MODULES } from "./guest.ts";
import { type MeasureOptions, measure, recordStrict } from "./measure.ts";
import type { MeasuredDisk } from "./plan.ts";
import type { Counts, Sample } from "./summary.ts";

/** What to measure. */
export interface SessionPlan {
  readonly kinds: readonly MeasuredDisk["kind"][];
  readonly jobText: string;
  readonly jobs: readonly string[];
  readonly rounds: number;
  readonly runtimeSeconds: number;
  readonly doorbell: Doorbell;
  readonly accelerator: "tcg" | "kvm";
  /** Whether a strict run of each job is traced. */
  readonly isRecorded: boolean;
}

/** What it is done with. */
export interface SessionTools {
  readonly folder: RuntimeFolder;
  readonly qemu: FoundQemu;
  readonly scripts: PartsScripts;
  readonly parts: Parts;
  readonly fio: FioScript;
  /** File for the guest's console; null: one in the runtime folder. */
  readonly console: string | null;
  readonly log: (line: string) => void;
  readonly progress: (what: string, share: number) => void;
  /** Rejects when the user wants to stop. */
  readonly interrupted: Promise<never>;
}

/** A traced strict run: gzipped text of the guest's ftrace. */
export interface Recording {
  readonly disk: string;
  readonly job: string;
  readonly trace: Uint8Array;
}

/** What a session brings back. */
export interface SessionResult {
  readonly samples: readonly Sample[];
  readonly recordings: readonly Recording[];
  /** Of the guest's kernel, as `uname` says. */
  readonly kernel: string;
}

const DISK_BYTES = 2 ** 28;
/** What of a disk the jobs use. */
const JOB_BYTES = 2 ** 27;
const MEMORY_BYTES = 2 ** 30;
const BOOT_MS = 120_000;
const TRACED_SECONDS = 1;
const FIRST_SLOT = 4;

/** The machine that is measured: a virtio-iommu, and each kind of disk once, in memory. */
export function measuredMachine(plan: SessionPlan): LiveMachine {
  const disks = plan.kinds.map(
    (kind, index): LiveDisk => ({
      kind,
      name: kind === "nvme" ? "nvme0" : "blk0",
      slot: { device: FIRST_SLOT + index, port: null },
      backing: { kind: "memory", bytes: DISK_BYTES },
      isReadOnly: false,
      queues: 1,
      isTranslated: true,
    }),
  );
  return {
    name: "measure",
    memoryBytes: MEMORY_BYTES,
    cpus: 1,
    nodes: [],
    ram: "pin",
    ports: [],
    iommu: {
      name: "iommu0",
      slot: { device: FIRST_SLOT - 1, port: null },
      bypass: true,
      doorbell: plan.doorbell,
    },
    disks,
    metrics: null,
    qemu: {
      program: null,
      accelerator: plan.accelerator,
      cpu: plan.accelerator === "kvm" ? "host" : "max",
      kernel: null,
      initrd: null,
      append: "",
      boot: null,
      extra: [],
    },
  };
}

/** What a scrape says of the virtio-iommu and of one disk. */
export function countsOf(scrape: Scrape, disk: string): Counts {
  return {
    maps: scrape.value("iommukit_requests_total", { kind: "map" }),
    unmaps: scrape.value("iommukit_requests_total", { kind: "unmap" }),
    kicks: scrape.value("iommukit_kicks_total"),
    syncs: scrape.value("iommukit_syncs_total"),
    messages: scrape.value("iommukit_messages_total"),
    interrupts: scrape.value("iommukit_interrupts_total", { device: disk }),
  };
}

/** Does a whole measurement. */
export async function runSession(plan: SessionPlan, tools: SessionTools): Promise<SessionResult> {
  const { folder, scripts, parts, fio } = tools;
  const machine = measuredMachine(plan);
  tools.progress("starting the guest", 0);
  const served = await serveMachine(machine, folder, tools.log);
  let guest: AgentGuest | null = null;
  try {
    const files = { "/measure.sh": GUEST_LIBRARY, ...fio.fioFiles(fio.fetchFio()) };
    guest = await AgentGuest.boot({
      machine,
      folder,
      scripts,
      parts,
      qemu: tools.qemu.command,
      contents: { modules: GUEST_MODULES, files },
      append: "quiet",
      console: tools.console ?? folder.own(join(folder.path, "console")),
      bootMs: BOOT_MS,
    });
    const { agent } = guest;
    const counts = async (disk: string) =>
      countsOf(parseOpenMetrics(openMetricsText(served.families())), disk);
    const options: MeasureOptions = {
      ...plan,
      agent,
      fio: fio.guestCommand,
      sizeBytes: JOB_BYTES,
      disks: machine.disks.map(({ kind, name, slot }) => ({ kind, name, pci: pciOf(slot.device) })),
      counts,
      progress: tools.progress,
    };
    const failed = served.failed.then((error) => Promise.reject(error));
    const result = await Promise.race([runAll(options, plan), failed, tools.interrupted]);
    agent.leave("echo b > /proc/sysrq-trigger");
    return result;
  } finally {
    await guest?.stop();
    await served.stop();
  }
}

async function runAll(options: MeasureOptions, plan: SessionPlan): Promise<SessionResult> {
  const { output: kernel } = await options.agent.run("uname -r");
  const samples = await measure(options);
  const recordings: Recording[] = [];
  for (const disk of plan.isRecorded ? options.disks : []) {
    for (const job of options.jobs) {
      options.progress(`${disk.name} strict ${job}, traced`, 1);
      const trace = await recordStrict(options, disk, job, TRACED_SECONDS);
      recordings.push({ disk: disk.name, job, trace });
    }
  }
  return { samples, recordings, kernel: kernel.trim() };
}

function pciOf(device: number): string {
  return `0000:00:${device.toString(16).padStart(2, "0")}.0`;
}
