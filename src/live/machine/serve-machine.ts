/**
 * Serves a machine from this process: folder, tables, disks kept in memory, a supervised worker, and
 * metrics. What it makes goes away with it.
 */
import { Supervisor } from "../supervisor/supervisor.ts";
import { openLinuxSystem } from "../system/linux-system.ts";
import type { LiveDisk, LiveMachine, MetricsEndpoint } from "./live-machine.ts";
import { metricTableOf } from "./metric-list.ts";
import { MetricsServer } from "./metrics-server.ts";
import type { MetricFamily } from "./open-metrics.ts";
import type { RuntimeFolder } from "./runtime-folder.ts";
import { viotOf } from "./topology.ts";

/** A machine that is served. */
export interface ServedMachine {
  readonly folder: RuntimeFolder;
  /** Resolves when it cannot go on. */
  readonly failed: Promise<Error>;
  families(): readonly MetricFamily[];
  /** Starts a new worker that goes on where the old one is; the guest waits for a moment. */
  handOver(): Promise<void>;
  /** Kills the worker as a crash would; another takes its place. */
  killWorker(): void;
  stop(): Promise<void>;
}

/**
 * Serves a machine.
 *
 * @param log - takes lines for the user
 * @throws StackError when the folder, a disk image or the metrics' address cannot be used
 */
export async function serveMachine(
  machine: LiveMachine,
  folder: RuntimeFolder,
  log: (line: string) => void,
): Promise<ServedMachine> {
  await folder.claim(machine.name);
  try {
    return await serveIn(machine, folder, log);
  } catch (error) {
    folder.remove();
    throw error;
  }
}

async function serveIn(
  machine: LiveMachine,
  folder: RuntimeFolder,
  log: (line: string) => void,
): Promise<ServedMachine> {
  const system = await openLinuxSystem();
  const viot = viotOf(machine);
  if (viot !== null) folder.write(folder.viot, viot);
  const disks = machine.disks.map((disk) => keptDisk(disk, folder));
  const names = [...(machine.iommu === null ? [] : [machine.iommu.name]), ...disks.map(nameOf)];
  let fail: (error: Error) => void = () => {};
  const failed = new Promise<Error>((resolve) => {
    fail = resolve;
  });
  const supervisor = await Supervisor.start({
    system,
    entry: workerEntry(),
    machine: { ...machine, disks },
    devices: names.map((name) => ({ name, path: folder.own(folder.socketOf(name)) })),
    metrics: metricTableOf(machine),
    log,
    failed: fail,
  });
  const families = () => [...machineFamilies(machine, supervisor), ...supervisor.families()];
  const endpoint: MetricsEndpoint = machine.metrics ?? { kind: "unix", path: folder.metrics };
  let metrics: MetricsServer;
  try {
    if (machine.metrics === null) folder.own(folder.metrics);
    metrics = await MetricsServer.listen(system, endpoint, families);
  } catch (error) {
    await supervisor.stop();
    throw error;
  }
  return {
    folder,
    failed,
    families,
    handOver: () => supervisor.handOver(),
    killWorker: () => supervisor.kill(),
    async stop() {
      metrics.close();
      try {
        await supervisor.stop();
      } finally {
        folder.remove();
      }
    },
  };
}

function machineFamilies({ name }: LiveMachine, supervisor: Supervisor): MetricFamily[] {
  return [
    {
      name: "iommukit_machine",
      help: "The machine that is served",
      type: "gauge",
      samples: [{ labels: { name }, value: 1 }],
    },
    {
      name: "iommukit_worker_restarts",
      help: "Workers that ended by themselves and were replaced",
      type: "counter",
      samples: [{ labels: {}, value: supervisor.unexpectedEnds }],
    },
  ];
}

const nameOf = ({ name }: LiveDisk) => name;

/** A disk in memory is a file of the runtime folder: it outlives the worker, and not the machine. */
function keptDisk(disk: LiveDisk, folder: RuntimeFolder): LiveDisk {
  if (disk.backing.kind === "file") return disk;
  const path = folder.diskOf(disk.name);
  folder.makeSparse(path, disk.backing.bytes);
  return { ...disk, backing: { kind: "file", path } };
}

/** The worker's module: as source where this is source, as built where this is built. */
function workerEntry(): URL {
  const end = import.meta.url.endsWith(".ts") ? "ts" : "js";
  return new URL(`./worker-main.${end}`, import.meta.url);
}
