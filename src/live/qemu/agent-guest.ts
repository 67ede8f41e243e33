/** Boots a guest out of the cache folder's kernel and busybox that does what it is told. */
import { join } from "node:path";
import type { LiveMachine } from "../machine/live-machine.ts";
import type { RuntimeFolder } from "../machine/runtime-folder.ts";
import { qemuArguments } from "./command.ts";
import { AGENT_SCRIPT, agentArguments, GuestAgent } from "./guest-agent.ts";
import { RunningQemu } from "./launcher.ts";
import type { GuestContents, Parts, PartsScripts } from "./parts.ts";

/** What the guest consists of. */
export interface AgentGuestOptions {
  readonly machine: LiveMachine;
  readonly folder: RuntimeFolder;
  readonly scripts: PartsScripts;
  readonly parts: Parts;
  /** Words that start QEMU. */
  readonly qemu: readonly string[];
  readonly contents: Omit<GuestContents, "script">;
  /** Kernel arguments. */
  readonly append: string;
  /** Where its console goes. */
  readonly console: string;
  readonly bootMs: number;
  /** Whether a reset of the guest starts it again; else it ends QEMU. */
  readonly reboots?: boolean;
  /** Shell commands before the agent starts. */
  readonly first?: string;
}

/** A guest that is up. */
export class AgentGuest {
  readonly agent: GuestAgent;
  readonly qemu: RunningQemu;
  readonly command: readonly string[];

  private constructor(agent: GuestAgent, qemu: RunningQemu, command: readonly string[]) {
    this.agent = agent;
    this.qemu = qemu;
    this.command = command;
  }

  /** Boots one; its devices must be served already. @throws StackError when it does not come up */
  static async boot(options: AgentGuestOptions): Promise<AgentGuest> {
    const { machine, folder, scripts, parts, contents, first = "" } = options;
    const initrd = join(folder.path, "initrd");
    const script = `${first}\n${AGENT_SCRIPT}`;
    folder.write(initrd, scripts.buildInitrd(parts, { ...contents, script }));
    const socket = folder.own(join(folder.path, "agent.sock"));
    const agent = await GuestAgent.listen(socket);
    const settings = {
      ...machine.qemu,
      kernel: scripts.vmlinuz(parts),
      initrd,
      append: `console=ttyS0 panic=-1 ${options.append}`,
      boot: null,
      extra: [
        ...agentArguments(socket),
        ...(options.reboots === true ? [] : ["-no-reboot"]),
        ...machine.qemu.extra,
      ],
    };
    const words = qemuArguments(
      { ...machine, qemu: settings },
      {
        socketOf: (name) => folder.socketOf(name),
        viot: machine.iommu === null ? null : folder.viot,
        console: options.console,
      },
    );
    const command = [...options.qemu, ...words];
    const log = folder.own(join(folder.path, "qemu.log"));
    const qemu = new RunningQemu(command, { kind: "file", path: log });
    qemu.ended.then(
      () => agent.fail("QEMU has ended"),
      (error: Error) => agent.fail(error.message),
    );
    try {
      await agent.ready(options.bootMs);
    } catch (error) {
      agent.close();
      await qemu.stop();
      throw error;
    }
    return new AgentGuest(agent, qemu, command);
  }

  /** Ends it, without a word to its devices. */
  async stop(): Promise<void> {
    this.agent.close();
    await this.qemu.stop();
  }
}
