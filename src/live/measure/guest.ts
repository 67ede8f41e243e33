/**
 * What a measurement asks of its guest: a disk put into a mode, a job run, a strict run traced.
 *
 * A group's type changes while no driver is bound. Source: Linux 7.2 `iommu_group_store_type`,
 * Documentation/ABI/testing/sysfs-kernel-iommu_groups.
 */
import { StackError } from "../../errors.ts";
import type { GuestAgent, GuestAnswer } from "../qemu/guest-agent.ts";
import { groupTypes, type MeasuredDisk, type Mode } from "./plan.ts";

const RUN_SLACK_MS = 60_000;
const pciDrivers = { nvme: "nvme", "virtio-blk": "virtio-pci" } as const;

/** Kernel modules of a guest that measures. */
export const GUEST_MODULES = ["virtio-iommu", "virtio_blk", "nvme"] as const;

/** Shell functions that the commands below use; `/measure.sh` in the guest. */
export const GUEST_LIBRARY = `
# Unbinds a function, gives its group a type, binds it again, and prints its disk's name.
rebind() { # PCI DRIVER TYPE
  device=/sys/bus/pci/devices/$1
  if [ -e $device/driver ]; then echo $1 > $device/driver/unbind; fi
  if [ -n "$3" ]; then echo $3 > $device/iommu_group/type || return 3; fi
  echo $1 > /sys/bus/pci/drivers/$2/bind || return 4
  for try in $(seq 200); do
    for disk in /sys/block/*; do
      case $(readlink -f $disk) in */$1/*)
        # The partitions are read before the disk can be opened; wait for its node, too.
        if [ -b /dev/\${disk##*/} ]; then echo \${disk##*/}; return 0; fi ;;
      esac
    done
    sleep 0.02
  done
  return 5
}
tracing=/sys/kernel/tracing
trace_start() {
  echo 0 > $tracing/tracing_on; echo > $tracing/trace; echo 16384 > $tracing/buffer_size_kb
  echo 1 > $tracing/events/iommu/map/enable; echo 1 > $tracing/events/iommu/unmap/enable
  echo 1 > $tracing/tracing_on
}
trace_end() { echo 0 > $tracing/tracing_on; gzip -c $tracing/trace; echo 0 > $tracing/events/iommu/enable; }
`;

function must(answer: GuestAnswer, what: string): GuestAnswer {
  if (answer.status === 0) return answer;
  const said = answer.output.trim().split("\n").slice(-3).join("; ").slice(0, 300);
  throw new StackError({
    code: "live/guest-command",
    kind: "input",
    message: `The guest could not ${what} (status ${answer.status}): ${said}`,
    hint: "its console tells more",
  });
}

/**
 * Puts a disk into a mode; its driver is bound anew.
 *
 * @param mode - null leaves the group as it is
 * @returns the disk's name there: `nvme0n1`
 */
export async function switchMode(
  agent: GuestAgent,
  { pci, kind }: MeasuredDisk,
  mode: Mode | null,
): Promise<string> {
  const type = mode === null ? '""' : groupTypes[mode];
  const command = `. /measure.sh; rebind ${pci} ${pciDrivers[kind]} ${type}`;
  const answer = must(await agent.run(command), `put ${pci} into mode ${mode ?? "as it was"}`);
  return answer.output.trim().split("\n").at(-1) ?? "";
}

/** Puts a job file into the guest. */
export async function putJobs(agent: GuestAgent, text: string): Promise<void> {
  const encoded = Buffer.from(text).toString("base64");
  must(await agent.run(`echo ${encoded} | base64 -d > /tmp/jobs.fio`), "take a job file");
}

/** Runs one job of the file that was put there; what fio printed. */
export async function runJob(
  agent: GuestAgent,
  fio: string,
  job: string,
  runtimeSeconds: number,
): Promise<string> {
  const section = `'--section=${job.replaceAll("'", "'\\''")}'`;
  const command = `cd /tmp && ${fio} --output-format=json ${section} /tmp/jobs.fio`;
  const answer = await agent.run(command, runtimeSeconds * 1000 + RUN_SLACK_MS);
  return answer.output;
}

/** As {@link runJob} with the kernel's `iommu` events traced: the trace, gzipped. */
export async function traceJob(
  agent: GuestAgent,
  fio: string,
  job: string,
  runtimeSeconds: number,
): Promise<Uint8Array> {
  must(await agent.run(". /measure.sh; trace_start"), "trace");
  await runJob(agent, fio, job, runtimeSeconds);
  const answer = await agent.run(". /measure.sh; trace_end", 4 * RUN_SLACK_MS);
  return must(answer, "bring back a trace").bytes;
}
