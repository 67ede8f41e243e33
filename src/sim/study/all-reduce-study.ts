/** Ring all-reduce in a VM: page tables of one domain, or of a domain for each node. */
import { type AllReduceMachine, type AllReduceRun, runAllReduce } from "../workload/all-reduce.ts";
import { type MachineChange, quicker, runnable, translationChanges } from "./dma-changes.ts";
import { allReducePicture } from "./pictures.ts";
import {
  likeliest,
  type Study,
  type StudyChange,
  type StudyRun,
  timeIn,
  timelineOfRun,
} from "./study.ts";
import { freeOfPrices } from "./window-study.ts";

/** How groups are attached to domains. */
export const allReduceVariants = ["one-domain", "by-node"] as const;
export type AllReduceVariant = (typeof allReduceVariants)[number];

/** What to study. */
export interface AllReduceStudyOptions extends Omit<AllReduceRun, "byNode"> {
  readonly variants: readonly AllReduceVariant[];
}

const CHANGES = 7;
/** As nccl-tests has it. */
const GB = 1e9;
/** Walkers that nobody has to wait for. */
const WALKERS_FREE = 4096;

/** The study. */
export function allReduceStudy(options: AllReduceStudyOptions): Study {
  const { nodes, variants, mapperNode, machine } = options;
  const names = nodes.join(" and ");
  const hosts = `${machine.hosts} hosts`;
  return {
    kind: "all-reduce",
    picture: allReducePicture(machine, mapperNode),
    title: `all-reduce of GPUs and NICs on node ${names}, ${hosts}, mapped from node ${mapperNode}`,
    variants: variants.map((name) => {
      const run: AllReduceRun = { ...options, byNode: name === "by-node" ? 1 : null };
      const changed = (other: AllReduceMachine, more: Partial<AllReduceRun> = {}) =>
        measure({ ...run, machine: other, ...more });
      const free: StudyChange = {
        id: "free:translation",
        what: "all of translation free",
        isTranslation: true,
        isSetting: false,
        run: () => changed(withoutCost(run.machine)),
      };
      return {
        name,
        run: () => measure(run),
        timeline: (done) => timelineOfRun(done, (slices) => runAllReduce({ ...run, slices })),
        free,
        changes: (base) => changesOf(run, base, changed),
      };
    }),
  };
}

function withoutCost(machine: AllReduceMachine): AllReduceMachine {
  const interconnect = { latency: 0, bytesPerSecond: 1e15 };
  return { ...freeOfPrices(machine), interconnect, walkers: WALKERS_FREE };
}

function changesOf(
  run: AllReduceRun,
  base: StudyRun,
  changed: (machine: AllReduceMachine, more?: Partial<AllReduceRun>) => StudyRun,
): readonly StudyChange[] {
  const { machine, byNode } = run;
  const remote = base.nodes.reduce((sum, node) => sum + node.remote, 0);
  const translating = timeIn(base, ({ resource }) => ["IOMMU", "node link"].includes(resource));
  const waiting = timeIn(base, ({ resource }) => resource === "walkers");
  // What walkers wait for on the way, others wait for behind them.
  const worth = remote === 0 ? 0 : remote + (waiting * remote) / translating;
  const setting = { isTranslation: true, isSetting: true } as const;
  const nodes = {
    ...setting,
    id: "by-node",
    what: "a domain for each node",
    worth: byNode === 1 ? 0 : base.whole,
    run: () => changed(machine, { byNode: 1 }),
  };
  const large = {
    ...setting,
    id: "large-pages",
    what: "memory of the VM in blocks of 2 MiB",
    worth: machine.blockPages === 512 ? 0 : base.whole,
    run: () => changed({ ...machine, blockPages: 512 }),
  };
  return likeliest(
    [...translationChanges(machine, base), ...machineChanges(machine, base, worth)]
      .map((change) => runnable(change, (other) => changed(other)))
      .concat(nodes, large),
    CHANGES,
  );
}

function machineChanges(
  machine: AllReduceMachine,
  base: StudyRun,
  remote: number,
): readonly MachineChange<AllReduceMachine>[] {
  const { nic, interconnect } = machine;
  const links = timeIn(base, ({ resource }) => resource.startsWith("link "));
  const memory = timeIn(base, ({ resource }) => resource === "memory");
  const change = (
    id: string,
    what: string,
    worth: number,
    changed: Partial<AllReduceMachine>,
    isTranslation = false,
  ) => ({ id, what, isTranslation, machine: { ...machine, ...changed }, worth });
  return [
    change(
      "node-link",
      "a link between nodes twice as fast",
      remote / 2,
      {
        interconnect: quicker(interconnect),
      },
      true,
    ),
    change("wire", "NICs twice as fast", base.whole / 4, {
      nic: { ...nic, bytesPerSecond: nic.bytesPerSecond * 2 },
    }),
    change("links", "PCIe links twice as fast", links / 2, {
      nic: { ...nic, link: quicker(nic.link) },
    }),
    change("memory", "GPU memory twice as fast", memory / 2, {
      nic: { ...nic, memoryTime: Math.round(nic.memoryTime / 2) },
    }),
  ];
}

function measure(run: AllReduceRun): StudyRun {
  const { algbw, busbw, remoteShare, walkerShares, where, time, hash } = runAllReduce(run);
  return {
    speed: algbw,
    reason: null,
    halfWidth: 0,
    values: {
      algbw: algbw / GB,
      busbw: busbw / GB,
      timeNs: time / 1000,
      remoteShare,
      walkersBusyMin: Math.min(...walkerShares),
      walkersBusyMax: Math.max(...walkerShares),
    },
    parts: where.parts,
    whole: where.latency,
    nodes: where.nodes,
    steps: where.steps,
    queues: where.queues,
    time,
    hash,
  };
}
