/** The verb `check`: what will fail, cost or not protect when devices go to a virtual machine. */
import { StackError } from "../errors.ts";
import { check as findAll } from "../host/check.ts";
import { liveHost, openHost } from "../host/open-host.ts";
import { readHost } from "../host/sysfs.ts";
import { checkJson, renderCheck } from "../report/check-report.ts";
import type { Machine } from "../topology/machine.ts";
import { Exit } from "./problem.ts";
import type { Terminal } from "./terminal.ts";
import { namesVm, readVm, type VmFlags } from "./vm-input.ts";

/** Flags of the verb. */
export interface CheckFlags extends VmFlags {
  readonly root?: string;
  readonly device?: readonly string[];
  readonly memlock?: bigint;
  readonly strict: boolean;
  readonly json: boolean;
}

/**
 * Runs the verb. The host is that of `--root`; the running system where neither that nor another
 * machine's command line is given.
 */
export async function check(flags: CheckFlags, terminal: Terminal): Promise<Exit> {
  const hasVm = namesVm(flags);
  const devices = flags.device ?? [];
  const isHere = !hasVm || flags.pid !== undefined || devices.length > 0;
  const host = flags.root !== undefined || isHere ? readMachine(flags.root) : null;
  const vm = hasVm ? await readVm(flags, host?.machine ?? null) : null;
  const findings = findAll({
    host: host?.machine ?? null,
    vm,
    ...(flags.root === undefined ? {} : { root: flags.root }),
    devices,
    memlockBytes: flags.memlock ?? null,
    entryLimit: host?.entryLimit ?? null,
    findings: host?.findings ?? [],
  });
  if (flags.json) terminal.print(`${JSON.stringify(checkJson(findings), null, 2)}\n`);
  else terminal.print(`${renderCheck(findings, terminal.width, terminal.style).join("\n")}\n`);
  const isBad = findings.some(({ severity }) => severity !== "note");
  return flags.strict && isBad ? Exit.NO : Exit.DONE;
}

interface ReadHost extends Pick<ReturnType<typeof readHost>, "findings"> {
  readonly machine: Machine;
  readonly entryLimit: number | null;
}

const ENTRY_LIMIT = "/sys/module/vfio_iommu_type1/parameters/dma_entry_limit";

function readMachine(root: string | undefined): ReadHost {
  const host = root === undefined ? liveHost() : openHost(root);
  if (host.kind === "lstopo") {
    throw new StackError({
      code: "cli/usage",
      kind: "usage",
      message: "an lstopo export says nothing of groups and IOMMUs",
      hint: "`iommukit inspect --capture OUT.tar.gz` on the host makes what check needs",
    });
  }
  const limit = host.tree.text(ENTRY_LIMIT);
  const entryLimit = limit !== null && /^\d{1,9}$/.test(limit) ? Number(limit) : null;
  return { ...readHost(host.tree), entryLimit };
}
